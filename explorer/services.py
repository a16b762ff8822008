"""Asks IIIF image services which small picture they give, for those that do not take the usual question, and how they
give pictures in tiles.

It is asked by way of the guard, of few services at once, and never twice within a day.
"""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from explorer.zooming import Zoom, read_zoom
from lookalike.errors import ImageError
from lookalike.settings import Settings

# So many services are remembered, and for so long; those that failed are asked again sooner.
REMEMBERED = 10_000
KNOWN_SECONDS = 86_400.0
FAILED_SECONDS = 300.0
# A browser waits for it: rather a picture of colours than a long wait.
TIMEOUT_SECONDS = 10.0
AT_ONCE = 4
LARGEST_INFO = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Known:
    small: str | None
    zoom: Zoom | None
    until: float


class Services:
    """What is known of image services. May be used from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def small(self, base: str, side: int, outside: bool) -> str | None:
        """The address of a picture whose shorter side has `side` pixels or somewhat more; None where the service cannot
        be asked now. `outside`: its address is not the operator's own.
        """
        known = self._find(base, side, outside)
        return known.small if known else None

    def zoom(self, base: str, side: int, outside: bool) -> Zoom | None:
        """How the service gives its picture in tiles; None where it has none, or cannot be asked now."""
        known = self._find(base, side, outside)
        return known.zoom if known else None

    def _find(self, base: str, side: int, outside: bool) -> _Known | None:
        now = time.monotonic()
        with self._lock:
            known = self._known.get(base)
            if known is not None and known.until > now:
                self._known.move_to_end(base)
                return known
        # Whoever finds no room is not kept waiting, and may ask again.
        if not self._room.acquire(timeout=TIMEOUT_SECONDS / 2):
            return None
        try:
            small, zoom = self._ask(base, side, outside)
        finally:
            self._room.release()
        seconds = FAILED_SECONDS if small is None else KNOWN_SECONDS
        found = _Known(small, zoom, time.monotonic() + seconds)
        with self._lock:
            self._known[base] = found
            self._known.move_to_end(base)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _ask(self, base: str, side: int, outside: bool) -> tuple[str | None, Zoom | None]:
        try:
            from workers.http import Allowance, HttpClient, require
            from workers.iiif import choose_sizes, read_service
        except ImportError:  # an explorer without what a worker needs
            return None, None
        base = base.rstrip("/").removesuffix("/info.json")
        until = time.monotonic() + TIMEOUT_SECONDS
        allowance = Allowance(LARGEST_INFO, until, lambda _: None, lambda *_: None, outside)
        client = HttpClient(self._settings)
        try:
            info = require(client.get(f"{base}/info.json", allowance), base)
            return base + choose_sizes(read_service(info), side)[0], read_zoom(base, info)
        except ImageError:
            return None, None
        finally:
            client.close()
