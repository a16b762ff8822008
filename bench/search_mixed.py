"""Searching while images arrive: the times and the recall of 8 clients, before and while vectors are stored."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.search import Queries, choose_queries, neighbours_of
from bench.search_archive import (
    Loaded,
    calibration_of,
    copy_archive,
    number_of,
    open_archive,
    reconnect,
    register,
    store,
)
from bench.search_data import BLOCK, Mixture, as_stored
from bench.search_measure import recall
from bench.table import print_table
from lookalike.settings import Settings

DIMENSION = 1280
CLIENTS = 8
K = 10
QUERIES = 200
# Vectors a second, and in a transaction.
RATE = 200
CHUNK = 50
# Seconds of each phase, and between two searches of a client that is in no hurry.
QUIET_SECONDS = 30
STORING_SECONDS = 60
PAUSE = 0.25


@dataclass
class Phase:
    """What the clients saw: milliseconds of each search, and what it found by when it began."""

    milliseconds: list[float] = field(default_factory=list)
    found: list[tuple[int, int, list[int]]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Truth:
    """The nearest to each query of so many vectors that are there from the beginning: (queries, k)."""

    rows: int
    numbers: NDArray[np.int64]
    likeness: NDArray[np.float32]


@dataclass
class Arrivals:
    """Vectors (n, d) that are stored while the clients search; `stored` counts those committed.

    likeness: (queries, n), cosine similarities to the queries.
    """

    vectors: NDArray[np.float32]
    likeness: NDArray[np.float32]
    stored: int = 0


def run(settings: Settings) -> None:
    """Clients that pause, then clients that ask as fast as they can; quiet, then with vectors arriving."""
    with open_archive(settings, DIMENSION) as (loaded, connection):
        queries = choose_queries(connection, loaded, QUERIES)
        truth = Truth(loaded.rows, *neighbours_of(settings, loaded, queries))
    arrivals = make_arrivals(Mixture(DIMENSION), queries)
    rows = []
    with copy_archive(settings, loaded, "mixed") as copy:
        for pause in (PAUSE, 0.0):
            for seconds, storing in ((QUIET_SECONDS, False), (STORING_SECONDS, True)):
                before = arrivals.stored
                with storing_into(copy, arrivals) if storing else ExitStack():
                    phase = search_for(copy, queries, seconds, pause, arrivals)
                shares = [recall_then(f, truth, arrivals) for f in phase.found]
                stored = (arrivals.stored - before) / phase.seconds
                rows.append(
                    (
                        f"{'4 searches a second' if pause else 'no pause'}, {'storing' if storing else 'quiet'}",
                        f"{len(phase.milliseconds) / phase.seconds:,.0f}",
                        f"{stored:,.0f}",
                        f"{np.median(phase.milliseconds):,.1f}",
                        f"{np.quantile(phase.milliseconds, 0.95):,.1f}",
                        f"{np.mean(shares):.4f}",
                    )
                )
    columns = (f"each of {CLIENTS} clients", "searches/s", "stored/s", "p50 ms", "p95 ms", "recall@10")
    print_table(f"Searching {loaded.rows:,} x {DIMENSION:,} while vectors arrive", columns, rows)


def make_arrivals(mixture: Mixture, queries: Queries) -> Arrivals:
    """As many vectors as two phases can store."""
    blocks = range(-(-2 * (STORING_SECONDS + 5) * RATE // BLOCK))
    vectors = np.concatenate([mixture.make(BLOCK, 3 * 10**6 + block) for block in blocks])
    asked = np.stack([vector.to_numpy() for vector in queries.vectors]).astype(np.float32)
    return Arrivals(vectors, asked @ as_stored(vectors).T)


@contextmanager
def storing_into(loaded: Loaded, arrivals: Arrivals) -> Iterator[None]:
    """Stores the arrivals at their rate, in the background, for the time of the block."""
    stop = threading.Event()
    connection = reconnect(loaded)
    codes = calibration_of(connection, loaded).codes(arrivals.vectors)

    def work() -> None:
        began, first = time.perf_counter(), arrivals.stored
        while not stop.is_set() and arrivals.stored + CHUNK <= len(arrivals.vectors):
            here = slice(arrivals.stored, arrivals.stored + CHUNK)
            ids = register(connection, loaded.rows + arrivals.stored, CHUNK)
            store(connection, loaded, ids, codes[here], arrivals.vectors[here])
            arrivals.stored += CHUNK
            stop.wait(max(0.0, began + (arrivals.stored - first) / RATE - time.perf_counter()))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        connection.close()


def search_for(loaded: Loaded, queries: Queries, seconds: float, pause: float, arrivals: Arrivals) -> Phase:
    """Searches with all clients for so many seconds."""
    phase = Phase()
    until = time.perf_counter() + seconds

    def client(number: int) -> None:
        random = np.random.default_rng(number)
        with reconnect(loaded) as connection:
            while (since := time.perf_counter()) < until:
                query, stored = int(random.integers(QUERIES)), arrivals.stored
                rows = connection.execute(
                    "select image from similar(%s, %s)", [queries.keys[query], K], prepare=True
                ).fetchall()
                took = time.perf_counter() - since
                phase.milliseconds.append(1000 * took)
                phase.found.append((query, stored, [number_of(row[0]) for row in rows]))
                if pause:
                    time.sleep(max(0.0, pause * random.uniform(0.5, 1.5) - took))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phase.seconds = time.perf_counter() - began
    return phase


def recall_then(found: tuple[int, int, list[int]], truth: Truth, arrivals: Arrivals) -> float:
    """Recall against what was stored when the search began; an answer that arrived since takes nobody's place."""
    query, stored, numbers = found
    likeness = np.concatenate([truth.likeness[query], arrivals.likeness[query, :stored]])
    all_numbers = np.concatenate([truth.numbers[query], truth.rows + np.arange(stored)])
    known = [number for number in numbers if number < truth.rows + stored]
    return recall(all_numbers[np.argsort(-likeness)[: len(known)]], known)
