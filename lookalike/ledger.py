"""The ledger: what is to be embedded, under way, done, or failed and why. Postgres is the only truth about it.

    pending -> queued -> running -> done | split | dead

Each function is one step of that diagram and takes a connection in autocommit mode; what must hold together, it does
in one transaction. Functions that settle a chunk are fenced by its lease: whoever comes late raises LostLeaseError and
changes nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from lookalike.chunks import (
    LANES,
    Chunk,
    ChunkImage,
    Failure,
    Lane,
    Lease,
    Postponement,
    RetryPolicy,
    divide,
    may_repeat,
    pause_before,
)
from lookalike.errors import LostLeaseError
from lookalike.images import Image
from lookalike.queries import load_queries
from lookalike.reasons import Reason
from lookalike.vectors import Vectors, store_vectors

__all__ = [
    "LANES", "Chunk", "ChunkImage", "Connection", "Failure", "Lane", "Lease", "Postponement", "Reason", "Registered",
    "RetryPolicy", "finish", "finish_analysis", "give_back", "hold_deletions", "insert_chunks", "lease", "may_repeat",
    "register", "renew", "start",
]  # fmt: skip

Connection = psycopg.Connection[tuple[object, ...]]
QUERIES = load_queries("ledger")
ONCE = RetryPolicy(1, 1)
# The columns of the table `incoming`, in its order: those of an image, but for its source at the end.
COLUMNS = tuple(column.name for column in fields(Image) if column.name != "source")
row_of = attrgetter(*COLUMNS)


@dataclass(frozen=True, slots=True)
class Registered:
    """How a batch of announcements changed the archive; `gone` were deleted before, and stay so."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0

    def __add__(self, other: "Registered") -> "Registered":
        return Registered(
            self.new + other.new,
            self.changed + other.changed,
            self.unchanged + other.unchanged,
            self.gone + other.gone,
        )


# Registration -------------------------------------------------------------------------------------------------------


def register(
    connection: Connection,
    images: Iterable[Image],
    lane: Lane = "backfill",
    chunk_size: int = 64,
    source: str | None = None,
) -> Registered:
    """Registers a batch of images and the chunks that cover them, in one transaction.

    `source` is what announced them, where they do not say it themselves.

    Idempotent: an image announced again with nothing new is counted as unchanged and not written. Within a batch the
    last announcement of a key wins, across batches the one that was seen last (`as_of`). Images that were deleted
    later than they were seen stay so. Every encoder of the archive gets its own chunks. An image that failed is tried
    again when its address has changed.
    """
    batch = {image.key: image for image in images}
    if not batch:
        return Registered()
    connection.execute(QUERIES["make_incoming"])
    with connection.transaction():
        with connection.cursor().copy(QUERIES["copy_incoming"]) as copy:
            copy.set_types(["bool" if name == "outside" else "text" for name in (*COLUMNS, "source")])
            for image in batch.values():
                copy.write_row((*row_of(image), image.source or source))
        hold_deletions(connection)
        (gone,) = connection.execute(QUERIES["forget_deletions"]).fetchone() or (0,)
        rows = connection.execute(QUERIES["merge_images"], {"event": lane == "events"}).fetchall()
        embed = {int(str(row[0])) for row in rows if row[2]}
        moved = [row[0] for row in rows if row[3] and not row[1]]
        # Locked, so that none is added or taken out until this is committed; see archive.add_encoder and removal.
        for (encoder,) in connection.execute(QUERIES["lock_encoders"]).fetchall():
            ids = embed | _reopen_failures(connection, str(encoder), moved)
            insert_chunks(connection, str(encoder), lane, sorted(ids), chunk_size)
    new = sum(1 for row in rows if row[1])
    changed = len(rows) - new
    return Registered(new, changed, len(batch) - len(rows) - int(str(gone)), int(str(gone)))


def _reopen_failures(connection: Connection, encoder: str, moved: Sequence[object]) -> set[int]:
    if not moved:
        return set()
    rows = connection.execute(QUERIES["reopen_failures"], {"encoder": encoder, "ids": moved})
    return {int(str(image)) for (image,) in rows}


