"""The threads of the orchestrator that read: what they do after an error."""

import threading

from lookalike.database import Connection
from orchestrator import reading


def connect() -> Connection:
    raise AssertionError("no step of these tests connects")


def test_a_pause_after_long_work_is_short_again() -> None:
    """Errors in a row make pauses grow; an error after an hour of work begins with the shortest again."""
    pauses: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            return False

    stop, now = Stop(), 0.0
    lasting = iter([0, 0, 0, 3601, 0])

    def step(*_: object) -> float | None:
        nonlocal now
        seconds = next(lasting, None)
        if seconds is None:
            return None
        now += seconds
        raise OSError("away")

    reading._keep_at(step, connect, stop, clock=lambda: now)
    assert pauses == [5, 10, 20, 5, 10]
