"""Searches among the images that a filter leaves: what they find and take, beside an exact comparison."""

from contextlib import ExitStack
from typing import LiteralString

import numpy as np
from psycopg import sql

from bench.search import Queries, choose_queries
from bench.search_archive import LICENCES, ROWS, Loaded, licence_of, number_of, open_archive, reconnect
from bench.search_data import Mixture, true_neighbours
from bench.search_measure import Side, server_clock, take_turns
from bench.table import print_table
from lookalike.database import Connection
from lookalike.settings import Settings

QUERIES = 30
K = 10

# The exact form of pgvector's documentation, with every index at hand.
EXACT: LiteralString = """
    with m as (
        select image_id, v <=> %s as cosine from {table} t join images i on i.id = t.image_id
        where i.licence = %s and image_id <> %s order by (v <=> %s) + 0 limit {k}
    ) select i.key, i.work, i.title, i.licence, i.url, cosine from m join images i on i.id = m.image_id order by cosine
"""


def run(settings: Settings, dimensions: tuple[int, ...] = (1280, 512)) -> None:
    """For each share of images that pass: by a column of the catalogue, by ids from any query, and exactly."""
    for dimension in dimensions:
        rows = []
        with open_archive(settings, dimension) as (loaded, connection), ExitStack() as stack:
            queries = choose_queries(connection, loaded, QUERIES)
            asked = np.stack([vector.to_numpy() for vector in queries.vectors]).astype(np.float32)
            licences = np.array([licence_of(number) for number in range(ROWS)])
            by_column, by_ids, exact = (stack.enter_context(reconnect(loaded)) for _ in range(3))
            for licence in reversed(LICENCES.values()):
                passing = licences == licence
                truth = true_neighbours(Mixture(dimension), ROWS, queries.numbers, asked, K, passing)[0]
                sides = {
                    "licence": licence_side(by_column, queries, licence),
                    "within": within_side(by_ids, queries, licence),
                    "exact by hand": exact_side(exact, loaded, queries, licence),
                }
                measured = take_turns(sides, truth, (1, 10))
                for name, m in measured.items():
                    shares = (f"{m.mean_recall(1):.4f}", f"{m.mean_recall(10):.4f}", f"{m.poor(10):.1%}")
                    label = f"{passing.mean():.1%} ({passing.sum():,}), {name}"
                    rows.append((label, *shares, *m.milliseconds(), m.ratio_to(measured["exact by hand"])))
        columns = ("", "recall@1", "@10", "under half", "p50 ms", "p95 ms", "CPU ms", "to exact by hand")
        print_table(f"Filtered, {ROWS:,} x {dimension:,}, k = {K}, {QUERIES} queries, warm", columns, rows)


def licence_side(connection: Connection, queries: Queries, licence: str) -> Side:
    """`similar` with a filter by a column."""

    def search(query: int) -> list[int]:
        values = [queries.keys[query], K, licence]
        statement = "select * from similar(%s, %s, licence => %s)"
        return [number_of(row[1]) for row in connection.execute(statement, values, prepare=True, binary=True)]

    return Side(search, server_clock(connection))


def within_side(connection: Connection, queries: Queries, licence: str) -> Side:
    """`similar` within ids that a query of one's own gives."""
    statement = "select * from similar(%s, %s, within => array(select id from images where licence = %s))"

    def search(query: int) -> list[int]:
        values = [queries.keys[query], K, licence]
        return [number_of(row[1]) for row in connection.execute(statement, values, prepare=True, binary=True)]

    return Side(search, server_clock(connection))


def exact_side(connection: Connection, loaded: Loaded, queries: Queries, licence: str) -> Side:
    """Compares the query with the vectors of all images that pass."""
    connection.execute("set jit = off")
    statement = sql.SQL(EXACT).format(table=sql.Identifier(loaded.table), k=sql.Literal(K))

    def search(query: int) -> list[int]:
        vector = queries.vectors[query]
        values = [vector, licence, queries.ids[query], vector]
        return [number_of(row[0]) for row in connection.execute(statement, values, prepare=True, binary=True)]

    return Side(search, server_clock(connection))