def hold_deletions(connection: Connection) -> None:
    """Until the caller's transaction ends no image is deleted; see `deletion.remove`."""
    connection.execute(QUERIES["no_deletions"])


def insert_chunks(
    connection: Connection, encoder: str, lane: Lane, ids: Sequence[int], chunk_size: int
) -> None:
    """Covers sorted ids with chunks: a range where it names nothing else, a list where it would."""
    if not ids:
        return
    pieces = [ids[start : start + chunk_size] for start in range(0, len(ids), chunk_size)]
    ranged = [piece[-1] - piece[0] + 1 == len(piece) for piece in pieces]
    connection.execute(
        QUERIES["insert_chunks"],
        {
            "encoder": encoder,
            "lane": lane,
            "lo": [piece[0] if whole else None for piece, whole in zip(pieces, ranged, strict=True)],
            "hi": [piece[-1] if whole else None for piece, whole in zip(pieces, ranged, strict=True)],
            "ids": [
                None if whole else ",".join(map(str, piece))
                for piece, whole in zip(pieces, ranged, strict=True)
            ],
        },
    )


# Lease, start, renew, finish ------------------------------------------------------------------------------------------


def lease(
    connection: Connection, encoder: str, lane: Lane, window: int, seconds: float, batch: int = 32
) -> list[Lease]:
    """Claims up to `batch` pending chunks of a lane within its window. They are committed when this returns."""
    with connection.cursor(row_factory=class_row(Lease)) as cursor:
        cursor.execute(
            QUERIES["lease"],
            {"encoder": encoder, "lane": lane, "window": window, "seconds": seconds, "batch": batch},
        )
        return cursor.fetchall()


def start(connection: Connection, claim: Lease, worker: str, seconds: float) -> Chunk | None:
    """Starts a leased chunk and reads its images. None when the message is stale."""
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            QUERIES["start"],
            {"chunk": claim.chunk, "lease": claim.lease, "worker": worker, "seconds": seconds},
        ).fetchone()
        if row is None:
            return None
        query = "select_images_in_range" if row["ids"] is None else "select_images_in_list"
        if row["analysis"] is not None:
            query = "select_embedded_in_range" if row["ids"] is None else "select_embedded_in_list"
        statement = sql.SQL(QUERIES[query]).format(vectors=_vectors_table(connection, row["encoder"]))
        with connection.cursor(row_factory=class_row(ChunkImage)) as images:
            images.execute(statement, {"lo": row["lo"], "hi": row["hi"], "ids": row["ids"]})
            found = images.fetchall()
            return Chunk(
                claim, row["encoder"], row["lane"], row["attempts"], found, row["analysis"], row["waited"]
            )


def renew(connection: Connection, claims: Sequence[Lease], seconds: float) -> set[int]:
    """Prolongs these leases and returns the chunks whose lease is still ours."""
    rows = connection.execute(
        QUERIES["renew"],
        {
            "chunks": [claim.chunk for claim in claims],
            "leases": [claim.lease for claim in claims],
            "seconds": seconds,
        },
    )
    return {int(str(row[0])) for row in rows}


def finish(
    connection: Connection,
    chunk: Chunk,
    vectors: Vectors,
    failures: Sequence[Failure],
    policy: RetryPolicy,
    postponed: Sequence[Postponement] = (),
) -> None:
    """Settles a chunk: fence, vectors, failures, new chunks for what is to be tried again or later, in one transaction.

    Raises LostLeaseError, and stores nothing, when the lease is no longer ours.
    """
    attempts = chunk.attempts + 1
    postponed, given_up = divide(chunk, postponed, policy)
    again = [f for f in failures if may_repeat(chunk, f, policy)]
    final = [f for f in failures if not may_repeat(chunk, f, policy)] + given_up
    with connection.transaction():
        _pass_fence(connection, chunk, postponed)
        hold_deletions(connection)
        table = _vectors_table(connection, chunk.encoder)
        store_vectors(connection, chunk.encoder, table, vectors)
        if len(vectors):
            done = {"encoder": chunk.encoder, "ids": vectors.image_ids.tolist()}
            connection.execute(QUERIES["delete_failures"], {**done, "revisions": vectors.revisions.tolist()})
            connection.execute(QUERIES["begin_follow_up"], done)
            connection.execute(QUERIES["insert_follow_up"], done)
        if final:
            _insert_failures(connection, chunk.encoder, table, final, attempts)
        if again:
            _insert_retry(connection, chunk, again, policy)
        _insert_postponed(connection, chunk, postponed)


