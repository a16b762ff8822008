"""Does twice the number of workers embed twice as fast? One, two and four worker processes, whose devices sleep.

The workers are real to the last line but for the network (`bench.scaling_child`), and so are orchestrator, Postgres,
Valkey and HTTP server. A pass is so long that four workers leave some of the two cores idle: then only what they share,
the ledger and the broker, can keep them from four times one. Rounds take turns.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.pictures import encode_jpeg, make_picture
from bench.processes import Child, server, start
from bench.scaling_child import SLEEP_VARIABLE, SLEEPER
from bench.services import fresh_database
from bench.table import median_and_range, print_table
from bench.usage import tree_seconds
from lookalike import archive, books, ledger, services
from lookalike.database import Connection
from lookalike.images import Image
from lookalike.servers import Postgres, Valkey
from lookalike.settings import Settings

COUNTS = (1, 2, 4)
ROUNDS = 3
PICTURES = 64
SIDE = 48
LATENCY = 0.05
# 100 images a second of each device: with its servers four need less than one core.
BATCH, PASS_SECONDS = 32, 0.32
CHUNK = 32
# Seconds of work for each worker.
LENGTH = 20.0
# What is measured, as shares of all that is stored: before, pipelines fill; after, one worker may find no chunk left
# while each of the others holds four.
BEGIN, END = 0.1, 0.75


@dataclass(frozen=True)
class Run:
    """What one run showed: images a second in its middle, and of all of it; the share of time that devices worked, how
    full their batches were; and the CPU seconds of each part for a second of the run."""

    rate: float
    whole: float
    busy: float
    fill: float
    cores: dict[str, float]


def run(settings: Settings) -> None:
    """Prints images/s of one, two and four workers, and which cores they took."""
    names = write_tiny(settings.home / "tiny", PICTURES)
    runs: dict[int, list[Run]] = {count: [] for count in COUNTS}
    with server(settings.home / "tiny", LATENCY) as address:
        addresses = [f"{address}/{name}" for name in names]
        for _ in range(ROUNDS):
            with fresh_database(settings) as (url, connection):
                archive.add_encoder(connection, SLEEPER, CHUNK)
                with sleeping_system(settings, url) as system:
                    for count, found in runs.items():
                        system.grow(count)
                        found.append(measure(settings, connection, addresses, system))
    print_rates(runs)
    print_cores(runs)


def print_rates(runs: dict[int, list[Run]]) -> None:
    one = [each.rate for each in runs[1]]
    print_table(
        f"Workers with a device of {BATCH / PASS_SECONDS:.0f} images/s each, {ROUNDS} rounds: median (range)",
        ("workers", "images/s", "to n times one", "beginning and end too", "devices busy", "batch fill"),
        [
            (
                str(count),
                median_and_range([each.rate for each in found], 1),
                median_and_range(
                    [each.rate / (count * alone) for each, alone in zip(found, one, strict=True)]
                ),
                median_and_range([each.whole for each in found], 1),
                median_and_range([each.busy for each in found]),
                median_and_range([each.fill for each in found]),
            )
            for count, found in runs.items()
        ],
    )


def print_cores(runs: dict[int, list[Run]]) -> None:
    parts = list(runs[1][0].cores)
    print_table(
        "Cores that each part took: median (range)",
        ("workers", *parts),
        [
            (str(count), *(median_and_range([each.cores[part] for each in found]) for part in parts))
            for count, found in runs.items()
        ],
    )


def write_tiny(folder: Path, count: int) -> list[str]:
    """`count` JPEGs that cost next to nothing to fetch and decode; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode_jpeg(make_picture(number, SIDE, SIDE), 85))
    return names


class System:
    """An orchestrator and workers as operators start them, but for the encoder."""

    def __init__(self, stack: ExitStack, home: Path, environment: dict[str, str]) -> None:
        self._stack = stack
        self._home = home
        self._environment = environment
        self.orchestrator = self._start("orchestrate")
        self.workers: list[Child] = []

    def grow(self, count: int) -> None:
        """Starts workers until there are so many."""
        self.workers += [self._start("worker") for _ in range(count - len(self.workers))]

    def _start(self, word: str) -> Child:
        log = self._home / f"{word}.log"
        return self._stack.enter_context(
            start("-m", "bench.scaling_child", word, log=log, **self._environment)
        )


