"""How many GPUs do the ledger and the broker bear? Twenty workers without pictures, as fast as they can and at a pace.

The dispatcher, the messages, leases and transactions are the real ones; only pictures and network are left out
(`bench.fleet_child`). What each part costs is CPU time, so that the figure for one core of a database is known although
all share two cores here.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from bench.processes import Child, start
from bench.services import fresh_database
from bench.table import median_and_range, print_table
from bench.usage import tree_seconds
from lookalike import archive, books, services
from lookalike.database import Connection
from lookalike.encoders import find_encoder
from lookalike.servers import Postgres, Valkey
from lookalike.settings import Settings

ENCODER = "efficientnet-lite0"
WORKERS = 20
ROUNDS = 3
CHUNK = 256
# What a whole pipeline has reached on one GPU: clip-retrieval, ViT-B/32 on an RTX 3080, 1,400 to 1,500 images/s.
GPU_RATE = 1450
# Chunks before the clock starts: each worker gets some.
WARM_UP = 8 * WORKERS
# What workers store, the rate of their devices (0: they take no time), and chunks: some ten seconds of two cores.
KINDS = {
    "ledger and broker alone": ("nothing", 0.0, 2000),
    "and vectors": ("vectors", 0.0, 300),
    "and labels, colours": ("all", 0.0, 120),
    "all, devices of 100 images/s": ("all", 100.0, 320),
}


@dataclass(frozen=True)
class Run:
    """What one run showed: chunks a second in its middle, seconds and chunks of all of it, CPU seconds of each part."""

    rate: float
    seconds: float
    chunks: int
    cpu: dict[str, float]

    def microseconds(self, part: str) -> float:
        """CPU time of a part for one image."""
        return 1e6 * self.cpu[part] / (self.chunks * CHUNK)


def run(settings: Settings) -> None:
    """Prints chunks and images a second by what is stored, and what each part took."""
    runs: dict[str, list[Run]] = {name: [] for name in KINDS}
    for _ in range(ROUNDS):
        for name, found in runs.items():
            found.append(measure(settings, *KINDS[name]))
    print_rates(runs)
    print_cpu(runs)


def print_rates(runs: dict[str, list[Run]]) -> None:
    rows = []
    for name, found in runs.items():
        images = [each.rate * CHUNK for each in found]
        cores = [sum(each.cpu.values()) / each.seconds for each in found]
        rows.append(
            (
                name,
                median_and_range([each.rate for each in found], 1),
                median_and_range(images, 0),
                median_and_range([rate / GPU_RATE for rate in images], 1),
                median_and_range(cores),
            )
        )
    print_table(
        f"{WORKERS} workers without pictures, 4 chunks of {CHUNK} under way in each, {ROUNDS} rounds: median (range)",
        ("stored", "chunks/s", "images/s", f"GPUs of {GPU_RATE:,} images/s", "cores"),
        rows,
    )


def print_cpu(runs: dict[str, list[Run]]) -> None:
    """By part; and how many cores of a database twenty GPUs need."""
    parts = list(next(iter(runs.values()))[0].cpu)
    print_table(
        "CPU microseconds of an image: median (range); cores of Postgres for 20 GPUs",
        ("stored", *parts, "cores"),
        [
            (
                name,
                *(median_and_range([each.microseconds(part) for each in found], 1) for part in parts),
                median_and_range([20 * GPU_RATE * each.microseconds("Postgres") / 1e6 for each in found], 1),
            )
            for name, found in runs.items()
        ],
    )


@contextmanager
def fleet(
    settings: Settings, database_url: str, workers: int, kind: str, rate: float, **changed: str
) -> Iterator[tuple[Child, list[Child]]]:
    """The orchestrator as operators start it, and workers of the fleet that all listen; `changed` are settings."""
    environment = {
        "DATABASE_URL": database_url,
        "BROKER_URL": services.up(settings).broker_url,
        "LOOKALIKE_HOME": str(settings.home),
        "LOOKALIKE_CHUNK_SIZE": str(CHUNK),
        # No index is built meanwhile.
        "LOOKALIKE_INDEX_ROWS": "0",
        **changed,
    }
    with ExitStack() as stack:
        words = ("-m", "bench.fleet_child", kind, str(rate))
        log = settings.home / "fleet.log"
        started = [stack.enter_context(start(*words, log=log, **environment)) for _ in range(workers)]
        for worker in started:
            assert worker.read() == "ready"
        log = settings.home / "orchestrate.log"
        yield stack.enter_context(start("-m", "cli.main", "orchestrate", log=log, **environment)), started


def measure(settings: Settings, kind: str, device_rate: float, chunks: int) -> Run:
    """So many chunks go through a fleet that has warmed up."""
    with fresh_database(settings) as (url, connection):
        fill(connection, (chunks + WARM_UP) * CHUNK, chunks)
        with fleet(settings, url, WORKERS, kind, device_rate) as (orchestrator, workers):
            wait(connection)
            pids = {
                "Postgres": [Postgres(settings.home).pid() or 0],
                "Valkey": [Valkey(settings.home).pid() or 0],
                "orchestrator": [orchestrator.pid],
                "workers": [worker.pid for worker in workers],
            }
            before = {part: sum(map(tree_seconds, each)) for part, each in pids.items()}
            since = time.perf_counter()
            release(connection)
            wait(connection)
            seconds = time.perf_counter() - since
            cpu = {part: sum(map(tree_seconds, each)) - before[part] for part, each in pids.items()}
        check(connection, kind)
        return Run(middle_rate(connection, chunks), seconds, chunks, cpu)


def fill(connection: Connection, images: int, held: int) -> None:
    """Registers so many images; the last `held` of their chunks stay back until `release`."""
    connection.execute(
        "insert into images (key, url, work, title) select 'image/' || i, 'https://example.org/' || i || '.jpg',"
        " 'work' || i / 100, 'An image' from generate_series(1, %s) i",
        [images],
    )
    archive.add_encoder(connection, find_encoder(ENCODER), CHUNK)
    connection.execute(
        "update chunks set not_before = 'infinity' where id in (select id from chunks order by id desc limit %s)",
        [held],
    )
    connection.execute("vacuum analyze images, chunks")


def release(connection: Connection) -> None:
    """Makes the chunks due that `fill` kept back."""
    connection.execute("update chunks set not_before = now() where not_before = 'infinity'")


def wait(connection: Connection) -> None:
    """Waits until no chunk is left that is due."""
    query = "select from chunks where state in ('pending', 'queued', 'running') and not_before < 'infinity' limit 1"
    while connection.execute(query).rowcount:
        time.sleep(0.02)


def check(connection: Connection, kind: str) -> None:
    """Nothing is lost, and nothing was done twice or crashed."""
    counted = books.count_books(connection, ENCODER)
    done = 0 if kind == "nothing" else counted.registered
    assert (counted.open, counted.done, counted.failed) == (0, done, 0), counted
    assert connection.execute("select from chunks where state <> 'done' or crashes > 0").rowcount == 0


def middle_rate(connection: Connection, chunks: int) -> float:
    """Chunks a second of the last `chunks`, between the first tenth and the ninth: the slope of a straight line."""
    rows = connection.execute(
        "select extract(epoch from done_at)::float8 from chunks order by done_at desc limit %s", [chunks]
    ).fetchall()
    times = np.array(sorted(float(str(done)) for (done,) in rows))
    times = times[chunks // 10 : chunks * 9 // 10]
    return float(np.polyfit(times - times[0], np.arange(len(times)), 1)[0])
