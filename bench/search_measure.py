"""Measures ways to search beside each other: the sides take turns query by query, each has a clock of CPU time."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookalike.database import Connection

# The plans of prepared statements settle within six calls, and what is read becomes warm.
WARM = 8


@dataclass(frozen=True, slots=True)
class Side:
    """A way to search: the number of a query in, the numbers of the images found out; and its CPU seconds so far."""

    search: Callable[[int], list[int]]
    clock: Callable[[], float]


@dataclass(slots=True)
class Measured:
    """What a side found and took: recall@k of each query by k, wall and CPU milliseconds of each query."""

    recall: dict[int, list[float]] = field(default_factory=dict)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def mean_recall(self, k: int) -> float:
        """Mean of recall@k."""
        return float(np.mean(self.recall[k]))

    def poor(self, k: int) -> float:
        """Share of the queries that find less than half of the true k."""
        return float(np.mean(np.array(self.recall[k]) < 0.5))

    def milliseconds(self) -> list[str]:
        """p50 and p95 of the time that passed, and p50 of CPU time, as text."""
        cpu = float(np.median(self.cpu))
        return [
            f"{np.median(self.wall):,.1f}",
            f"{np.quantile(self.wall, 0.95):,.1f}",
            "" if math.isnan(cpu) else f"{cpu:,.1f}",
        ]

    def ratio_to(self, other: "Measured") -> str:
        """Median over the queries of the ratio of times, and of CPU times, to another side's."""
        return " / ".join(
            f"{np.median(np.array(mine) / np.array(theirs)):.2f}"
            for mine, theirs in ((self.wall, other.wall), (self.cpu, other.cpu))
        )


def take_turns(sides: Mapping[str, Side], truth: NDArray[np.int64], ks: Sequence[int]) -> dict[str, Measured]:
    """Asks every side every query, in turns. `truth` (queries, at least the largest k) holds numbers of images.

    The first side of a turn is asked once before it counts, so that no side reads pages in for the others; each is
    the first in its turn.
    """
    for query in range(min(WARM, len(truth))):
        for side in sides.values():
            side.search(query)
    measured = {name: Measured({k: [] for k in ks}) for name in sides}
    names = list(sides)
    for query in range(len(truth)):
        first = query % len(names)
        sides[names[first]].search(query)
        for name in names[first:] + names[:first]:
            side = sides[name]
            cpu, since = side.clock(), time.perf_counter()
            found = side.search(query)
            measured[name].wall.append(1000 * (time.perf_counter() - since))
            measured[name].cpu.append(1000 * (side.clock() - cpu))
            for k in ks:
                measured[name].recall[k].append(recall(truth[query, :k], found[:k]))
    return measured


def recall(truth: NDArray[np.int64], found: Sequence[int]) -> float:
    """The share of the true neighbours that are among those found."""
    return len(set(truth.tolist()) & set(found)) / len(truth)


def server_clock(connection: Connection) -> Callable[[], float]:
    """CPU seconds of the server process of a connection on this machine; NaN where the system does not tell."""
    statistics = Path(f"/proc/{connection.info.backend_pid}/schedstat")

    def read() -> float:
        try:
            return int(statistics.read_text().split()[0]) / 1e9
        except OSError:
            return math.nan

    return read