@contextmanager
def sleeping_system(settings: Settings, database_url: str) -> Iterator[System]:
    """A System for the time of the block, without workers yet."""
    environment = {
        "DATABASE_URL": database_url,
        "BROKER_URL": services.up(settings).broker_url,
        "LOOKALIKE_HOME": str(settings.home),
        "LOOKALIKE_ENCODER": SLEEPER.name,
        "LOOKALIKE_CHUNK_SIZE": str(CHUNK),
        # A worker that is added soon after the start of Postgres waits for a third of it.
        "LOOKALIKE_LEASE_SECONDS": "15",
        # As on a GPU.
        "LOOKALIKE_CHUNK_THREADS": "4",
        "LOOKALIKE_BATCH_SIZE": str(BATCH),
        "LOOKALIKE_HOST_CONCURRENCY": "0",
        SLEEP_VARIABLE: str(PASS_SECONDS),
    }
    with ExitStack() as stack:
        yield System(stack, settings.home, environment)


def measure(settings: Settings, connection: Connection, addresses: list[str], system: System) -> Run:
    """The workers embed as many images as they can in `LENGTH` seconds, once all have begun to work."""
    workers = system.workers
    images = round(LENGTH * len(workers) * BATCH / PASS_SECONDS)
    warm_up(connection, addresses, workers)
    pids = {
        "orchestrator": system.orchestrator.pid,
        "Postgres": Postgres(settings.home).pid() or 0,
        "Valkey": Valkey(settings.home).pid() or 0,
    }
    used = {name: tree_seconds(pid) for name, pid in pids.items()}
    before = [worker.ask(None) for worker in workers]
    since = time.perf_counter()
    prefix = f"measured {len(workers)}"
    embed(connection, addresses, images, prefix)
    seconds = time.perf_counter() - since
    after = [worker.ask(None) for worker in workers]
    used = {name: tree_seconds(pid) - used[name] for name, pid in pids.items()}
    spent = {
        key: sum(late[key] - early[key] for early, late in zip(before, after, strict=True))
        for key in ("cpu", "passes", "images", "busy")
    }
    return Run(
        middle_rate(connection, prefix),
        images / seconds,
        spent["busy"] / seconds / len(workers),
        spent["images"] / spent["passes"] / BATCH,
        {name: cpu / seconds for name, cpu in {"workers": spent["cpu"], **used}.items()},
    )


def warm_up(connection: Connection, addresses: list[str], workers: list[Child]) -> None:
    """Gives work until every worker has settled some: whoever holds a name is awaited by those that come later."""
    number = 0
    seen = "select count(distinct worker) from chunks where state = 'done'"
    while connection.execute(seen).fetchone() != (len(workers),):
        embed(connection, addresses, 8 * CHUNK, f"warm-up {len(workers)} {number}")
        number += 1


def embed(connection: Connection, addresses: list[str], count: int, prefix: str) -> None:
    """Registers so many images under new keys and waits until all are done."""
    images = [Image(f"{prefix}/{number}", addresses[number % len(addresses)]) for number in range(count)]
    ledger.register(connection, images, chunk_size=CHUNK)
    while not books.is_finished(connection, SLEEPER.name):
        time.sleep(0.1)
    counted = books.count_books(connection, SLEEPER.name)
    assert counted.complete, counted
    assert counted.failed == 0, books.count_reasons(connection, SLEEPER.name)


def middle_rate(connection: Connection, prefix: str) -> float:
    """Images a second of a prefix, between `BEGIN` and `END`: the slope of a straight line.

    Images are stored chunk by chunk: two points would not do.
    """
    (table,) = connection.execute("select vectors from encoders where active").fetchone() or ("",)
    rows = connection.execute(
        f"select extract(epoch from v.stored_at)::float8 from {table} v join images i on i.id = v.image_id"
        " where i.key like %s order by 1",
        [f"{prefix}/%"],
    ).fetchall()
    times = np.array([float(str(stored)) for (stored,) in rows])
    times = times[int(BEGIN * len(times)) : int(END * len(times))]
    return float(np.polyfit(times - times[0], np.arange(len(times)), 1)[0])
