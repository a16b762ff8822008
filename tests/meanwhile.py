"""Something that goes on while a test does something else, to see whether it is kept waiting."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(action: Callable[[int], None]) -> Iterator[list[float]]:
    """Does something again and again for the time of the block, with the number of the time; yields how long each took.

    An error of it is raised when the block ends.
    """
    over = threading.Event()
    seconds: list[float] = []
    errors: list[Exception] = []

    def repeat() -> None:
        while not over.is_set() and not errors:
            since = time.perf_counter()
            try:
                action(len(seconds))
            except Exception as error:
                errors.append(error)
            seconds.append(time.perf_counter() - since)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]
