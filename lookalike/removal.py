"""Takes an encoder out of the archive for good, with its vectors and all that was found with them.

What is an encoder's own is dropped as a whole: vectors by partition, members of clusterings. Its rows in tables that it
shares with others go in pieces, each a transaction of its own. Nobody waits for it longer than `WAIT`: a lock that
cannot be had by then is tried again later. It must never touch what people have decided about images.

Marked as leaving first, an encoder is out of every search, registration and dispatch; whatever interrupts the rest, the
next call goes on with what is left. The last transaction takes the encoder itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.errors import CheckViolation, DeadlockDetected, ForeignKeyViolation, LockNotAvailable
from psycopg.rows import class_row, scalar_row
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from lookalike import index
from lookalike.errors import ConfigurationError, ServiceError, UnknownEncoderError
from lookalike.estimates import estimate_rows
from lookalike.ledger import hold_deletions
from lookalike.queries import load_queries

Connection = psycopg.Connection[tuple[Any, ...]]
OnProgress = Callable[[str, int], None]
Result = TypeVar("Result")
QUERIES = load_queries("removal")

# Whoever queues behind a lock that we wait for, waits as long as we do.
WAIT = "500ms"
# So long somebody else may hold what we want before we give up.
PATIENCE = 600.0
# Rows in a transaction: some tenths of a second.
PIECE = 20_000
# Up to so many rows are counted, more are estimated.
COUNTED = 100_000

# Tables that encoders share, each with what its rows are walked through by; in this order, for some refer to others.
_SHARED: tuple[tuple[LiteralString, LiteralString], ...] = (
    ("chunks", "id"),
    ("labels", "image_id"),
    ("failures", "image_id"),
    ("duplicate_pairs", "a"),
    ("duplicate_members", "image_id"),
    ("duplicate_groups", "id"),
)
# Those of which an encoder has few rows.
_SMALL: tuple[LiteralString, ...] = (
    "duplicate_thresholds", "cluster_identities", "analyses", "audits", "maps", "index_checks", "workers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """Something that goes: rows and bytes, exact where they are few, else as the statistics know them."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """An encoder that is being taken out, and the bytes of its vectors that are still there."""

    encoder: str
    since: datetime
    vectors_bytes: int


@dataclass(frozen=True, slots=True)
class Removed:
    """What was taken out: rows that were deleted one by one, and sets of unwanted images to be learned anew."""

    rows: int
    sets: list[str]


def measure(connection: Connection, encoder: str, stop_work: bool = False) -> list[Part]:
    """What removing an encoder takes away, the largest first; changes nothing. Raises what `remove` raises."""
    found = _check(connection, encoder, stop_work)
    with connection.cursor(row_factory=class_row(_Size)) as cursor:
        own = {
            "vectors": cursor.execute(QUERIES["vectors"], {"vectors": found.vectors}).fetchone(),
            "clusters": cursor.execute(QUERIES["members"], {"encoder": encoder}).fetchone(),
        }
    parts = [Part(name, size.rows, size.bytes) for name, size in own.items() if size and size.bytes]
    parts += [_measure_shared(connection, encoder, table) for table, _ in _SHARED]
    return sorted((part for part in parts if part.rows or part.bytes), key=lambda part: -part.bytes)


def remove(
    connection: Connection, encoder: str, stop_work: bool = False, on_progress: OnProgress = lambda *_: None
) -> Removed:
    """Removes an encoder; `on_progress` hears of each step: the part, and how many rows of it went.

    Raises UnknownEncoderError; ConfigurationError for the active one, one that workers run, or one with open work
    unless that is to be stopped; ServiceError when somebody else is at it or holds on to something. Then, or after an
    interruption, the next call goes on.
    """
    found = _check(connection, encoder, stop_work)
    _claim(connection, encoder)
    index.become_owner(connection, encoder)
    connection.execute("select set_config('lock_timeout', %s, false)", [WAIT])
    try:
        _mark(connection, encoder)
        rows = _delete_shared(connection, encoder, *_SHARED[0], on_progress)
        _drop_vectors(connection, found.vectors, on_progress)
        _drop_clusterings(connection, encoder, on_progress)
        for table, key in _SHARED[1:]:
            rows += _delete_shared(connection, encoder, table, key, on_progress)
        sets = _patiently(partial(_keep_decisions, connection, encoder))
        for table in _SMALL:
            _patiently(
                partial(connection.execute, _format("delete_small", table=table), {"encoder": encoder})
            )
        _patiently(partial(_end, connection, encoder, found.vectors))
    except ForeignKeyViolation:
        raise ServiceError(
            f"somebody still works with {encoder}: call it again, which takes that away too"
        ) from None
    finally:
        if not connection.broken:
            connection.execute("reset lock_timeout")
            connection.execute("reset role")
    return Removed(rows, sets)


def list_leaving(connection: Connection) -> list[Leaving]:
    """The encoders that are being taken out, or whose removal was interrupted."""
    with connection.cursor(row_factory=class_row(Leaving)) as cursor:
        return cursor.execute(QUERIES["leaving"]).fetchall()


@dataclass(frozen=True, slots=True)
class _Encoder:
    name: str
    vectors: str
    active: bool
    leaving_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Size:
    rows: int
    bytes: int


def _check(connection: Connection, encoder: str, stop_work: bool) -> _Encoder:
    """The encoder, if it may go."""
    with connection.cursor(row_factory=class_row(_Encoder)) as cursor:
        found = cursor.execute(QUERIES["find"], {"encoder": encoder}).fetchone()
    if found is None:
        raise UnknownEncoderError(f"{encoder} is not in this archive")
    if found.active:
        raise _is_active(encoder)
    with connection.cursor(row_factory=scalar_row) as cursor:
        workers = cursor.execute(QUERIES["living_workers"], {"encoder": encoder}).fetchall()
        if workers:
            # They would add it again as soon as they are restarted.
            raise ConfigurationError(f"workers run {encoder}: stop {', '.join(workers)} first")
        chunks = cursor.execute(QUERIES["open_chunks"], {"encoder": encoder}).fetchone()
    if chunks and not stop_work and found.leaving_at is None:
        raise ConfigurationError(f"{encoder} has {chunks:,} open chunks of work: --stop-work gives it up")
    return found


def _is_active(encoder: str) -> ConfigurationError:
    return ConfigurationError(
        f"searches use {encoder}: activate another one first (lookalike encoders activate)"
    )


def _claim(connection: Connection, encoder: str) -> None:
    with connection.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(QUERIES["claim"], {"encoder": encoder}).fetchone():
            raise ServiceError(f"another process is removing {encoder}")
    index.claim(connection, encoder)


def _mark(connection: Connection, encoder: str) -> None:
    try:
        marked = _patiently(partial(connection.execute, QUERIES["mark"], {"encoder": encoder})).rowcount
    except CheckViolation:
        marked = 0
    if not marked:
        raise _is_active(encoder)


def _measure_shared(connection: Connection, encoder: str, table: LiteralString) -> Part:
    asked = {"encoder": encoder, "most": COUNTED}
    with connection.cursor(row_factory=scalar_row) as cursor:
        rows = cursor.execute(_format("count_few", table=table), asked).fetchone() or 0
        if rows == COUNTED:
            rows = max(rows, estimate_rows(connection, _format("all_rows", table=table), asked))
        size = cursor.execute(QUERIES["bytes_of_rows"], {"table": table, "rows": rows}).fetchone() or 0
    return Part(table.replace("_", " "), rows, size)


def _delete_shared(
    connection: Connection, encoder: str, table: LiteralString, key: LiteralString, on_progress: OnProgress
) -> int:
    """Deletes the rows of an encoder in a table, piece by piece; returns how many."""
    end, delete = _format("piece_end", table=table, key=key), _format("delete_piece", table=table, key=key)
    name = table.replace("_", " ")
    deleted, after, more = 0, -1, True
    while more:
        asked: dict[str, Any] = {"encoder": encoder, "after": after, "rows": PIECE}
        row = connection.execute(end, asked).fetchone()
        more = row is not None
        asked["upto"] = row and row[0]
        rows = _patiently(partial(connection.execute, delete, asked)).rowcount
        deleted += rows
        after = row[0] if row else after
        on_progress(name, rows)
    return deleted


def _drop_vectors(connection: Connection, vectors: str, on_progress: OnProgress) -> None:
    with connection.cursor(row_factory=scalar_row) as cursor:
        partitions = cursor.execute(QUERIES["partitions"], {"vectors": vectors}).fetchall()
    for partition in partitions:
        _drop_table(connection, partition)
        on_progress("vectors", 0)


def _drop_clusterings(connection: Connection, encoder: str, on_progress: OnProgress) -> None:
    for analysis, members in connection.execute(QUERIES["clusterings"], {"encoder": encoder}).fetchall():
        _drop_table(connection, members)
        _patiently(partial(connection.execute, QUERIES["drop_clustering"], {"analysis": analysis}))
        on_progress("clusters", 0)


def _drop_table(connection: Connection, table: str) -> None:
    _patiently(partial(connection.execute, _format("drop_table", table=table)))


def _keep_decisions(connection: Connection, encoder: str) -> list[str]:
    """Hands sets of unwanted images over to the active encoder, without what nobody decided; returns their names."""
    with connection.transaction():
        sets = connection.execute(QUERIES["keep_decisions"], {"encoder": encoder}).fetchall()
        for number, _ in sets:
            connection.execute(QUERIES["drop_candidates"], {"set": number})
    return [name for _, name in sets]


def _end(connection: Connection, encoder: str, vectors: str) -> None:
    """Takes the encoder itself, with what whoever had not seen yet that it leaves has added to it."""
    with connection.transaction():
        # Deletions of images look into all tables of vectors.
        hold_deletions(connection)
        connection.execute(QUERIES["lock_last"], {"encoder": encoder})
        for table in ("chunks", "failures", "labels", "workers"):
            connection.execute(_format("delete_small", table=table), {"encoder": encoder})
        connection.execute(_format("drop_table", table=vectors))
        connection.execute(_format("drop_function", function=f"{vectors}_nearest"))
        connection.execute(QUERIES["delete_encoder"], {"encoder": encoder})
        connection.execute(QUERIES["remember"], {"encoder": encoder})


def _patiently(action: Callable[[], Result]) -> Result:
    """Does something whose locks others may hold: again after a pause, without standing in anybody's way meanwhile."""
    attempts = Retrying(
        retry=retry_if_exception_type((LockNotAvailable, DeadlockDetected)),
        wait=wait_random(0.2, 1.0),
        stop=stop_after_delay(PATIENCE),
        reraise=True,
    )
    try:
        return attempts(action)
    except (LockNotAvailable, DeadlockDetected):
        raise ServiceError(
            f"something that has to go was in use for {PATIENCE / 60:.0f} minutes: see pg_stat_activity for"
            " long transactions, and call it again, which goes on"
        ) from None


def _format(query: str, **names: str) -> sql.Composed:
    return sql.SQL(QUERIES[query]).format(**{name: sql.Identifier(value) for name, value in names.items()})
