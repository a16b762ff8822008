"""Reads the orchestrator's sources beside the dispatcher: backfills to their end, streams and queues for ever.

Each source has a thread and a connection of its own, and so have the manifests that events have promised: a slow one
holds up nobody.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import psycopg

from lookalike.errors import LookalikeError
from lookalike.ledger import Connection
from lookalike.settings import Settings
from orchestrator import progress
from orchestrator.events.consumer import consume
from orchestrator.events.manifests import read_due
from orchestrator.intake import StoppedError, read_in
from orchestrator.progress import Intake
from orchestrator.sources import QUEUE_SCHEME, source_name

log = logging.getLogger(__name__)

# A source that cannot be read is tried again after so long, then twice as long, up to an hour.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 3600.0
# A stop that comes while a source is being read is noticed with the next batch; the process does not wait for longer.
STOP_SECONDS = 5.0
# How soon a manifest that is due is asked for.
MANIFEST_SECONDS = 1.0

# Takes a connection's maker and what stops it; returns the seconds until it is taken again, None when it is over.
Step = Callable[[Callable[[], Connection], threading.Event], float | None]


@contextmanager
def reading(settings: Settings, connect: Callable[[], Connection], sources: Sequence[str]) -> Iterator[None]:
    """Reads the sources, and the manifests that are due, in threads, for the time of the block."""
    stop = threading.Event()
    steps: list[Step] = [partial(_read_source, settings, source) for source in sources]
    steps.append(partial(_read_manifests, settings))
    threads = [
        threading.Thread(target=_keep_at, args=(step, connect, stop), name=f"read-{number}", daemon=True)
        for number, step in enumerate(steps)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(STOP_SECONDS)


def _keep_at(
    step: Step,
    connect: Callable[[], Connection],
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Takes a step again and again until it says that it is over. Waits out whatever is away."""
    pause = FIRST_PAUSE
    while not stop.is_set():
        began = clock()
        try:
            rest = step(connect, stop)
        except StoppedError:
            return
        except Exception as error:
            if not isinstance(error, LookalikeError | psycopg.Error):
                # Nobody would notice that this thread has ended.
                log.exception("reading")
            if clock() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE  # it went well for hours: this is another trouble
            log.warning("%s; trying again in %.0f s", " ".join(str(error).split()), pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            continue
        if rest is None:
            return
        pause = FIRST_PAUSE
        stop.wait(rest)


def _read_source(
    settings: Settings, source: str, connect: Callable[[], Connection], stop: threading.Event
) -> float | None:
    """Reads one source to its end. Returns the seconds until a stream is looked at again, None for others."""
    if source.startswith(QUEUE_SCHEME):
        consume(settings, connect, source, stop)
        return None
    name = source_name(source)
    with connect() as connection:
        if progress.has_ended(connection, name):
            log.info("%s was read to its end before: `lookalike add` reads it again", name)
            return None
        _read_once(settings, connection, source, stop)
        if progress.has_ended(connection, name):
            return None
    return settings.poll_seconds


def _read_once(settings: Settings, connection: Connection, source: str, stop: threading.Event) -> None:
    intake = Intake()

    def check(_: Intake) -> None:
        if stop.is_set():
            raise StoppedError

    read_in(connection, source, settings, intake, check)
    registered = intake.registered
    if registered.new or registered.changed or intake.deleted or intake.refused:
        log.info(
            "%s: %d new, %d changed, %d deleted, %d refused",
            *(source_name(source), registered.new, registered.changed, intake.deleted),
            intake.refused.total(),
        )


def _read_manifests(settings: Settings, connect: Callable[[], Connection], stop: threading.Event) -> float:
    with connect() as connection:
        while not stop.wait(MANIFEST_SECONDS):
            read_due(settings, connection, stop)
    return MANIFEST_SECONDS
