"""What the sets of unwanted images are made of: their rows, and the vectors of images. Decides nothing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import class_row, dict_row, scalar_row

from lookalike.errors import UnknownEncoderError, UnknownImageError, UnknownSetError
from lookalike.held_out import Floats, nearest
from lookalike.queries import load_queries

Connection = psycopg.Connection[tuple[Any, ...]]
Ids = NDArray[np.int64]
QUERIES = load_queries("unwanted")

# Vectors that are read at once: 25 MB of 1,280 dimensions.
BLOCK = 10_000
# Keys that a message names.
NAMED = 10


@dataclass(frozen=True, slots=True)
class VectorTable:
    """Where an encoder's vectors are, and how their distances are measured."""

    vectors: str
    dimension: int
    form: str

    def format(self, query: str) -> sql.Composed:
        """A statement that reads vectors."""
        return sql.SQL(QUERIES[query]).format(vectors=sql.Identifier(self.vectors))


@dataclass(frozen=True, slots=True)
class KnownSet:
    """A set as it is stored."""

    id: int
    name: str
    threshold: float
    encoder: str
    vectors: str
    dimension: int
    form: str

    @property
    def table(self) -> VectorTable:
        return VectorTable(self.vectors, self.dimension, self.form)


def find_set(connection: Connection, name: str) -> KnownSet | None:
    """The set of this name, if there is one."""
    with connection.cursor(row_factory=class_row(KnownSet)) as cursor:
        return cursor.execute(QUERIES["find_set"], {"name": name}).fetchone()


def get_set(connection: Connection, name: str) -> KnownSet:
    """The set of this name. Raises UnknownSetError, which lists the sets there are."""
    found = find_set(connection, name)
    if found is None:
        with connection.cursor(row_factory=scalar_row) as cursor:
            names = cursor.execute(QUERIES["set_names"]).fetchall()
        raise UnknownSetError(
            f"no set {name!r} of unwanted images; there are: {', '.join(names) or 'none yet'}"
        )
    return found


def find_table(connection: Connection, encoder: str) -> VectorTable:
    """Where the vectors of an encoder are. Raises UnknownEncoderError."""
    with connection.cursor(row_factory=class_row(VectorTable)) as cursor:
        found = cursor.execute(QUERIES["find_encoder"], {"encoder": encoder}).fetchone()
    if found is None:
        raise UnknownEncoderError(f"the archive has no vectors of {encoder!r}")
    return found


def find_keys(connection: Connection, table: VectorTable, keys: Sequence[str]) -> set[int]:
    """The ids of images by their keys. Raises UnknownImageError, which names those that are unknown or lack a vector:
    to leave them out quietly would hide a mistake in a long list."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(table.format("find_keys"), {"keys": list(keys)}).fetchall()
    unknown = [row["key"] for row in rows if row["id"] is None]
    waiting = [row["key"] for row in rows if row["id"] is not None and not row["has_vector"]]
    faults = [
        f"{len(some):,} {what}: {name_some(some)}"
        for what, some in (("unknown to the archive", unknown), ("without a vector", waiting))
        if some
    ]
    if faults:
        raise UnknownImageError(f"of {len(rows):,} images {'; '.join(faults)}")
    return {row["id"] for row in rows}


def keys_of(connection: Connection, ids: Ids) -> list[str]:
    """The keys of images, in the order of their ids."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES["keys_of"], {"ids": ids.tolist()}).fetchall()


def name_some(keys: Sequence[str]) -> str:
    """The first keys, and how many more there are."""
    more = f" and {len(keys) - NAMED:,} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more


def examples_of(connection: Connection, one: KnownSet) -> list[int]:
    """The ids of the images that a set is learned from."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES["examples"], {"set": one.id}).fetchall()


def load_vectors(connection: Connection, table: VectorTable, ids: Iterable[int]) -> tuple[Ids, Floats]:
    """The ids (n,) of those images that have a vector, rising, and their unit vectors (n, d)."""
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(table.format("vectors"), {"ids": sorted(ids)}).fetchall()
    found = np.array([row[0] for row in rows], np.int64)
    vectors = np.array([row[1].to_numpy() for row in rows], np.float32).reshape(len(rows), table.dimension)
    # Stored in half precision they are a little off.
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return found, vectors


def measured(
    connection: Connection, one: KnownSet, ids: Sequence[int]
) -> Iterator[tuple[list[int], list[int], list[float]]]:
    """Images in blocks: their ids, the nearest example of each and its distance; nothing without examples."""
    examples, vectors = load_vectors(connection, one.table, examples_of(connection, one))
    for first in range(0, len(ids) if len(examples) else 0, BLOCK):
        found, rows = load_vectors(connection, one.table, ids[first : first + BLOCK])
        if len(found):
            numbers, distances = nearest(rows, vectors, one.form)
            yield found.tolist(), examples[numbers].tolist(), distances.tolist()


def draw_sample(connection: Connection, table: VectorTable, count: int, seed: int) -> tuple[Ids, int]:
    """A random sample (count,) of the images that have a vector, and how many of these there are, about.

    Numbers are drawn between the first and the last image: to count or sort an archive of millions takes too long.
    """
    lo, hi = connection.execute(QUERIES["bounds"]).fetchone() or (1, 0)
    random = np.random.default_rng(seed)
    if hi - lo < 4 * count:
        present = _with_vector(connection, table, np.arange(lo, hi + 1))
        return np.sort(random.permutation(present)[:count]), len(present)
    drawn, tried = np.empty(0, np.int64), 0
    # Ten rounds: the sample stays small where next to nothing is embedded yet.
    for _ in range(10):
        numbers = np.unique(random.integers(lo, hi, 2 * count, endpoint=True))
        drawn = np.concatenate([drawn, _with_vector(connection, table, numbers)])
        tried += len(numbers)
        if len(drawn) >= count:
            break
    archive = round(len(drawn) / max(1, tried) * (hi - lo + 1))
    return np.unique(random.permutation(drawn)[:count]), archive


def _with_vector(connection: Connection, table: VectorTable, ids: Ids) -> Ids:
    with connection.cursor(row_factory=scalar_row) as cursor:
        found = cursor.execute(table.format("with_vector"), {"ids": ids.tolist()}).fetchall()
    return np.array(found, np.int64)


def accepted_among(connection: Connection, ids: Ids) -> set[int]:
    """Those of some images that are out of searches already, in whatever set."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return set(cursor.execute(QUERIES["accepted_among"], {"ids": ids.tolist()}).fetchall())
