"""Steps in a database that may be away: they are waited with, however long, but not for ever where it only refuses."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
from psycopg_pool import ConnectionPool
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from lookalike.database import is_away
from lookalike.ledger import Connection

Result = TypeVar("Result")

# A stopping worker looks up so often from its wait for a connection.
CONNECTION_SECONDS = 5.0


class _RefusedFor(stop_base):
    """Tells tenacity to stop when the database has refused a step for so many seconds. Its absence does not count."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def __call__(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if error is None or is_away(error):
            self._since = None
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > self._seconds


def in_database(
    pool: ConnectionPool[Connection],
    step: Callable[[Connection], Result],
    refused_seconds: float,
    stop: threading.Event,
) -> Result:
    """Runs one step of the ledger; a database that is away is waited for, however long, or until `stop` is set.

    A step that was committed unseen is refused by its own fence when it is run again. What the database refuses
    otherwise, again and again for `refused_seconds`, is given up and raised: the lease of its chunk expires, and that
    counts as a crash.
    """
    for attempt in Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, psycopg.OperationalError) or is_away(error)),
        wait=wait_random_exponential(0.2, max=5),
        sleep=sleep_using_event(stop),
        stop=_RefusedFor(refused_seconds) | stop_when_event_set(stop),
        reraise=True,
    ):
        with attempt, pool.connection(CONNECTION_SECONDS) as connection:
            return step(connection)
    raise AssertionError("tenacity returns or raises")
