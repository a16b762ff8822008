"""When each stage worked on the images of one chunk: what its trace shows. Kept only while traces are on."""

import threading
from dataclasses import dataclass


@dataclass(slots=True)
class Part:
    """From the first image's beginning to the last one's end, on the clock of time.monotonic; `busy` are seconds of
    work in between, of all threads together. `times` is how often the stage worked on it.
    """

    began: float
    ended: float
    busy: float = 0.0
    times: int = 0


class Timeline:
    """The stages of one chunk. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[str, Part] = {}

    def note(self, stage: str, began: float, ended: float) -> None:
        """Counts one piece of work."""
        with self._lock:
            part = self._parts.setdefault(stage, Part(began, ended))
            part.began, part.ended = min(part.began, began), max(part.ended, ended)
            part.busy += ended - began
            part.times += 1

    def parts(self) -> dict[str, Part]:
        """The stages that have worked on it, by name."""
        with self._lock:
            return dict(self._parts)
