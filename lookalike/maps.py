"""Maps: a sample of an archive laid out in the plane, look-alikes near each other. One for each encoder.

A map is made by hand and offline. It replaces the one of before at once or not at all; images that come later are not
on it until it is made anew, those that are deleted leave it at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
from psycopg.rows import class_row, dict_row, scalar_row

from lookalike import cluster_samples
from lookalike.errors import ConfigurationError
from lookalike.ledger import hold_deletions
from lookalike.projection import lay_out
from lookalike.queries import load_queries

Connection = psycopg.Connection[tuple[Any, ...]]
QUERIES = load_queries("maps")

IMAGES = 20_000
# t-SNE takes a minute or two for twenty thousand, and the page draws each of them sixty times a second.
MOST = 50_000


@dataclass(frozen=True, slots=True)
class Map:
    """A map; `images` were laid out."""

    id: int
    encoder: str
    method: str
    seed: int
    images: int
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Point:
    """An image of a map: its place in steps of 1/65535 from the left and upper edges, its average colour '#rrggbb'."""

    image: int
    x: int
    y: int
    colour: str


def make(connection: Connection, encoder: str, images: int = IMAGES, seed: int = 0) -> Map:
    """Draws a sample of at most `images` vectors, lays it out and makes it the map of the encoder.

    Raises UnknownEncoderError; ConfigurationError when there is nothing to lay out, or scikit-learn lacks.
    """
    table = cluster_samples.find_table(connection, encoder)
    drawn = cluster_samples.draw(connection, table, "images", images, seed)
    sample = cluster_samples.read(connection, table, "images", drawn)
    if not len(sample):
        raise ConfigurationError(f"there are no vectors of {encoder} to lay out yet")
    places, method = lay_out(sample.vectors, seed)
    asked = {"encoder": encoder, "method": method, "seed": seed, "images": len(sample)}
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        cursor.execute(QUERIES["make_alone"], asked)
        hold_deletions(connection)
        cursor.execute(QUERIES["drop"], asked)
        number = cursor.execute(QUERIES["insert_map"], asked).fetchone()
        xs, ys = places[:, 0].tolist(), places[:, 1].tolist()
        cursor.execute(QUERIES["insert_points"], {"map": number, "ids": sample.items, "xs": xs, "ys": ys})
    found = find(connection, encoder)
    assert found is not None
    return found


def find(connection: Connection, encoder: str) -> Map | None:
    """The map of an encoder; None where none was made."""
    with connection.cursor(row_factory=class_row(Map)) as cursor:
        return cursor.execute(QUERIES["find"], {"encoder": encoder}).fetchone()


def points(connection: Connection, number: int) -> list[Point]:
    """The images of a map, by their ids; no unwanted ones."""
    return [Point(*row) for row in connection.execute(QUERIES["points"], {"map": number})]


def pack(found: Sequence[Point]) -> bytes:
    """Points for a browser, little-endian, in columns that it can look at as they are:

    "LKMP", then uint32 version (1), count n and zero; float64 image[n]; uint16 x[n]; uint16 y[n]; uint8 rgb[n][3].
    """
    header = b"LKMP" + np.array([1, len(found), 0], "<u4").tobytes()
    colours = b"".join(bytes.fromhex(point.colour[1:]) for point in found)
    return b"".join(
        (
            header,
            np.array([point.image for point in found], "<f8").tobytes(),
            np.array([point.x for point in found], "<u2").tobytes(),
            np.array([point.y for point in found], "<u2").tobytes(),
            colours,
        )
    )


def some(connection: Connection, number: int, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Some images of a map, by their ids, as rows of what is shown of them."""
    return _rows(connection, "some_points", {"map": number, "ids": list(ids)})


def region(
    connection: Connection, number: int, box: tuple[float, float, float, float], limit: int
) -> list[dict[str, Any]]:
    """The images of a rectangle (left, top, right, bottom; 0..1), nearest to its middle first, as rows."""
    x0, y0, x1, y1 = box
    return _rows(
        connection, "region", {"map": number, "x0": x0, "y0": y0, "x1": x1, "y1": y1, "limit": limit}
    )


def regions(connection: Connection, number: int, side: int) -> list[dict[str, Any]]:
    """The squares of a map that hold images, `side` in a row: number `n` from the upper left, how many `images`, and
    the image in its middle."""
    return _rows(connection, "regions", {"map": number, "side": side})


def _rows(connection: Connection, query: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[query], asked).fetchall()
