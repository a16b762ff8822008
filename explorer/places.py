"""Places for what is slow and can be asked for by anybody: so many at once, and of one client at most some of them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from explorer.problems import BusyError, TooManyRequestsError


class Places:
    """`most` places, of which one client holds at most `of_one`. May be used from any thread; nobody waits for one."""

    def __init__(self, most: int, of_one: int, what: str) -> None:
        self._most = most
        self._of_one = of_one
        self._what = what
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, client: str) -> None:
        """Takes a place. Raises TooManyRequestsError, BusyError: whoever asks may come back."""
        with self._lock:
            if self._held[client] >= self._of_one:
                raise TooManyRequestsError(
                    f"{self._of_one} of your {self._what} are under way: wait for one of them"
                )
            if self._held.total() >= self._most:
                raise BusyError(f"many {self._what} are under way at this moment: try again in a few seconds")
            self._held[client] += 1

    def give_back(self, client: str) -> None:
        """The place of whoever took one is free again."""
        with self._lock:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]

    @contextmanager
    def taken(self, client: str) -> Iterator[None]:
        """A place for the time of the block. Raises as `take`."""
        self.take(client)
        try:
            yield
        finally:
            self.give_back(client)
