"""Measures what registering and storing costs a database, on copies of the archive's tables that are rolled back.

One transaction makes empty copies in a schema of its own, puts it first in the search path, runs the ledger's own
functions on them and is rolled back, whatever happens: the archive's data is never written.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psycopg
from psycopg import sql
from psycopg.rows import scalar_row

from lookalike import archive, ledger
from lookalike.capacity import PARTITIONS
from lookalike.encoders import EncoderSpec
from lookalike.errors import ServiceError
from lookalike.images import Image
from lookalike.ledger import Connection, RetryPolicy
from lookalike.queries import load_queries
from lookalike.vectors import Vectors

QUERIES = load_queries("trial")

# All that registering and finishing write, and what these refer to.
TABLES = ("encoders", "reasons", "analyses", "images", "chunks", "failures", "labels", "deleted_images")
# Enough rows that the first pages of the indexes hardly count.
ROWS = 4_000
BATCH = 2_000
COMMITS = 20


@dataclass(frozen=True, slots=True)
class DatabaseTrial:
    """What one image costs: seconds to register it and to store its vector, each with a share of a commit, and CPU
    seconds of the latter in this process; bytes of its rows in `images` and `labels` with their indexes; bytes of
    write-ahead log."""

    register_seconds: float
    store_seconds: float
    store_cpu: float
    archive_bytes: float
    log_bytes: float


def try_database(
    connection: Connection,
    spec: EncoderSpec,
    images: Sequence[Image],
    vectors: Vectors,
    chunk_size: int,
    on_step: Callable[[float], None] = lambda _: None,
) -> DatabaseTrial:
    """Registers images as these and stores these vectors, 4,000 of them, in copies of the archive's tables.

    It takes a second or a few, in which searches, workers and registrations go on; who deletes images or adds an
    encoder waits. Where the archive lacks the encoder, a dead row is left in `encoders`. `on_step` is told how far it
    is, 0..1. Raises ServiceError when the tables are being changed just now, or the role may not create a schema.
    """
    commit = _time_commits(connection)
    written = _log_bytes(connection)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(QUERIES["limit_wait"])
            _make_copies(connection, spec)
            register = _register(connection, images, chunk_size)
            store, store_cpu = _store(connection, spec.name, vectors, on_step)
            rows = _one(connection, "table_bytes", tables=["images", "labels"])
    except psycopg.errors.LockNotAvailable:
        raise ServiceError("the archive's tables are being changed just now: try again later") from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise ServiceError(
            "a trial needs a role that may create a schema, such as the one that `lookalike migrate` uses:"
            f" {error.diag.message_primary}"
        ) from None
    written = _log_bytes(connection) - written
    return DatabaseTrial(
        register_seconds=register / ROWS + commit / BATCH,
        store_seconds=store / ROWS + commit / chunk_size,
        store_cpu=store_cpu / ROWS,
        archive_bytes=rows / ROWS,
        log_bytes=written / ROWS,
    )


def _make_copies(connection: Connection, spec: EncoderSpec) -> None:
    """Makes empty copies of the tables, which are what the ledger finds from here on."""
    if not archive.is_added(connection, spec.name):
        connection.execute(
            archive.QUERIES["add_encoder"],
            {"name": spec.name, "dimension": spec.dimension, "distance": spec.distance},
        )
    schema = f"lookalike_plan_{connection.info.backend_pid}"
    references = connection.execute(
        QUERIES["foreign_keys"], {"schema": schema, "tables": list(TABLES)}
    ).fetchall()
    with connection.cursor(row_factory=scalar_row) as cursor:
        vectors: str = (
            cursor.execute("select vectors from encoders where name = %s", [spec.name]).fetchone() or ""
        )
    names = {"schema": sql.Identifier(schema)}
    connection.execute(sql.SQL(QUERIES["make_schema"]).format(**names))
    for table in TABLES:
        connection.execute(sql.SQL(QUERIES["copy_table"]).format(**names, table=sql.Identifier(table)))
    names["table"] = sql.Identifier(vectors)
    connection.execute(sql.SQL(QUERIES["copy_vectors"]).format(**names))
    for number in range(PARTITIONS):
        connection.execute(
            sql.SQL(QUERIES["copy_partition"]).format(
                **names,
                partition=sql.Identifier(f"{vectors}_p{number}"),
                modulus=sql.Literal(PARTITIONS),
                remainder=sql.Literal(number),
            )
        )
    connection.execute(sql.SQL(QUERIES["copy_encoder"]).format(**names), {"encoder": spec.name})
    connection.execute(QUERIES["prefer_schema"], {"schema": schema})
    for (statement,) in references:
        connection.execute(str(statement).encode())
    found = connection.execute(QUERIES["schemas_of"], {"tables": [*TABLES, vectors]}).fetchall()
    assert found == [(schema,)], f"the trial would write to {found}"


def _register(connection: Connection, images: Sequence[Image], chunk_size: int) -> float:
    """Seconds to register images as these, each under many names."""
    named = [
        replace(images[number % len(images)], key=f"{images[number % len(images)].key}#{number}")
        for number in range(ROWS)
    ]
    clock = _Clock()
    for start in range(0, ROWS, BATCH):
        with clock:
            ledger.register(connection, named[start : start + BATCH], "backfill", chunk_size)
        _empty(connection, "incoming")
    return clock.seconds


def _store(
    connection: Connection, encoder: str, vectors: Vectors, on_step: Callable[[float], None]
) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process, to lease, start and finish the chunks of all that is registered."""
    clock, done = _Clock(), 0
    while done < ROWS:
        with clock:
            (claim,) = ledger.lease(connection, encoder, "backfill", 10**6, 600, batch=1)
            chunk = ledger.start(connection, claim, "lookalike plan", 600)
        assert chunk is not None
        ids = [image.id for image in chunk.images]
        given = vectors.take((np.arange(len(ids)) + done) % len(vectors), np.array(ids, np.int64))
        with clock:
            ledger.finish(connection, chunk, given, [], RetryPolicy(1, 1))
        _empty(connection, f"staging_{encoder}")
        done += len(ids)
        on_step(done / ROWS)
    return clock.seconds, clock.cpu


class _Clock:
    """Adds up what its blocks take: seconds, and CPU seconds of this thread."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._since, self._used = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._since
        self.cpu += time.thread_time() - self._used


def _empty(connection: Connection, temporary: str) -> None:
    """Empties a temporary table, as the commit does that the trial leaves out."""
    connection.execute(sql.SQL(QUERIES["empty"]).format(table=sql.Identifier("pg_temp", temporary)))


def _time_commits(connection: Connection) -> float:
    """Seconds of a commit, the median of some that change nothing but the log."""
    seconds = []
    for _ in range(COMMITS):
        since = time.perf_counter()
        connection.execute(QUERIES["commit_alone"])
        seconds.append(time.perf_counter() - since)
    return sorted(seconds)[COMMITS // 2]


def _log_bytes(connection: Connection) -> int:
    """Bytes of write-ahead log by this connection so far."""
    connection.execute(QUERIES["flush_statistics"])
    return _one(connection, "log_bytes")


def _one(connection: Connection, query: str, **parameters: object) -> int:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return int(cursor.execute(QUERIES[query], parameters).fetchone() or 0)
