"""What an archive needs from time to time: an index after a backfill, analyses summed up, its figures published.

It runs beside the dispatcher, which must not wait for it, on connections of its own. Any number may run.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psycopg

from lookalike import books, index, kinds, unwanted
from lookalike.errors import LookalikeError
from lookalike.index import Connection, Progress
from lookalike.settings import Settings
from lookalike.thumbnails import Cache, open_cache
from orchestrator.cloudwatch import Publisher

log = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
INDEX_SECONDS = 60.0
UNWANTED_SECONDS = 600.0
PUBLISH_SECONDS = 60.0
THUMBNAILS_SECONDS = 30.0
# Server processes that help to build an index.
HELPERS = 2
# A check compares its queries with so many vectors in all: more would take hours in a large archive.
COMPARED = 400_000_000

Step = Callable[[Connection], None]


@contextmanager
def keeping_up(settings: Settings, connect: Callable[[], Connection]) -> Iterator[None]:
    """Keeps the archive in order, in threads, for the time of the block. A build must not hold up the rest."""
    stop = threading.Event()
    steps: dict[str, tuple[float, Step]] = {
        "settle": (SETTLE_SECONDS, settle),
        "thumbnails": (THUMBNAILS_SECONDS, partial(sweep_thumbnails, open_cache(settings))),
        "unwanted": (UNWANTED_SECONDS, partial(refresh_unwanted, settings)),
        "index": (INDEX_SECONDS, partial(build_due_indexes, settings, connect, stop=stop)),
    }
    if settings.cloudwatch_namespace is not None:
        steps["cloudwatch"] = (PUBLISH_SECONDS, Publisher(settings).step)
    threads = [
        threading.Thread(
            target=_repeat, args=(name, *step, connect, stop), name=f"upkeep-{name}", daemon=True
        )
        for name, step in steps.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def _repeat(
    name: str, seconds: float, step: Step, connect: Callable[[], Connection], stop: threading.Event
) -> None:
    """Does a step again and again until `stop` is set. Waits out a database that is away."""
    while not stop.wait(seconds):
        try:
            with connect() as connection:
                step(connection)
        except (LookalikeError, psycopg.Error) as error:
            log.warning("upkeep, %s: %s", name, " ".join(str(error).split()))
        except Exception:
            # Nobody would notice that this thread has ended.
            log.exception("upkeep, %s", name)


def settle(connection: Connection) -> None:
    """Sums up the analyses that are done."""
    for analysis in kinds.settle(connection):
        log.info("the %s of %s are settled", analysis.kind, analysis.encoder)


def build_due_indexes(
    settings: Settings, connect: Callable[[], Connection], connection: Connection, *, stop: threading.Event
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
        queries = max(10, min(100, COMPARED // max(1, planned.rows)))
        checked = index.check(connection, encoder, queries)
        log.info("%s: %d partitions indexed, recall@10 %.3f", encoder, built, checked.recall_10)
        if checked.recall_10 < settings.recall_floor:
            log.warning("%s: recall is under %.2f: lookalike index tune", encoder, settings.recall_floor)


def refresh_unwanted(settings: Settings, connection: Connection) -> None:
    """Looks for new candidates of the unwanted sets, where vectors have been stored since the last look."""
    for name, encoder in unwanted.outdated(connection):
        if not settings.index_rows or index.is_searchable(connection, encoder, settings.index_rows):
            found = unwanted.refresh(connection, name)
            log.info("unwanted %s: %d candidates", name, found.candidates)


def sweep_thumbnails(cache: Cache | None, connection: Connection) -> None:
    """Deletes the files of thumbnails whose images are gone, closed or changed, where this process has their place."""
    if cache is not None and (deleted := cache.sweep(connection)):
        log.info("%d files of thumbnails are deleted", deleted)


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
