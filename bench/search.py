"""`similar` beside the same search written by hand, beside an exact scan, and beside other indexes."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import LiteralString

import numpy as np
from numpy.typing import NDArray
from pgvector import Bit, HalfVector
from psycopg import sql

from bench.search_archive import ROWS, Loaded, key_of, number_of, open_archive, reconnect
from bench.search_data import Mixture, true_neighbours
from bench.search_measure import Measured, Side, server_clock, take_turns
from bench.table import print_table
from lookalike.database import Connection
from lookalike.settings import Settings

QUERIES = 200
EXACT_QUERIES = 12
COLUMNS = ("", "recall@1", "@10", "@100", "under half", "p50 ms", "p95 ms", "CPU ms", "to SQL by hand")

# The form of facts and documentation of pgvector: candidates by code, then exact; what `similar` returns, returned.
BY_HAND: LiteralString = """
    with c as materialized (
        select image_id, v from {table} where image_id <> %s order by code <~> %s::bit({bits}) limit {candidates}
    ), m as (select image_id, v <=> %s as cosine from c order by 2 limit {k})
    select i.key, i.work, i.title, i.licence, i.url, m.cosine from m join images i on i.id = m.image_id order by cosine
"""
# "+ 0" keeps the planner from every index.
EXACT: LiteralString = """
    with m as (select image_id, v <=> %s as cosine from {table} where image_id <> %s order by (v <=> %s) + 0 limit {k})
    select i.key, i.work, i.title, i.licence, i.url, m.cosine from m join images i on i.id = m.image_id order by cosine
"""


@dataclass(frozen=True)
class Queries:
    """Queries by images of an archive: numbers int64 (n,), and what SQL needs of each."""

    numbers: NDArray[np.int64]
    keys: list[str]
    ids: list[int]
    vectors: list[HalfVector]
    codes: list[Bit]


def choose_queries(connection: Connection, loaded: Loaded, count: int = QUERIES) -> Queries:
    """Random images of the archive, the same at every run."""
    numbers = np.sort(np.random.default_rng(5).choice(loaded.rows, count, replace=False))
    keys = [key_of(int(number)) for number in numbers]
    statement = sql.SQL(
        "select i.id, t.v, t.code from images i join {} t on t.image_id = i.id where i.key = any(%s) order by i.key"
    ).format(sql.Identifier(loaded.table))
    found = connection.execute(statement, [keys]).fetchall()
    assert len(found) == count
    return Queries(
        numbers, keys, [row[0] for row in found], [row[1] for row in found], [row[2] for row in found]
    )


def neighbours_of(
    settings: Settings, loaded: Loaded, queries: Queries
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers and cosine similarities of the true 100 nearest to each query; kept in the home: they take minutes."""
    kept = settings.home / f"truth-{loaded.dimension}-{loaded.rows}-{len(queries.keys)}.npz"
    if not kept.exists():
        asked = np.stack([vector.to_numpy() for vector in queries.vectors]).astype(np.float32)
        mixture = Mixture(loaded.dimension)
        numbers, likeness = true_neighbours(mixture, loaded.rows, queries.numbers, asked, 100)
        np.savez(kept, numbers=numbers, likeness=likeness)
    with np.load(kept) as arrays:
        return arrays["numbers"], arrays["likeness"]


def similar_side(connection: Connection, queries: Queries, k: int) -> Side:
    """`similar` through psycopg, prepared, as its users call it."""

    def search(query: int) -> list[int]:
        rows = connection.execute(
            "select * from similar(%s, %s)", [queries.keys[query], k], prepare=True, binary=True
        )
        return [number_of(row[1]) for row in rows]

    return Side(search, server_clock(connection))


def by_hand_side(connection: Connection, loaded: Loaded, queries: Queries, k: int) -> Side:
    """The same candidates by a statement with the table's name and its numbers in it, which Postgres plans once."""
    row = connection.execute(
        "select candidates_for(%s, candidates) from encoders where name = %s", [k, loaded.encoder]
    ).fetchone()
    assert row is not None
    candidates = int(row[0])
    # As in the function that similar calls.
    connection.execute(f"set hnsw.ef_search = {min(1000, max(40, candidates // 4))}".encode())
    connection.execute("set hnsw.iterative_scan = relaxed_order")
    connection.execute("set enable_seqscan = off")
    connection.execute("set jit = off")
    statement = sql.SQL(BY_HAND).format(
        table=sql.Identifier(loaded.table),
        bits=sql.Literal(loaded.dimension),
        candidates=sql.Literal(candidates),
        k=sql.Literal(k),
    )

    def search(query: int) -> list[int]:
        values = [queries.ids[query], queries.codes[query], queries.vectors[query]]
        return [number_of(row[0]) for row in connection.execute(statement, values, prepare=True, binary=True)]

    return Side(search, server_clock(connection))


def exact_side(connection: Connection, table: str, queries: Queries, k: int) -> Side:
    """Compares the query with every vector."""
    connection.execute("set jit = off")
    statement = sql.SQL(EXACT).format(table=sql.Identifier(table), k=sql.Literal(k))

    def search(query: int) -> list[int]:
        vector = queries.vectors[query]
        values = [vector, queries.ids[query], vector]
        return [number_of(row[0]) for row in connection.execute(statement, values, prepare=True, binary=True)]

    return Side(search, server_clock(connection))


def row_of(name: str, k: int, measured: Measured, by_hand: Measured) -> tuple[str, ...]:
    """A row of the table; the ratios are of time and of CPU time."""
    shares = [f"{measured.mean_recall(n):.4f}" if n <= k else "" for n in (1, 10, 100)]
    poor = f"{measured.poor(10):.1%}" if k >= 10 else ""
    ratio = measured.ratio_to(by_hand) if len(measured.wall) == len(by_hand.wall) else ""
    return (name, *shares, poor, *measured.milliseconds(), ratio)


def run(settings: Settings, dimensions: tuple[int, ...] = (1280, 512), size: int = ROWS) -> None:
    """Two archives, k of 10 and 100; the exact scan for a few of the queries."""
    for dimension in dimensions:
        rows = []
        with open_archive(settings, dimension, size) as (loaded, connection), ExitStack() as stack:
            queries = choose_queries(connection, loaded)
            truth = neighbours_of(settings, loaded, queries)[0]
            for k in (10, 100):
                similar, by_hand, exact = (stack.enter_context(reconnect(loaded)) for _ in range(3))
                ks = [n for n in (1, 10, 100) if n <= k]
                sides = {
                    f"similar, k = {k}": similar_side(similar, queries, k),
                    "SQL by hand": by_hand_side(by_hand, loaded, queries, k),
                }
                measured = take_turns(sides, truth, ks)
                if k == 10:
                    scan = {"exact scan": exact_side(exact, loaded.table, queries, k)}
                    measured |= take_turns(scan, truth[:EXACT_QUERIES], ks)
                rows += [row_of(name, k, m, measured["SQL by hand"]) for name, m in measured.items()]
        print_table(f"Search among {size:,} x {dimension:,}, {QUERIES} queries, warm", COLUMNS, rows)


def run_million(settings: Settings) -> None:
    """The same among a million of the default encoder's size; loading and building take half an hour."""
    run(settings, (1280,), 1_000_000)
