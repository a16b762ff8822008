"""The index on the codes of an encoder: built without blocking writes, and its recall known.

Without an index searches are right but slow; with one they are quick and find nearly all. How nearly is measured.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row, scalar_row

from lookalike.errors import ServiceError, UnknownEncoderError
from lookalike.queries import load_queries
from lookalike.search import similar

Connection = psycopg.Connection[tuple[Any, ...]]
QUERIES = load_queries("index")

# Measured with pgvector 0.8.5, codes of 512 and 1,280 bits: the graph while it is built, the index on disk, and the
# time of one core, each for one row.
GRAPH_BYTES = 715.0
GRAPH_BYTES_PER_BIT = 0.125
INDEX_BYTES = 305.0
INDEX_BYTES_PER_BIT = 0.125
BUILD_SECONDS = 0.0004
# A graph that does not fit is built on disk, many times slower: leave some room.
HEADROOM = 1.25


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of the table of vectors; `valid` is None without an index, False for one whose build broke off."""

    partition: str
    rows: int
    index: str
    valid: bool | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a build will take: memory for one partition's graph, disk for all, seconds on one core."""

    rows: int
    memory_bytes: int
    disk_bytes: int
    core_seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build is: partitions finished of all, and the share 0..1 of the one under way."""

    finished: int
    partitions: int
    share: float
    phase: str


@dataclass(frozen=True, slots=True)
class Check:
    """What searches find of what an exact comparison finds, mean over the queries; times in milliseconds."""

    vectors: int
    indexed: bool
    candidates: float
    queries: int
    recall_1: float
    recall_10: float
    recall_100: float
    poor: float
    p50_ms: float
    p95_ms: float
    checked_at: datetime


def list_partitions(connection: Connection, encoder: str) -> list[Partition]:
    """The partitions of an encoder's vectors. Raises UnknownEncoderError."""
    with connection.cursor(row_factory=class_row(Partition)) as cursor:
        found = cursor.execute(QUERIES["partitions"], {"encoder": encoder}).fetchall()
    if not found:
        raise UnknownEncoderError(f"the archive has no vectors of {encoder!r}")
    return found


def estimate(connection: Connection, encoder: str) -> Estimate:
    """What building the index takes, from the present number of vectors."""
    _analyze(connection, encoder)
    partitions = list_partitions(connection, encoder)
    rows = sum(partition.rows for partition in partitions)
    bits = _dimension(connection, encoder)
    return estimate_rows(rows, max(partition.rows for partition in partitions), bits)


def estimate_rows(rows: int, largest: int, bits: int) -> Estimate:
    """What building an index over so many codes takes; `largest` of them are in one partition."""
    return Estimate(
        rows,
        int(largest * (GRAPH_BYTES + GRAPH_BYTES_PER_BIT * bits) * HEADROOM),
        int(rows * (INDEX_BYTES + INDEX_BYTES_PER_BIT * bits)),
        rows * BUILD_SECONDS,
    )


def memory_limit(connection: Connection, on_this_machine: bool) -> int:
    """Bytes that a build may take: a quarter of this machine's, or what a server elsewhere was told to use."""
    if on_this_machine:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    with connection.cursor(row_factory=scalar_row) as cursor:
        return int(cursor.execute(QUERIES["memory"]).fetchone() or 0)


def is_searchable(connection: Connection, encoder: str, least_rows: int) -> bool:
    """Whether searches of the encoder are quick: by its index, or because it has no more than `least_rows` vectors."""
    partitions = list_partitions(connection, encoder)
    return all(one.valid for one in partitions) or sum(one.rows for one in partitions) <= least_rows


def is_due(connection: Connection, encoder: str, least_rows: int) -> bool:
    """Whether a backfill has ended and left more than `least_rows` vectors without an index.

    One that an operator has dropped is due again when a backfill has made progress since.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(QUERIES["backfill_ended"], {"encoder": encoder}).fetchone():
            return False
    partitions = list_partitions(connection, encoder)
    # By the statistics that autovacuum keeps: this is asked again and again.
    rows = sum(partition.rows for partition in partitions)
    return rows > least_rows and not all(partition.valid for partition in partitions)


def build(
    connect: Callable[[], Connection],
    encoder: str,
    memory_bytes: int,
    parallel: int,
    on_progress: Callable[[Progress], None],
    stop: threading.Event | None = None,
    rebuild: bool = False,
) -> int:
    """Builds what is missing, partition by partition, while writes and searches go on; returns how many it built.

    With `rebuild` also what is there, as after many deletions: the old index of a partition serves until the new one is
    valid.

    `memory_bytes` is for the graph of one partition, `parallel` the helping processes of the server. Stopped at any
    moment it leaves no broken index behind, and the next call goes on with the partitions that are missing. Raises
    ServiceError when somebody else is building, or when a graph outgrows the memory, which would take hours. `stop`
    interrupts it.
    """
    built = 0
    with connect() as connection, connect() as watcher:
        partitions = list_partitions(connection, encoder)
        claim(connection, encoder)
        become_owner(connection, encoder)
        for setting, value in (
            ("maintenance_work_mem", f"{max(64, memory_bytes >> 20)}MB"),
            ("max_parallel_maintenance_workers", str(parallel)),
        ):
            connection.execute("select set_config(%s, %s, false)", [setting, value])
        for number, partition in enumerate(partitions):
            if rebuild or not partition.valid:
                with _watching(connection, watcher, number, len(partitions), on_progress, stop) as outgrown:
                    _build_partition(connection, partition, outgrown)
                built += 1
        on_progress(Progress(len(partitions), len(partitions), 0, "done"))
    return built


def claim(connection: Connection, encoder: str) -> None:
    """Takes the lock that a build holds as long as its connection lives."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(QUERIES["claim"], {"encoder": encoder}).fetchone():
            raise ServiceError(f"another process is building the index of {encoder}")


