"""What an archive needs from time to time: an index after a backfill, and analyses summed up when they are done.

It runs beside the dispatcher, which must not wait for it, on a connection of its own. Any number may run.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from lookalike import books, index, kinds, unwanted
from lookalike.errors import LookalikeError, ServiceError
from lookalike.index import Connection, Progress
from lookalike.settings import Settings
from orchestrator.dispatch import LARGE_ARCHIVE

log = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
INDEX_SECONDS = 60.0
# After a build that failed (too little memory, somebody else at it), not at once again.
PAUSE_SECONDS = 600.0
HELPERS = 2


@contextmanager
def keeping_up(settings: Settings, connect: Callable[[], Connection]) -> Iterator[None]:
    """Keeps the archive in order, in a thread, for the time of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=keep_up, args=(settings, connect, stop), name="upkeep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def keep_up(settings: Settings, connect: Callable[[], Connection], stop: threading.Event) -> None:
    """Settles analyses and builds indexes until `stop` is set. Waits out a database that is away."""
    until_index = INDEX_SECONDS
    while not stop.wait(SETTLE_SECONDS):
        until_index -= SETTLE_SECONDS
        try:
            with connect() as connection:
                for analysis in kinds.settle(connection):
                    log.info("the %s of %s are settled", analysis.kind, analysis.encoder)
                if until_index <= 0:
                    until_index = INDEX_SECONDS
                    build_due_indexes(settings, connect, connection, stop)
                    refresh_unwanted(settings, connection)
        except ServiceError as error:
            log.warning("%s", error)
            until_index = PAUSE_SECONDS
        except (LookalikeError, psycopg.Error) as error:
            log.warning("upkeep: %s", " ".join(str(error).split()))
        except Exception:
            # Nobody would notice that this thread has ended.
            log.exception("upkeep")


def build_due_indexes(
    settings: Settings, connect: Callable[[], Connection], connection: Connection, stop: threading.Event
) -> None:
    """Builds the index of each encoder whose backfill has ended, and checks what searches find with it."""
    for encoder in books.encoder_names(connection):
        if not settings.index_rows or not index.is_due(connection, encoder, settings.index_rows):
            continue
        planned = index.estimate(connection, encoder)
        limit = index.memory_limit(connection, settings.database_url is None)
        log.info(
            "%s: the backfill has ended, building the index of %d vectors: about %d s of one core",
            *(encoder, planned.rows, planned.core_seconds),
        )
        report = _Reporter(encoder)
        built = index.build(connect, encoder, min(planned.memory_bytes, limit), HELPERS, report.show, stop)
        checked = index.check(connection, encoder)
        log.info("%s: %d partitions indexed, recall@10 %.3f", encoder, built, checked.recall_10)
        if checked.recall_10 < settings.recall_floor:
            log.warning("%s: recall is under %.2f: lookalike index tune", encoder, settings.recall_floor)


def refresh_unwanted(settings: Settings, connection: Connection) -> None:
    """Looks for new candidates of the unwanted sets, where vectors have been stored since the last look."""
    for name, encoder in unwanted.outdated(connection):
        if index.is_searchable(connection, encoder, settings.index_rows or LARGE_ARCHIVE):
            found = unwanted.refresh(connection, name)
            log.info("unwanted %s: %d candidates", name, found.candidates)


class _Reporter:
    """Logs the progress of a build, every tenth of it."""

    def __init__(self, encoder: str) -> None:
        self._encoder = encoder
        self._next = 0.1

    def show(self, now: Progress) -> None:
        done = (now.finished + now.share) / now.partitions
        if done >= self._next:
            log.info("%s: index %d %%", self._encoder, done * 100)
            self._next = done + 0.1
