"""Analyses: work on the vectors of an archive, in chunks through the same ledger and queue as embedding.

A standing analysis goes on with the images that get a vector later. Each kind is a module that knows how to `find`
something about the images of a chunk (slow, outside of any transaction), to `store` it, and to `settle` the whole.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from lookalike.ledger import ChunkImage
from lookalike.queries import load_queries
from lookalike.turns import Turn

Connection = psycopg.Connection[tuple[Any, ...]]
Kind = Literal["duplicates", "clusters"]
QUERIES = load_queries("analyses")

# Embeds images in all other positions than the upright one: image id, turn, vector (d,), code uint8 (ceil(d / 8),).
TurnedVectors = Callable[
    [Sequence[ChunkImage]], Iterable[tuple[int, Turn, NDArray[np.floating], NDArray[np.uint8]]]
]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is asked of the archive; the settings are those of its kind."""

    id: int
    kind: Kind
    encoder: str
    settings: dict[str, Any]
    standing: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an analysis is, in images by the sizes of its chunks."""

    images: int
    left: int


@dataclass(frozen=True, slots=True)
class Standing:
    """An analysis that images go through: when it was summed up last, and how many images are left in its chunks."""

    id: int
    kind: Kind
    scope: str
    settled_at: datetime | None
    left: int


def begin(
    connection: Connection,
    kind: Kind,
    encoder: str,
    settings: dict[str, Any],
    chunk_size: int,
    prepare: Callable[[Connection, int], None] = lambda *_: None,
    scope: str = "",
    standing: bool = True,
) -> Analysis:
    """Begins a standing analysis of all images; one of the same kind, encoder and scope from before is superseded.

    `prepare` writes, in the same transaction, what the chunks will need; it gets the number of the analysis. One that
    is not `standing` has no chunks: `prepare` writes all of it, and it waits only to be settled.
    """
    with connection.transaction(), connection.cursor() as cursor:
        asked = {"kind": kind, "encoder": encoder, "scope": scope}
        # In this order: whoever finishes a chunk waits for the lock below, and must not wait for a summary with it.
        connection.execute(QUERIES["begin_alone"], asked)
        connection.execute(QUERIES["supersede"], asked)
        connection.execute(QUERIES["wait_for_finishes"], asked)
        connection.execute(QUERIES["end_chunks"], asked)
        made = {**asked, "settings": Jsonb(settings), "standing": standing}
        row = cursor.execute(QUERIES["begin"], made).fetchone()
        assert row is not None
        number, created_at = row
        prepare(connection, number)
        if standing:
            covered = {"encoder": encoder, "analysis": number, "size": chunk_size}
            connection.execute(QUERIES["cover_all_images"], covered)
    return Analysis(number, kind, encoder, settings, standing, created_at)


def find_standing(
    connection: Connection, kind: Kind, encoder: str, settings: dict[str, Any]
) -> Analysis | None:
    """The analysis of these settings that new images go through, however far it is. None when there is none."""
    with connection.cursor(row_factory=class_row(Analysis)) as cursor:
        asked = {"kind": kind, "encoder": encoder, "settings": Jsonb(settings)}
        return cursor.execute(QUERIES["find_standing"], asked).fetchone()


def find(connection: Connection, number: int) -> Analysis:
    """The analysis of this number."""
    with connection.cursor(row_factory=class_row(Analysis)) as cursor:
        found = cursor.execute(QUERIES["select"], {"analysis": number}).fetchone()
    assert found is not None, f"chunk of an unknown analysis {number}"
    return found


def progress(connection: Connection, number: int) -> Progress:
    """How much of an analysis is done."""
    with connection.cursor(row_factory=class_row(Progress)) as cursor:
        found = cursor.execute(QUERIES["progress"], {"analysis": number}).fetchone()
    assert found is not None
    return found


def list_standing(connection: Connection, encoder: str) -> list[Standing]:
    """The analyses of an encoder that images go through, or that are under way."""
    with connection.cursor(row_factory=class_row(Standing)) as cursor:
        return cursor.execute(QUERIES["list_standing"], {"encoder": encoder}).fetchall()


def is_settled(connection: Connection, number: int) -> bool:
    """Whether an analysis was summed up, and nothing of it is left to do."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(QUERIES["is_settled"], {"analysis": number}).fetchone())


def count_missed(connection: Connection, number: int) -> int:
    """How many images an analysis could not look at, and has given up."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return int(cursor.execute(QUERIES["missed"], {"analysis": number}).fetchone() or 0)
