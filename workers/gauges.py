"""How busy each stage of a worker is: the share of time that its threads worked rather than waited."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STAGES = ("fetch", "decode", "encode", "store")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a worker did since it was last read.

    seconds: length of that time. images: how many it encoded. shares: by stage, the share 0..1 of its threads' time
    that they worked. batch_fill: mean size of its batches as a share of the full batch, 1 without a batch.
    """

    seconds: float
    images: int
    shares: dict[str, float]
    batch_fill: float


class Gauges:
    """Counts seconds of work by stage; `threads` says how many threads each stage has. May be used from any thread."""

    def __init__(self, threads: dict[str, int]) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._busy = dict.fromkeys(STAGES, 0.0)
        self._images = self._batches = self._full = 0

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Counts the time of the block as work of the stage."""
        since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                # Work that began before the last reading counts from then on.
                self._busy[stage] += time.monotonic() - max(since, self._since)

    def batch(self, images: int, size: int) -> None:
        """Counts one batch of `images` where `size` would have been full."""
        with self._lock:
            self._images += images
            self._batches += 1
            self._full += size

    def read(self) -> Reading:
        """Returns what was counted since the last reading, and begins anew."""
        with self._lock:
            seconds = max(time.monotonic() - self._since, 1e-6)
            shares = {
                stage: min(1.0, busy / seconds / self._threads[stage]) for stage, busy in self._busy.items()
            }
            fill = self._images / self._full if self._full else 1.0
            reading = Reading(seconds, self._images, shares, fill)
            self._reset()
            return reading
