"""Reads the orchestrator's sources beside the dispatcher: backfills to their end, streams for ever.

Each source has a thread and a connection of its own: a slow one holds up nobody.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from lookalike.errors import LookalikeError
from lookalike.ledger import Connection
from lookalike.settings import Settings
from orchestrator import progress
from orchestrator.intake import read_in
from orchestrator.progress import Intake
from orchestrator.sources import source_name

log = logging.getLogger(__name__)

# A source that cannot be read is tried again after so long, then twice as long, up to an hour.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 3600.0
# A stop that comes while a source is being read is noticed with the next batch; the process does not wait for longer.
STOP_SECONDS = 5.0


class _StoppedError(Exception):
    """The orchestrator ends; what was read so far is committed."""


@contextmanager
def reading(settings: Settings, connect: Callable[[], Connection], sources: Sequence[str]) -> Iterator[None]:
    """Reads the sources in threads, for the time of the block."""
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=_read, args=(settings, connect, source, stop), name=f"read-{number}", daemon=True
        )
        for number, source in enumerate(sources)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(STOP_SECONDS)


def _read(settings: Settings, connect: Callable[[], Connection], source: str, stop: threading.Event) -> None:
    """Reads one source until its end, again and again if it is a stream. Waits out whatever is away."""
    name = source_name(source)
    pause = FIRST_PAUSE
    while not stop.is_set():
        try:
            with connect() as connection:
                if progress.has_ended(connection, name):
                    log.info("%s was read to its end before: `lookalike add` reads it again", name)
                    return
                _read_once(settings, connection, source, stop)
                is_stream = not progress.has_ended(connection, name)
            pause = FIRST_PAUSE
            if not is_stream:
                return
            stop.wait(settings.poll_seconds)
        except _StoppedError:
            return
        except (LookalikeError, psycopg.Error) as error:
            log.warning("%s: %s; trying again in %.0f s", name, " ".join(str(error).split()), pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        except Exception:
            # Nobody would notice that this thread has ended.
            log.exception("%s; trying again in %.0f s", name, pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _read_once(settings: Settings, connection: Connection, source: str, stop: threading.Event) -> None:
    intake = Intake()

    def check(_: Intake) -> None:
        if stop.is_set():
            raise _StoppedError

    read_in(connection, source, settings, intake, check)
    registered = intake.registered
    if registered.new or registered.changed or intake.deleted or intake.refused:
        log.info(
            "%s: %d new, %d changed, %d deleted, %d refused",
            *(source_name(source), registered.new, registered.changed, intake.deleted),
            intake.refused.total(),
        )