def become_owner(connection: Connection, encoder: str) -> None:
    """Takes the role that owns the table, which alone may have indexes, unless we are it. Raises ServiceError."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(QUERIES["owner"], {"encoder": encoder}).fetchone()
    assert row is not None
    if row["is_ours"]:
        return
    if not row["may_be"]:
        login = connection.info.user
        raise ServiceError(
            f"{login} may not change tables of vectors: use the login of an owner, or have"
            f' `grant {row["owner"]} to "{login}" with inherit false, set true;` run'
        )
    connection.execute(sql.SQL(QUERIES["become"]).format(owner=sql.Identifier(row["owner"])))


def _build_partition(connection: Connection, partition: Partition, outgrown: threading.Event) -> None:
    old = sql.Identifier(partition.index)
    new = sql.Identifier(f"{partition.index}_new") if partition.valid else old
    drop_new = sql.SQL(QUERIES["drop_index"]).format(index=new)
    if partition.valid is None and _adopt(connection, partition):
        return
    # What a build left that was killed.
    connection.execute(drop_new)
    try:
        connection.execute(
            sql.SQL(QUERIES["build_index"]).format(index=new, partition=sql.Identifier(partition.partition))
        )
    except BaseException as error:
        # Postgres keeps an index whose build broke off: it costs every insert, and no search uses it.
        if not connection.broken:
            connection.execute(drop_new)
        if outgrown.is_set():
            raise ServiceError(
                f"the graph of {partition.rows:,} vectors outgrew the memory for it: give more with --memory"
            ) from error
        raise
    if partition.valid:
        connection.execute(sql.SQL(QUERIES["drop_index"]).format(index=old))
        connection.execute(sql.SQL(QUERIES["rename_index"]).format(index=new, name=old))


def _adopt(connection: Connection, partition: Partition) -> bool:
    """Finishes a rebuild that was killed after it had taken the old index away."""
    new = f"{partition.index}_new"
    with connection.cursor(row_factory=scalar_row) as cursor:
        valid = cursor.execute(QUERIES["is_valid"], {"index": new}).fetchone()
    names = {"index": sql.Identifier(new), "name": sql.Identifier(partition.index)}
    if valid is not None:
        connection.execute(sql.SQL(QUERIES["rename_index" if valid else "drop_index"]).format(**names))
    return bool(valid)


@contextmanager
def _watching(
    connection: Connection,
    watcher: Connection,
    finished: int,
    partitions: int,
    on_progress: Callable[[Progress], None],
    interrupt: threading.Event | None,
) -> Iterator[threading.Event]:
    """Reports the progress of a build every half second, for the time of the block; cancels one that outgrows its
    memory, which sets the event that it yields, or when `interrupt` is set."""
    stop, outgrown = threading.Event(), threading.Event()

    def notice(diagnostic: psycopg.errors.Diagnostic) -> None:
        if "no longer fits" in (diagnostic.message_primary or ""):
            outgrown.set()

    def watch() -> None:
        while not stop.wait(0.5):
            if outgrown.is_set() or (interrupt is not None and interrupt.is_set()):
                connection.cancel_safe()
            with watcher.cursor(row_factory=dict_row) as cursor:
                row = cursor.execute(QUERIES["progress"], {"pid": connection.info.backend_pid}).fetchone()
            if row:
                share = min(1.0, row["tuples_done"] / row["tuples_total"])
                on_progress(Progress(finished, partitions, share, row["phase"]))

    connection.add_notice_handler(notice)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield outgrown
    finally:
        stop.set()
        thread.join()
        connection.remove_notice_handler(notice)


def drop(connection: Connection, encoder: str) -> int:
    """Takes the index away, as before a large backfill; searches go on without. Returns from how many partitions."""
    found = [p for p in list_partitions(connection, encoder) if p.valid is not None]
    become_owner(connection, encoder)
    try:
        for partition in found:
            connection.execute(sql.SQL(QUERIES["drop_index"]).format(index=sql.Identifier(partition.index)))
    finally:
        connection.execute(QUERIES["be_oneself"])
    connection.execute(QUERIES["note_drop"], {"encoder": encoder})
    return len(found)


def check(connection: Connection, encoder: str, queries: int = 100, seed: int = 0) -> Check:
    """Compares searches for random images with the exact answer, and keeps the result. Raises ServiceError when the
    archive has fewer than two vectors."""
    _analyze(connection, encoder)
    partitions = list_partitions(connection, encoder)
    with connection.cursor(row_factory=dict_row) as cursor:
        sample = cursor.execute(
            _format("sample_queries", connection, encoder), {"seed": seed, "queries": queries}
        ).fetchall()
    found = [_compare(connection, encoder, row["image_id"], row["key"]) for row in sample]
    if not any(truth for truth, _, _ in found):
        raise ServiceError(f"too few vectors of {encoder} to check a search")
    recall = {k: [_recall(truth, answer, k) for truth, answer, _ in found] for k in (1, 10, 100)}
    times = sorted(seconds * 1000 for _, _, seconds in found)
    measured: dict[str, Any] = {
        "vectors": sum(partition.rows for partition in partitions),
        "indexed": all(partition.valid for partition in partitions),
        "queries": len(found),
        "recall_1": statistics.fmean(recall[1]),
        "recall_10": statistics.fmean(recall[10]),
        "recall_100": statistics.fmean(recall[100]),
        "poor": statistics.fmean(share < 0.5 for share in recall[10]),
        "p50_ms": times[len(times) // 2],
        "p95_ms": times[int(len(times) * 0.95)],
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(QUERIES["record_check"], {"encoder": encoder, **measured}).fetchone()
    assert row is not None
    return Check(**measured, **row)


def _compare(
    connection: Connection, encoder: str, image: int, key: str
) -> tuple[list[float], list[float], float]:
    """Distances of the true hundred nearest, of those that a search of ten and of a hundred finds, and the seconds
    that the ten took."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        truth: list[float] = cursor.execute(
            _format("exact", connection, encoder), {"encoder": encoder, "image": image, "k": 100}
        ).fetchall()
    since = time.perf_counter()
    ten = similar(connection, key, 10, encoder=encoder)
    seconds = time.perf_counter() - since
    hundred = similar(connection, key, 100, encoder=encoder)
    return truth, [n.distance for n in ten] + [n.distance for n in hundred[10:]], seconds


