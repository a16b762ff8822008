"""Bounds the images that are held in memory between fetch and decode, by number and by bytes.

However large the files are, and however many threads fetch them, no more than the limit and one file are held.
"""

import threading
from collections.abc import Callable

# Told of bytes before they are kept; blocks until there is room for them.
Reserve = Callable[[int], None]


class Budget:
    """Room for so many files that together have so many bytes. Safe for many threads."""

    def __init__(self, files: int, size: int) -> None:
        self._free = threading.BoundedSemaphore(files)
        self._size = size
        self._held = 0
        self._shares: dict[Share, None] = {}
        self._changed = threading.Condition()

    def open(self) -> "Share":
        """Waits for a place and takes it. Whoever gets the share must close it."""
        self._free.acquire()
        share = Share(self)
        with self._changed:
            self._shares[share] = None
        return share

    def reserve(self, share: "Share", size: int) -> None:
        """Waits until `size` more bytes fit.

        The oldest share never waits, or files that are half read could wait for each other for ever. As there is one
        oldest share at a time, no more than the limit and one file are held.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._held + size <= self._size or next(iter(self._shares)) is share
            )
            self._held += size
            share.size += size

    def close(self, share: "Share") -> None:
        """Gives up a share with all its bytes."""
        with self._changed:
            if share not in self._shares:
                return
            del self._shares[share]
            self._held -= share.size
            self._changed.notify_all()
        self._free.release()


class Share:
    """The part of a budget that one file takes, from before it is fetched until it is decoded."""

    __slots__ = ("_budget", "size")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size = 0

    def reserve(self, size: int) -> None:
        """Waits until `size` more bytes fit, and adds them."""
        self._budget.reserve(self, size)

    def close(self) -> None:
        """Gives the share back; a second time does nothing."""
        self._budget.close(self)