def finish_analysis(
    connection: Connection,
    chunk: Chunk,
    store: Callable[[Connection, Chunk], None],
    missed: Sequence[Failure] = (),
    policy: RetryPolicy = ONCE,
    postponed: Sequence[Postponement] = (),
) -> None:
    """Settles a chunk of an analysis: fence and whatever `store` writes, in one transaction. Raises LostLeaseError.

    `missed` are images that could not be looked at. Transient failures are tried again; the others are counted.
    """
    postponed, outwaited = divide(chunk, postponed, policy)
    again = [f for f in missed if may_repeat(chunk, f, policy)]
    with connection.transaction():
        _pass_fence(connection, chunk, postponed)
        hold_deletions(connection)
        store(connection, chunk)
        if again:
            _insert_retry(connection, chunk, again, policy)
        _insert_postponed(connection, chunk, postponed)
        given_up = len(missed) - len(again) + len(outwaited)
        if given_up:
            connection.execute(QUERIES["count_missed"], {"chunk": chunk.lease.chunk, "images": given_up})


def _pass_fence(connection: Connection, chunk: Chunk, postponed: Sequence[Postponement]) -> None:
    claim = {
        "chunk": chunk.lease.chunk,
        "lease": chunk.lease.lease,
        "postponed": sum(len(one.images) for one in postponed),
    }
    if connection.execute(QUERIES["finish"], claim).rowcount == 0:
        raise LostLeaseError


def _insert_failures(
    connection: Connection,
    encoder: str,
    table: sql.Identifier,
    failures: Sequence[Failure],
    attempts: int,
) -> None:
    connection.execute(
        sql.SQL(QUERIES["insert_failures"]).format(vectors=table),
        {
            "encoder": encoder,
            "attempts": attempts,
            "ids": [f.image.id for f in failures],
            "revisions": [f.image.revision for f in failures],
            "reasons": [str(f.reason) for f in failures],
            # Postgres text takes any character but NUL, and a server's words may hold anything.
            "details": [f.detail.replace("\0", "")[:1000] for f in failures],
        },
    )


def _insert_retry(
    connection: Connection, chunk: Chunk, failures: Sequence[Failure], policy: RetryPolicy
) -> None:
    """One new chunk for all."""
    connection.execute(
        QUERIES["insert_retry"],
        {
            "encoder": chunk.encoder,
            "lane": chunk.lane,
            "attempts": chunk.attempts + 1,
            "ids": [f.image.id for f in failures],
            "seconds": pause_before(chunk, failures, policy),
            "parent": chunk.lease.chunk,
            "analysis": chunk.analysis,
        },
    )


def _insert_postponed(connection: Connection, chunk: Chunk, postponed: Sequence[Postponement]) -> None:
    """A new chunk for each group of images, with the attempts that were spent before."""
    if postponed:
        connection.execute(
            QUERIES["insert_postponed"],
            {
                "chunk": chunk.lease.chunk,
                "ids": [",".join(str(image.id) for image in one.images) for one in postponed],
                "seconds": [one.seconds for one in postponed],
                "paused": [one.paused for one in postponed],
            },
        )


def give_back(connection: Connection, claim: Lease) -> None:
    """Returns an unfinished chunk of a worker that stops. No crash is counted; a lost lease does not matter."""
    connection.execute(QUERIES["give_back"], {"chunk": claim.chunk, "lease": claim.lease})


def _vectors_table(connection: Connection, encoder: str) -> sql.Identifier:
    row = connection.execute("select vectors from encoders where name = %s", [encoder]).fetchone()
    assert row is not None, f"chunk of an unknown encoder {encoder}"
    return sql.Identifier(str(row[0]))
