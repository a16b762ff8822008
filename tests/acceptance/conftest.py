"""The whole system for one test: real commands in real processes, on the database and broker of the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import Lookalike


@pytest.fixture
def lookalike(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Callable[..., Lookalike]]:
    """Makes a `Lookalike` with more settings as words; its processes end with the test."""
    made: list[Lookalike] = []

    def make(**settings: str) -> Lookalike:
        made.append(Lookalike(tmp_path, database_url, broker_url, **settings))
        return made[-1]

    yield make
    for one in made:
        one.stop()
