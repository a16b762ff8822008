"""Whose turn it is: chunks are worked on side by side, but a suspect alone, so that a crash says whose fault it is."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Turn:
    """A chunk that is being worked on, or waits until it may be."""

    alone: bool


class Turns:
    """In the order in which they came: neither suspects nor the others can keep the rest waiting for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turns: list[Turn] = []

    @contextmanager
    def take(self, alone: bool) -> Iterator[None]:
        """Waits for its turn, which lasts as long as the block."""
        turn = Turn(alone)
        with self._changed:
            self._turns.append(turn)
            self._changed.wait_for(lambda: self._has_come(turn))
        try:
            yield
        finally:
            with self._changed:
                self._turns.remove(turn)
                self._changed.notify_all()

    def _has_come(self, turn: Turn) -> bool:
        earlier = self._turns[: self._turns.index(turn)]
        return not earlier if turn.alone else not any(one.alone for one in earlier)
