"""How far the archive is: for each encoder what is done, how fast it goes and what failed; sources and workers.

Counting forty million images exactly takes a minute: it is done at most so often that it takes a twentieth of the time,
while everybody is shown the last count, and the figures that are cheap as of now.
"""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from psycopg.errors import QueryCanceled
from pydantic import Field

from explorer.archive import Archive
from explorer.cursors import read_cursor
from explorer.reading import QUERIES, page, rows
from explorer.records import Page, Picture, Record, as_picture
from lookalike import analyses, awaited, books, index
from lookalike.books import Books
from lookalike.database import Connection
from lookalike.errors import LookalikeError
from lookalike.limits import list_workers
from lookalike.reasons import Reason
from orchestrator.progress import list_sources

log = logging.getLogger(__name__)

# Whoever asks first waits so long for the first count.
PATIENCE = 2.0
SHARE = 20
LEAST_SECONDS = 1.0


class Counted(Record):
    """The books of an encoder: registered = done + failed + open, unless something is wrong. `awaited` are manifests
    that are still to be read.
    """

    registered: int
    done: int
    failed: int
    open: int
    lost: int
    faults: int
    awaited: int
    complete: bool
    counted_at: datetime


class WorkerStatus(Record):
    """A worker as of its last heartbeat; shares of time 0..1 that each stage was busy."""

    name: str
    device: str
    alive: bool
    seen_at: datetime
    images_per_second: float
    fetch_busy: float
    decode_busy: float
    encode_busy: float
    store_busy: float
    batch_fill: float
    limit: str = Field(description="what it waits for")


class AnalysisStatus(Record):
    """A search for near-duplicates or clusters: images that are left, and when it was summed up last."""

    kind: str
    scope: str
    left: int
    settled_at: datetime | None


class ChunkCount(Record):
    """Chunks that are not finished."""

    lane: str
    state: str
    chunks: int


class EncoderStatus(Record):
    """One encoder. `counted` is null until they are counted for the first time."""

    name: str
    active: bool
    counted: Counted | None
    left: int = Field(description="images in unfinished chunks, as of now")
    images_per_second: float = Field(description="over the last minute")
    seconds_left: int | None
    failures: dict[str, int] = Field(description="by reason, the most frequent first")
    chunks: list[ChunkCount]
    workers: list[WorkerStatus] | None = Field(description="null for all but operators")
    analyses: list[AnalysisStatus]
    recall_at_10: float | None = Field(
        description="what searches find of the true ten nearest, when last checked"
    )


class SourceStatus(Record):
    """How far a source has been read, and what it announced."""

    name: str
    new: int
    changed: int
    unchanged: int
    deleted: int
    refused: dict[str, int]
    started_at: datetime
    read_at: datetime
    ended_at: datetime | None
    error: str | None


class Status(Record):
    """The archive as a whole."""

    encoders: list[EncoderStatus]
    sources: list[SourceStatus] | None = Field(description="null for all but operators")
    manifests_awaited: int
    manifests_failed: int


class FailedImage(Picture):
    """An image without a vector, and why."""

    reason: str
    meaning: str
    detail: str
    attempts: int
    failed_at: datetime


@dataclass(frozen=True, slots=True)
class _Count:
    books: Books
    counted_at: datetime
    until: float


