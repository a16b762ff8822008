"""`similar` beside an HNSW index on the vectors themselves, in Postgres and in memory."""

import time
from contextlib import ExitStack

import faiss
import numpy as np
from psycopg import sql

from bench.search import (
    COLUMNS,
    QUERIES,
    Queries,
    by_hand_side,
    choose_queries,
    neighbours_of,
    row_of,
    similar_side,
)
from bench.search_archive import GRAPH_MEMORY, Loaded, number_of, open_archive, reconnect
from bench.search_data import BLOCK, Mixture, as_stored
from bench.search_measure import Side, server_clock, take_turns
from bench.table import print_table
from lookalike.database import Connection
from lookalike.settings import Settings

DIMENSION = 1280
K = 10
# How wide the two HNSW indexes look.
WIDTHS = (40, 100, 200)


def run(settings: Settings) -> None:
    """One table for all; the side table and the index in memory go with the bench."""
    with open_archive(settings, DIMENSION) as (loaded, connection), ExitStack() as stack:
        queries = choose_queries(connection, loaded)
        truth = neighbours_of(settings, loaded, queries)[0]
        similar, by_hand, *others = (stack.enter_context(reconnect(loaded)) for _ in range(2 + len(WIDTHS)))
        sides = {
            "similar": similar_side(similar, queries, K),
            "SQL by hand": by_hand_side(by_hand, loaded, queries, K),
        }
        make_side_table(connection, loaded)
        stack.callback(connection.execute, "drop table side")
        for width, other in zip(WIDTHS, others, strict=True):
            other.execute(f"set hnsw.ef_search = {width}".encode())
            sides[f"halfvec HNSW, one table, ef {width}"] = halfvec_side(other, queries)
        graph = make_faiss(loaded)
        for width in WIDTHS:
            sides[f"faiss HNSW in memory, ef {width}"] = faiss_side(graph, queries, width)
        measured = take_turns(sides, truth, (1, 10))
        rows = [row_of(name, K, m, measured["SQL by hand"]) for name, m in measured.items()]
    print_table(
        f"Other indexes, {loaded.rows:,} x {DIMENSION:,}, k = {K}, {QUERIES} queries, warm", COLUMNS, rows
    )


def make_side_table(connection: Connection, loaded: Loaded) -> None:
    """The same vectors in a table of one piece, with pgvector's own index on them."""
    connection.execute("drop table if exists side")
    connection.execute(
        sql.SQL("create table side as select image_id, v from {}").format(sql.Identifier(loaded.table))
    )
    connection.execute(f"set maintenance_work_mem = '{GRAPH_MEMORY >> 20}MB'".encode())
    connection.execute(
        "create index on side using hnsw (v halfvec_cosine_ops) with (m = 16, ef_construction = 64)"
    )
    connection.execute("vacuum analyze side")


def halfvec_side(connection: Connection, queries: Queries) -> Side:
    """What `similar` returns, by the index on the vectors."""
    statement = (
        "with m as materialized (select image_id, v <=> %s as cosine from side order by v <=> %s limit 11)"
        " select i.key, i.work, i.title, i.licence, i.url, cosine from m join images i on i.id = m.image_id"
        " where i.id <> %s order by cosine limit 10"
    )
    connection.execute("set enable_seqscan = off")

    def search(query: int) -> list[int]:
        vector = queries.vectors[query]
        values = [vector, vector, queries.ids[query]]
        return [number_of(row[0]) for row in connection.execute(statement, values, prepare=True, binary=True)]

    return Side(search, server_clock(connection))


def make_faiss(loaded: Loaded) -> "faiss.IndexHNSWFlat":
    """An index of the same shape over the same vectors, in single precision."""
    graph = faiss.IndexHNSWFlat(loaded.dimension, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 64
    mixture = Mixture(loaded.dimension)
    for block in range(loaded.rows // BLOCK):
        graph.add(as_stored(mixture.make(BLOCK, block)))
    return graph


def faiss_side(graph: "faiss.IndexHNSWFlat", queries: Queries, width: int) -> Side:
    """The numbers alone, in one thread: no network, no catalogue, no filter, nothing kept on disk."""
    vectors = [vector.to_numpy().astype(np.float32)[None] for vector in queries.vectors]

    def search(query: int) -> list[int]:
        graph.hnsw.efSearch = width
        found = graph.search(vectors[query], K + 1)[1][0]
        return [int(number) for number in found if number != queries.numbers[query]][:K]

    return Side(search, time.process_time)
