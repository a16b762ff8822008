"""How many partitions should the vectors of an encoder have? The same in 1, 8, 32 and 64: search, build, recall."""

import os
import statistics
import time
from dataclasses import dataclass, replace

from psycopg import sql

from bench.search_archive import GRAPH_MEMORY, Loaded, open_archive, reconnect, synthetic_encoder
from bench.table import median_and_range, print_table
from lookalike import archive, index
from lookalike.database import Connection
from lookalike.settings import Settings

DIMENSION = 1280
ROWS = 100_000
COUNTS = (1, 8, 32, 64)
ROUNDS = 5
QUERIES = 60


@dataclass(slots=True)
class Measured:
    """What was measured of a number of partitions; times of searches in milliseconds, one for each round."""

    count: int
    build: float
    p50: list[float]
    recall: list[float]


def run(settings: Settings) -> None:
    """Prints the table."""
    with open_archive(settings, DIMENSION, ROWS) as (loaded, connection):
        measured = [Measured(count, _make(loaded, connection, count), [], []) for count in COUNTS]
        for _ in range(ROUNDS):
            for one in measured:
                found = index.check(connection, _name(one.count), QUERIES)
                one.p50.append(found.p50_ms)
                one.recall.append(found.recall_10)
    base = statistics.median(measured[COUNTS.index(8)].p50)
    print_table(
        f"{ROWS:,} vectors of {DIMENSION:,}, k = 10, 200 candidates",
        ("partitions", "build s", "search ms, median (range)", "to 8", "recall@10"),
        [
            (
                str(one.count), f"{one.build:.0f}", median_and_range(one.p50, 1),
                f"{statistics.median(one.p50) / base:.2f}", f"{statistics.fmean(one.recall):.3f}",
            )
            for one in measured
        ],
    )  # fmt: skip


def _name(count: int) -> str:
    return f"synthetic-{DIMENSION}-in-{count}"


def _make(loaded: Loaded, connection: Connection, count: int) -> float:
    """An encoder with so many partitions and the vectors of the archive; the seconds that its index took."""
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
