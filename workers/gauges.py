"""How busy each stage of a worker is: the share of time that its threads worked rather than waited."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lookalike.metrics import Labels

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


@dataclass(frozen=True, slots=True)
class Totals:
    """What a worker has done since it began.

    seconds: of work, by stage. images were encoded in batches that had `places`. fetched: images, fetched_bytes: their
    bytes, both by host; files of this machine are those of the host `files`, and few hosts are named.
    """

    seconds: dict[str, float]
    images: int
    batches: int
    places: int
    fetched: dict[str, int]
    fetched_bytes: dict[str, int]


class Gauges:
    """Counts seconds of work by stage; `threads` says how many threads each stage has. May be used from any thread."""

    def __init__(self, threads: dict[str, int]) -> None:
        self.threads = threads
        self._hosts = Labels()
        self._lock = threading.Lock()
        self._total_busy = dict.fromkeys(STAGES, 0.0)
        self._total_images = self._total_batches = self._total_full = 0
        self._fetched: Counter[str] = Counter()
        self._fetched_bytes: Counter[str] = Counter()
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
                now = time.monotonic()
                # Work that began before the last reading counts from then on.
                self._busy[stage] += now - max(since, self._since)
                self._total_busy[stage] += now - since

    def fetched(self, host: str, size: int) -> None:
        """Counts an image of so many bytes that came from a host; empty for a file."""
        host = self._hosts.limit(host or "files")
        with self._lock:
            self._fetched[host] += 1
            self._fetched_bytes[host] += size

    def batch(self, images: int, size: int) -> None:
        """Counts one batch of `images` where `size` would have been full."""
        with self._lock:
            self._images += images
            self._batches += 1
            self._full += size
            self._total_images += images
            self._total_batches += 1
            self._total_full += size

    def totals(self) -> Totals:
        """Returns what was counted since the beginning. It changes nothing, and anybody may ask."""
        with self._lock:
            return Totals(
                dict(self._total_busy),
                self._total_images,
                self._total_batches,
                self._total_full,
                dict(self._fetched),
                dict(self._fetched_bytes),
            )

    def read(self) -> Reading:
        """Returns what was counted since the last reading, and begins anew."""
        with self._lock:
            seconds = max(time.monotonic() - self._since, 1e-6)
            shares = {
                stage: min(1.0, busy / seconds / self.threads[stage]) for stage, busy in self._busy.items()
            }
            fill = self._images / self._full if self._full else 1.0
            reading = Reading(seconds, self._images, shares, fill)
            self._reset()
            return reading
