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
ROUNDS = 5
PICTURES = 64
SIDE = 48
LATENCY = 0.05
# 50 images a second of each device: four need less than half of one core.
BATCH, PASS_SECONDS = 32, 0.64
CHUNK = 64
# Seconds of work for each worker.
LENGTH = 24.0


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
        for _ in range(ROUNDS):
            for count, found in runs.items():
                images = round(LENGTH * count * BATCH / PASS_SECONDS)
                found.append(measure(settings, [f"{address}/{name}" for name in names], count, images))
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


@contextmanager
def sleeping_system(
    settings: Settings, database_url: str, workers: int, **changed: str
) -> Iterator[tuple[Child, list[Child]]]:
    """An orchestrator and workers as operators start them, but for the encoder; `changed` are settings besides."""
    environment = {
        "DATABASE_URL": database_url,
        "BROKER_URL": services.up(settings).broker_url,
        "LOOKALIKE_HOME": str(settings.home),
        "LOOKALIKE_ENCODER": SLEEPER.name,
        "LOOKALIKE_CHUNK_SIZE": str(CHUNK),
        # As on a GPU.
        "LOOKALIKE_CHUNK_THREADS": "4",
        "LOOKALIKE_BATCH_SIZE": str(BATCH),
        "LOOKALIKE_HOST_CONCURRENCY": "0",
        SLEEP_VARIABLE: str(PASS_SECONDS),
        **changed,
    }
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                start("-m", "bench.scaling_child", words, log=settings.home / f"{words}.log", **environment)
            )
            for words in ["orchestrate", *["worker"] * workers]
        ]
        yield started[0], started[1:]


def measure(settings: Settings, addresses: list[str], count: int, images: int) -> Run:
    """So many fresh workers embed so many images, once all have begun to work."""
    with fresh_database(settings) as (url, connection):
        archive.add_encoder(connection, SLEEPER, CHUNK)
        with sleeping_system(settings, url, count) as (orchestrator, workers):
            warm_up(connection, addresses, workers)
            pids = {
                "orchestrator": orchestrator.pid,
                "Postgres": Postgres(settings.home).pid() or 0,
                "Valkey": Valkey(settings.home).pid() or 0,
            }
            used = {name: tree_seconds(pid) for name, pid in pids.items()}
            before = [worker.ask(None) for worker in workers]
            since = time.perf_counter()
            embed(connection, addresses, images, "measured")
            seconds = time.perf_counter() - since
            after = [worker.ask(None) for worker in workers]
            used = {name: tree_seconds(pid) - used[name] for name, pid in pids.items()}
            rate = middle_rate(connection, "measured")
    spent = {
        key: sum(late[key] - early[key] for early, late in zip(before, after, strict=True))
        for key in ("cpu", "passes", "images", "busy")
    }
    used = {"workers": spent["cpu"], **used}
    return Run(
        rate,
        images / seconds,
        spent["busy"] / seconds / count,
        spent["images"] / spent["passes"] / BATCH,
        {name: cpu / seconds for name, cpu in used.items()},
    )


def warm_up(connection: Connection, addresses: list[str], workers: list[Child]) -> None:
    """Gives work until every worker has done some."""
    number = 0
    while any(not worker.ask(None)["images"] for worker in workers):
        embed(connection, addresses, 2 * CHUNK * len(workers), f"warm-up {number}")
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
    """Images a second of a prefix, from the first tenth that was stored to the ninth: the slope of a straight line.

    Before, pipelines fill; after, workers end one by one. Images are stored chunk by chunk: two points would not do.
    """
    (table,) = connection.execute("select vectors from encoders where active").fetchone() or ("",)
    rows = connection.execute(
        f"select extract(epoch from v.stored_at)::float8 from {table} v join images i on i.id = v.image_id"
        " where i.key like %s order by 1",
        [f"{prefix}/%"],
    ).fetchall()
    times = np.array([float(str(stored)) for (stored,) in rows])
    times = times[len(times) // 10 : len(times) * 9 // 10]
    return float(np.polyfit(times - times[0], np.arange(len(times)), 1)[0])
