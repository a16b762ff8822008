"""What the explorer reads of the archive: functions from a connection to records, for the API and the pages alike.

Every list is read by an index from where its last page ended: what it costs does not grow with the archive, nor with
the number of the page.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import dict_row, scalar_row

from explorer.cursors import Value, read_cursor, write_cursor
from explorer.records import (
    Copy,
    ImageCluster,
    ImageRecord,
    Item,
    Label,
    Neighbour,
    Neighbours,
    Page,
    Picture,
    Standing,
    Swatch,
    as_picture,
)
from lookalike import books, search
from lookalike.database import Connection
from lookalike.errors import NotEmbeddedError, UnknownImageError
from lookalike.queries import load_queries

QUERIES = load_queries("explorer")
COPIES = 10


@dataclass(frozen=True, slots=True)
class Filters:
    """Which images a search may find; None is no filter. `since` and `before` are days of digitisation."""

    work: str | None = None
    licence: str | None = None
    access: str | None = None
    source: str | None = None
    since: date | None = None
    before: date | None = None
    colour: str | None = None
    exclude_same_work: bool = False
    include_unwanted: bool = False


EVERYTHING = Filters()


# Searches ------------------------------------------------------------------------------------------------------------


def similar(
    connection: Connection,
    key: str,
    encoder: str,
    k: int = 10,
    max_distance: float | None = None,
    filters: Filters = EVERYTHING,
) -> Neighbours:
    """The k images most like a known one. Raises UnknownImageError, NotEmbeddedError, UnknownEncoderError."""
    asked = {"key": key, "k": k, "max_distance": max_distance, "encoder": encoder, **asdict(filters)}
    return Neighbours(query=key, encoder=encoder, neighbours=_neighbours(connection, "similar", asked))


def nearest(
    connection: Connection,
    vector: NDArray[np.float32],
    encoder: str,
    k: int = 10,
    max_distance: float | None = None,
    filters: Filters = EVERYTHING,
    query: str = "",
) -> Neighbours:
    """The k images nearest to a vector (d,) from outside; `query` is what it was made of, in words."""
    asked = {
        "vector": vector.tolist(),
        "k": k,
        "max_distance": max_distance,
        "encoder": encoder,
        **asdict(filters),
    }
    return Neighbours(query=query, encoder=encoder, neighbours=_neighbours(connection, "nearest", asked))


def by_colour(
    connection: Connection,
    colour: str,
    k: int = 10,
    max_distance: float | None = None,
    include_unwanted: bool = False,
) -> list[Neighbour]:
    """The k images that hold most of a colour, 'c83c32' or '#c83c32'. Raises ConfigurationError for what is none."""
    asked = {"colour": colour, "k": k, "max_distance": max_distance, "include_unwanted": include_unwanted}
    return _neighbours(connection, "by_colour", asked)


def _neighbours(connection: Connection, query: str, asked: dict[str, Any]) -> list[Neighbour]:
    with search.answering():
        return [Neighbour(**as_picture(row)) for row in rows(connection, QUERIES[query], asked)]


# Images --------------------------------------------------------------------------------------------------------------


def random_wall(connection: Connection, count: int = 40) -> list[Picture]:
    """Random images, others every time: embedded ones first, no unwanted ones, `count` or fewer.

    Ids are drawn, and looked up: an archive of forty million costs what one of a thousand does.
    """
    first, last = connection.execute(QUERIES["bounds"]).fetchone() or (None, None)
    if first is None:
        return []
    span = range(first, last + 1)
    # Some are gone, not embedded yet or unwanted; and behind a gap the same image is met by many ids.
    drawn = list(span) if len(span) <= 4 * count else random.sample(span, 4 * count)
    found = rows(connection, QUERIES["wall"], {"ids": drawn, "count": count})
    return [Picture(**as_picture(row)) for row in found]


def find_work(
    connection: Connection,
    work: str,
    cursor: str | None = None,
    limit: int = 100,
    include_unwanted: bool = False,
) -> Page[Picture]:
    """The images of a work; an empty page when there is none of this name."""
    (after,) = read_cursor(cursor, (0,))
    asked = {"work": work, "after": after, "limit": limit + 1, "include_unwanted": include_unwanted}
    found = rows(connection, QUERIES["work"], asked)
    return page(found, limit, lambda row: Picture(**as_picture(row)), lambda row: (row["id"],))


def find_image(connection: Connection, key: str, encoder: str | None = None) -> ImageRecord:
    """All that is known of an image: labels, clusters and near-duplicates by this encoder, else by the active one.

    Raises UnknownImageError.
    """
    found = rows(connection, QUERIES["image"], {"key": key})
    if not found:
        raise UnknownImageError(f"no image has the key {key!r}")
    row = found[0]
    embedded = encoders_of(connection, row["id"])
    chosen = encoder or next(iter(embedded), None)
    asked = {"image": row["id"], "work": row["work"], "encoder": chosen, "limit": COPIES}
    swatches = zip(row["palette"] or [], row["palette_shares"] or [], strict=True)
    labels = rows(connection, QUERIES["labels"], asked)
    return ImageRecord(
        **as_picture({**row, "palette": [Swatch(colour=colour, share=share) for colour, share in swatches]}),
        encoders=embedded,
        labels=[Label(**one) for one in labels],
        clusters=[ImageCluster(**one) for one in rows(connection, QUERIES["image_clusters"], asked)],
        copies=[Copy(**as_picture(one)) for one in rows(connection, QUERIES["copies_of"], asked)],
        standing=[Standing(**one) for one in rows(connection, QUERIES["image_unwanted"], asked)],
    )


def encoders_of(connection: Connection, image: int) -> list[str]:
    """The encoders that an image, by its id, has a vector of; the active one first."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return [
            name
            for name in books.encoder_names(connection)
            if cursor.execute(_of_table(connection, name, "has_vector"), {"image": image}).fetchone()
        ]


def vector_of(connection: Connection, key: str, encoder: str) -> NDArray[np.float32]:
    """The unit vector (d,) of an image. Raises UnknownImageError, NotEmbeddedError, UnknownEncoderError."""
    image = search.find_image(connection, key)
    row = connection.execute(_of_table(connection, encoder, "vector"), {"image": image.id}).fetchone()
    if row is None:
        raise NotEmbeddedError(f"{key} waits to be embedded by {encoder}, or failed")
    vector: NDArray[np.float32] = row[0].to_numpy().astype(np.float32)
    return vector


def _of_table(connection: Connection, encoder: str, query: str) -> sql.Composed:
    table = sql.Identifier(books.vectors_table(connection, encoder))
    return sql.SQL(QUERIES[query]).format(vectors=table)


def licences(connection: Connection) -> list[str]:
    """The licences that images have, for a filter to choose from."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES["licences"]).fetchall()


# How lists are read -------------------------------------------------------------------------------------------------


def rows(
    connection: Connection, statement: LiteralString | sql.Composed, asked: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a statement, by the names of their columns."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, asked).fetchall()


def page(
    found: Sequence[dict[str, Any]],
    limit: int,
    make: Callable[[dict[str, Any]], Item],
    place: Callable[[dict[str, Any]], tuple[Value, ...]],
) -> Page[Item]:
    """A page of `limit` items from one row more than that; `place` is where a row stands in the list."""
    shown = found[:limit]
    more = len(found) > limit
    return Page(items=[make(row) for row in shown], next=write_cursor(*place(shown[-1])) if more else None)
