"""How far each encoder's backfill is, for a page that asks every two seconds.

To count the books exactly reads every image once: it is done so seldom that it takes a small share of the time. What has
been done since is told by the sizes of unfinished chunks, which costs the same in any archive.
"""

import threading
import time
from dataclasses import dataclass, replace

from lookalike import books
from lookalike.books import Books
from lookalike.database import Connection

# The exact count takes at most this share of the time.
SHARE = 0.05
AT_LEAST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one encoder: its books as of now, and images done within the last second, on the average of a minute."""

    name: str
    active: bool
    books: Books
    rate: float

    @property
    def seconds_left(self) -> float | None:
        return self.books.open / self.rate if self.rate and self.books.open else None


@dataclass(frozen=True, slots=True)
class _Counted:
    books: Books
    left: int
    at: float
    seconds: float


class Counter:
    """Counts for all who look."""

    def __init__(self) -> None:
        self._counted: dict[str, _Counted] = {}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """The next look counts exactly: something was changed."""
        self._counted = {}

    def count(self, connection: Connection, name: str, active: bool) -> Figures:
        """The figures of an encoder."""
        rate = books.count_last_minute(connection, name) / 60
        known = self._counted.get(name)
        now = time.monotonic()
        if known is None:
            with self._lock:
                known = self._counted.get(name) or self._exact(connection, name)
        elif now > known.at + max(AT_LEAST_SECONDS, known.seconds / SHARE) and self._lock.acquire(
            blocking=False
        ):
            # One asks anew; everybody else sees what was known.
            try:
                known = self._exact(connection, name)
            finally:
                self._lock.release()
        return Figures(name, active, _as_of_now(known, books.count_left(connection, name)), rate)

    def _exact(self, connection: Connection, name: str) -> _Counted:
        began = time.monotonic()
        left = books.count_left(connection, name)
        counted = books.count_books(connection, name)
        ended = time.monotonic()
        self._counted[name] = found = _Counted(counted, left, ended, ended - began)
        return found


def _as_of_now(known: _Counted, left: int) -> Books:
    """The books, with what was done since they were counted; new images appear at the next count."""
    done = max(0, min(known.books.open, known.left - left))
    return replace(known.books, done=known.books.done + done, open=known.books.open - done)
