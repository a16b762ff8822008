"""Similarity queries from Python: thin calls of the SQL functions, which hold all the logic."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.rows import class_row

from lookalike.errors import ConfigurationError, NotEmbeddedError, UnknownEncoderError, UnknownImageError
from lookalike.images import Protocol

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An image and its distance in 0..1 from the query; rank starts at 1."""

    rank: int
    image: str
    distance: float
    work: str | None
    title: str | None
    licence: str | None
    url: str


@dataclass(frozen=True, slots=True)
class Label:
    """A class of an image, with its probability; rank 1 is the most probable."""

    rank: int
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class KnownImage:
    """A registered image: where it is fetched from, and whether that address came from `outside`, see Image."""

    id: int
    key: str
    url: str
    protocol: Protocol
    outside: bool


def active_encoder(connection: Connection) -> str:
    """The encoder that searches use. Raises UnknownEncoderError in an archive that has none yet."""
    row = connection.execute("select active_encoder()").fetchone()
    if row is None or row[0] is None:
        raise UnknownEncoderError("the archive has no encoder yet: add images first (lookalike add SOURCE)")
    return str(row[0])


def similar(
    connection: Connection,
    key: str,
    k: int = 10,
    max_distance: float | None = None,
    encoder: str | None = None,
) -> list[Neighbour]:
    """The k images most like a known one, nearest first. Raises UnknownImageError, UnknownEncoderError."""
    return _neighbours(connection, "similar(%s, %s, %s, %s)", [key, k, max_distance, encoder])


def nearest(
    connection: Connection,
    vector: NDArray[np.float32],
    k: int = 10,
    max_distance: float | None = None,
    encoder: str | None = None,
) -> list[Neighbour]:
    """The k images nearest to a vector (d,) from outside, made by the same encoder; any length but 0."""
    return _neighbours(connection, "nearest(%s, %s, %s, %s)", [vector.tolist(), k, max_distance, encoder])


def find_image(connection: Connection, key: str) -> KnownImage:
    """The image of this key. Raises UnknownImageError."""
    with connection.cursor(row_factory=class_row(KnownImage)) as cursor:
        cursor.execute("select id, key, url, protocol, outside from images where key = %s", [key])
        image = cursor.fetchone()
    if image is None:
        raise UnknownImageError(f"no image has the key {key!r}")
    return image


def labels(connection: Connection, image: KnownImage, encoder: str) -> list[Label]:
    """The stored labels of an image, the most probable first; none when its encoder has no classifier."""
    with connection.cursor(row_factory=class_row(Label)) as cursor:
        cursor.execute(
            "select rank, label, probability from labels where encoder = %s and image_id = %s order by rank",
            [encoder, image.id],
        )
        return cursor.fetchall()


def by_colour(
    connection: Connection,
    colour: str,
    k: int = 10,
    max_distance: float | None = None,
    within: Sequence[int] | None = None,
) -> list[Neighbour]:
    """The k images that hold most of a colour ('#c83c32' or 'c83c32'), among all or those of these ids.

    The distance is 1 - the share of the picture that has the colour. Raises ConfigurationError for what is no colour,
    and for a k that is not in 1..1000.
    """
    arguments = [colour, k, max_distance, None if within is None else list(within)]
    return _neighbours(connection, "by_colour(%s, %s, %s, %s::bigint[])", arguments)


def _neighbours(connection: Connection, call: str, arguments: Sequence[object]) -> list[Neighbour]:
    with answering(), connection.cursor(row_factory=class_row(Neighbour)) as cursor:
        return cursor.execute(f"select * from {call}".encode(), arguments).fetchall()  # noqa: S608 - our own text


@contextmanager
def answering() -> Iterator[None]:
    """Has what the SQL functions refuse raised as errors of ours, for the time of the block."""
    try:
        yield
    except psycopg.errors.NoDataFound as error:
        said = _sentence(error)
        if "no encoder" in said:
            raise UnknownEncoderError(said) from None
        raise (NotEmbeddedError if "It is registered" in said else UnknownImageError)(said) from None
    except psycopg.errors.InvalidParameterValue as error:
        raise ConfigurationError(_sentence(error)) from None


def _sentence(error: psycopg.Error) -> str:
    said = error.diag.message_primary or str(error)
    return f"{said}. {error.diag.message_hint}" if error.diag.message_hint else said