def _recall(truth: list[float], answer: list[float], k: int) -> float:
    """The share of k answers that are as near as the true k nearest; of equally near images either will do."""
    best = truth[:k]
    return sum(distance <= best[-1] + 1e-6 for distance in answer[:k]) / len(best) if best else 1.0


def last_check(connection: Connection, encoder: str) -> Check | None:
    """The latest check, None before the first."""
    with connection.cursor(row_factory=class_row(Check)) as cursor:
        return cursor.execute(QUERIES["last_check"], {"encoder": encoder}).fetchone()


def tune(connection: Connection, encoder: str, floor: float, queries: int = 100) -> list[Check]:
    """Finds the fewest candidates that reach recall@10 >= `floor`, and sets them. Returns the checks it made.

    When not even the most reach it, the most stay set: the last check says what they reach.
    """
    checks = []
    for candidates in (5, 10, 20, 40, 80, 160, 320):
        connection.execute(QUERIES["set_candidates"], {"encoder": encoder, "candidates": candidates})
        checks.append(check(connection, encoder, queries))
        if checks[-1].recall_10 >= floor:
            break
    return checks


def as_json(found: Check) -> dict[str, Any]:
    """The check as programs read it: recall by k."""
    plain = asdict(found)
    return {"recall": {str(k): plain.pop(f"recall_{k}") for k in (1, 10, 100)}, **plain}


def _analyze(connection: Connection, encoder: str) -> None:
    connection.execute(_format("analyze", connection, encoder))


def _format(query: str, connection: Connection, encoder: str) -> sql.Composed:
    with connection.cursor(row_factory=scalar_row) as cursor:
        table = cursor.execute("select vectors from encoders where name = %s", [encoder]).fetchone()
    if table is None:
        raise UnknownEncoderError(f"the archive has no vectors of {encoder!r}")
    return sql.SQL(QUERIES[query]).format(vectors=sql.Identifier(table))


def _dimension(connection: Connection, encoder: str) -> int:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return int(
            cursor.execute("select dimension from encoders where name = %s", [encoder]).fetchone() or 0
        )