class BookKeeper:
    """Counts the books of encoders, each by one at a time, and remembers them for a while."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._counts: dict[str, _Count] = {}
        # When they may be counted again after trouble, such as a count that takes longer than a statement may.
        self._not_before: dict[str, float] = {}
        self._under_way: dict[str, Future[_Count]] = {}
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "books")

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def count(self, encoder: str) -> Counted | None:
        """The books as of a moment ago; None while they are counted for the first time."""
        with self._lock:
            known, now = self._counts.get(encoder), time.monotonic()
            if known is not None and now <= known.until:
                return _counted(known)
            if encoder not in self._under_way and now >= self._not_before.get(encoder, now):
                self._under_way[encoder] = self._worker.submit(self._count, encoder)
            counting = self._under_way.get(encoder)
        if counting is not None:
            try:
                return _counted(counting.result(PATIENCE if known is None else LEAST_SECONDS / 5))
            except (TimeoutError, QueryCanceled, LookalikeError):
                log.debug("%s: the count takes longer, too long, or cannot be had now", encoder)
        return None if known is None else _counted(known)

    def _count(self, encoder: str) -> _Count:
        began = time.monotonic()
        try:
            with self._archive.deciding() as connection:
                counted = books.count_books(connection, encoder)
            took = time.monotonic() - began
            found = _Count(counted, datetime.now(UTC), time.monotonic() + max(LEAST_SECONDS, SHARE * took))
        except QueryCanceled:
            now = time.monotonic()
            with self._lock:
                self._not_before[encoder] = now + max(LEAST_SECONDS, SHARE * (now - began))
            log.warning("%s: to count the books takes longer than %.0f s", encoder, now - began)
            raise
        else:
            with self._lock:
                self._counts[encoder] = found
            return found
        finally:
            with self._lock:
                del self._under_way[encoder]


def _counted(count: _Count) -> Counted:
    return Counted(**asdict(count.books), complete=count.books.complete, counted_at=count.counted_at)


def read_status(archive: Archive, keeper: BookKeeper, details: bool) -> Status:
    """How far the archive is; with `details` also who works and what is read, which names machines, folders and
    buckets. `keeper` counts with a connection of its own, which nobody who waits for it keeps from it."""
    with archive.reading() as connection:
        names = books.encoder_names(connection)
    counts = {name: keeper.count(name) for name in names}
    with archive.reading() as connection:
        manifests = awaited.count_awaited(connection)
        active = next(iter(connection.execute("select active_encoder()").fetchone() or ()), None)
        return Status(
            encoders=[
                _describe(connection, counts.get(name), name, name == active, details)
                for name in books.encoder_names(connection)
            ],
            sources=[SourceStatus(**source) for source in list_sources(connection)] if details else None,
            manifests_awaited=manifests["awaited"],
            manifests_failed=manifests["failed"],
        )


def _describe(
    connection: Connection, counted: Counted | None, name: str, active: bool, details: bool
) -> EncoderStatus:
    left = books.count_left(connection, name)
    speed = books.count_last_minute(connection, name) / 60
    check = index.last_check(connection, name)
    return EncoderStatus(
        name=name,
        active=active,
        counted=counted,
        left=left,
        images_per_second=round(speed, 2),
        seconds_left=round(left / speed) if speed and left else None,
        failures=books.count_reasons(connection, name),
        chunks=[
            ChunkCount(lane=lane, state=state, chunks=count)
            for lane, state, count in books.count_chunks(connection, name)
        ],
        workers=_workers(connection, name) if details else None,
        analyses=[AnalysisStatus(**asdict(one)) for one in analyses.list_standing(connection, name)],
        recall_at_10=check and check.recall_10,
    )


def _workers(connection: Connection, encoder: str) -> list[WorkerStatus]:
    return [
        WorkerStatus(**asdict(one), images_per_second=round(one.images_per_second, 2), limit=one.limit)
        for one in list_workers(connection, encoder)
    ]


def list_failures(
    connection: Connection,
    encoder: str,
    reason: Reason | None = None,
    cursor: str | None = None,
    limit: int = 40,
) -> Page[FailedImage]:
    """Images that have no vector of an encoder, the latest failure first."""
    books.vectors_table(connection, encoder)
    failed_at, after = read_cursor(cursor, ("infinity", 0))
    asked = {"encoder": encoder, "reason": reason and str(reason), "failed_at": failed_at, "after": after}
    found = rows(connection, QUERIES["failed"], {**asked, "limit": limit + 1})
    return page(
        found,
        limit,
        lambda row: FailedImage(**as_picture(row)),
        lambda row: (row["failed_at"].isoformat(), row["image_id"]),
    )
