"""Reads vectors of images and mean vectors of works: some that are asked for, or a random sample of the archive.

A sample costs the same at forty million images as at a hundred thousand: it is drawn by ids, and never scans.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import class_row, dict_row, scalar_row

from lookalike.errors import UnknownEncoderError
from lookalike.queries import load_queries

Connection = psycopg.Connection[tuple[Any, ...]]
Of = Literal["images", "works"]
Item = int | str
QUERIES = load_queries("clusters")

# Read at once; more would hold many vectors twice.
BATCH = 1_000
# Ids drawn at most, as a multiple of the sample: enough while one id in twenty is an image, or the first of a work.
DRAWS = 20


@dataclass(frozen=True, slots=True)
class Table:
    """Where an encoder's vectors are, and how their distances are measured."""

    vectors: str
    dimension: int
    form: Literal["clamped", "halved"]

    def format(self, query: str) -> sql.Composed:
        return sql.SQL(QUERIES[query]).format(vectors=sql.Identifier(self.vectors))


@dataclass(frozen=True, slots=True)
class Items:
    """Images by their ids, or works by their names, with vectors float32 (n, d) of unit length. `images` is how many
    vectors each is the mean of, `latest` when the latest of these was stored."""

    items: list[Item]
    vectors: NDArray[np.float32]
    images: list[int]
    latest: list[datetime]

    def __len__(self) -> int:
        return len(self.items)


def find_table(connection: Connection, encoder: str) -> Table:
    """The table of an encoder. Raises UnknownEncoderError."""
    with connection.cursor(row_factory=class_row(Table)) as cursor:
        found = cursor.execute(QUERIES["table"], {"encoder": encoder}).fetchone()
    if found is None:
        raise UnknownEncoderError(f"the archive has no vectors of {encoder!r}")
    return found


def memory(size: int, dimension: int) -> int:
    """Bytes that a training on `size` vectors takes at most: the vectors, a shuffled copy of them, and what is computed
    of a few thousand at a time."""
    return 2 * 4 * size * dimension + 4 * 20_000 * (dimension + 1_000)


def read(connection: Connection, table: Table, of: Of, items: Sequence[Item]) -> Items:
    """The vectors of these images or works, of those that have any."""
    names: list[Item] = []
    images: list[int] = []
    latest: list[datetime] = []
    vectors = np.empty((len(items), table.dimension), np.float32)
    for start in range(0, len(items), BATCH):
        with connection.cursor(row_factory=dict_row, binary=True) as cursor:
            query = table.format("image_vectors" if of == "images" else "work_vectors")
            for row in cursor.execute(query, {"items": list(items[start : start + BATCH])}):
                vectors[len(names)] = row["v"].to_numpy()
                names.append(row["item"])
                images.append(row.get("images", 1))
                latest.append(row["stored_at" if of == "images" else "latest"])
    vectors = vectors[: len(names)]
    # Half precision leaves lengths of 1 within a thousandth.
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return Items(names, vectors, images, latest)


def draw(connection: Connection, table: Table, of: Of, size: int, seed: int) -> list[Item]:
    """A random sample of at most `size` images that have a vector, or of works, each with the same chance.

    The same seed draws the same ids, so that samples of a growing archive overlap.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        asked = {"count": size + 1}
        query = table.format("first_images" if of == "images" else "first_works")
        everything: list[Item] = cursor.execute(query, asked).fetchall()
        if len(everything) <= size:
            return sorted(everything)
        highest = cursor.execute(QUERIES["highest_image"]).fetchone() or 0
    found: dict[int, Item] = {}
    for ids in _ids(int(highest), size, seed):
        for image, item in _look_up(connection, table, of, ids):
            found[image] = item
            if len(found) == size:
                return list(found.values())
    return list(found.values())


def _ids(highest: int, size: int, seed: int) -> Iterator[list[int]]:
    """Random ids from 1 to the highest, some at a time, up to DRAWS times the size in all.

    They are drawn below a power of two, and those beyond are dropped: then they are the same ids when there are more.
    """
    random = np.random.default_rng(seed)
    for _ in range(DRAWS):
        ids = random.integers(0, 1 << highest.bit_length(), size)
        yield ids[ids <= highest].tolist()


def _look_up(connection: Connection, table: Table, of: Of, ids: list[int]) -> list[tuple[int, Item]]:
    """Those of some ids that are images with a vector, or first images of works, in the order of the ids."""
    query = table.format("drawn_images" if of == "images" else "drawn_works")
    rows = connection.execute(query, {"ids": ids}).fetchall()
    items: dict[int, Item] = {int(row[0]): row[-1] for row in rows}
    return [(image, items[image]) for image in dict.fromkeys(ids) if image in items]
