"""How many partitions should the vectors of an encoder have? The same in 1, 8, 32 and 64: searches, recall."""

import os
import statistics
import time
from dataclasses import dataclass, replace

import numpy as np
from psycopg import sql

from bench.search_archive import GRAPH_MEMORY, Loaded, key_of, open_archive, reconnect, synthetic_encoder
from bench.table import median_and_range, print_table
from lookalike import archive, index, search
from lookalike.database import Connection
from lookalike.settings import Settings

DIMENSION = 1280
ROWS = 100_000
COUNTS = (1, 8, 32, 64)
ROUNDS = 5
QUERIES = 60


@dataclass(slots=True)
class Measured:
    """What was measured of a number of partitions: ms of searches, median of each round, and recall@10."""

    count: int
    p50: list[float]
    recall: float


def run(settings: Settings) -> None:
    """Prints the table."""
    with open_archive(settings, DIMENSION, ROWS) as (loaded, connection):
        for count in COUNTS:
            _make(loaded, connection, count)
        keys = [key_of(int(n)) for n in np.random.default_rng(5).integers(0, ROWS, QUERIES)]
        measured = [
            Measured(count, [], index.check(connection, _name(count), QUERIES).recall_10) for count in COUNTS
        ]
        for _ in range(ROUNDS):
            for one in measured:
                one.p50.append(_search(connection, _name(one.count), keys))
    base = statistics.median(measured[COUNTS.index(8)].p50)
    print_table(
        f"{ROWS:,} vectors of {DIMENSION:,}, k = 10, 200 candidates",
        ("partitions", "search ms, median (range)", "to 8", "recall@10"),
        [
            (
                str(one.count), median_and_range(one.p50, 1), f"{statistics.median(one.p50) / base:.2f}",
                f"{one.recall:.3f}",
            )
            for one in measured
        ],
    )  # fmt: skip


def _name(count: int) -> str:
    return f"synthetic-{DIMENSION}-in-{count}"


def _search(connection: Connection, encoder: str, keys: list[str]) -> float:
    """The median milliseconds of a search."""
    times = []
    for key in keys:
        since = time.perf_counter()
        search.similar(connection, key, 10, encoder=encoder)
        times.append(time.perf_counter() - since)
    return statistics.median(times) * 1000


def _make(loaded: Loaded, connection: Connection, count: int) -> None:
    """An encoder with so many partitions and the vectors of the archive, unless it is there already."""
    if archive.is_added(connection, _name(count)):
        return
    spec = replace(synthetic_encoder(DIMENSION), name=_name(count))
    archive.add_encoder(connection, spec, ROWS)
    table = "vectors_" + spec.name.replace("-", "_")
    copied = {"from": loaded.encoder, "to": spec.name}
    connection.execute("delete from calibrations where encoder = %(to)s", copied)
    connection.execute(
        "insert into calibrations select %(to)s, bit, direction, threshold from calibrations where encoder = %(from)s",
        copied,
    )
    names = {"table": sql.Identifier(table), "rows": sql.Identifier(loaded.table)}
    for number in range(8):
        part = sql.Identifier(f"{table}_p{number}")
        connection.execute(sql.SQL("drop table {part}").format(part=part))
    for number in range(count):
        part = sql.Identifier(f"{table}_p{number}")
        making = (
            "create table {part} partition of {table} for values with (modulus {count}, remainder {number})"
        )
        connection.execute(sql.SQL(making).format(part=part, count=count, number=number, **names))
    connection.execute(sql.SQL("insert into {table} select * from {rows}").format(**names))
    since = time.perf_counter()
    index.build(lambda: reconnect(loaded), spec.name, GRAPH_MEMORY, (os.cpu_count() or 2) - 1, lambda _: None)
    return time.perf_counter() - since
