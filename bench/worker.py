"""A worker end to end, over real HTTP, Celery and Postgres, against the bare forward pass of its encoder.

Both run in processes of their own with the same allocator settings, and take turns: the worker stands idle while the
encoder is measured, and the other way round.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.pictures import write_small
from bench.processes import Child, child, server, start
from bench.services import fresh_database
from bench.table import median_and_range, print_table
from bench.usage import GROUPS
from lookalike import archive, books, ledger, services
from lookalike.database import connect
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.queue import Broker, make_app
from lookalike.settings import Settings
from orchestrator import dispatch

ENCODER = "efficientnet-lite0"
PICTURES = 256
IMAGES = 768
IMAGES_FOR_SEVERAL = 512
ROUNDS = 5
LATENCY = 0.05
CHUNK = 64


def run(settings: Settings) -> None:
    """Prints images/s of both, their ratio, and what the worker's CPU time went to."""
    folder = settings.home / write_small.__name__
    names = write_small(folder, PICTURES)
    with (
        fresh_database(settings) as (url, connection),
        server(folder, LATENCY) as address,
        child("encoder") as bare,
        worker_process(settings, url) as worker,
        dispatching(settings, url),
    ):
        archive.add_encoder(connection, find_encoder(ENCODER), CHUNK)
        embed(connection, address, names, IMAGES, "warm-up")
        bare.ask(64)
        rounds = []
        for number in range(ROUNDS):
            encoder = bare.ask(IMAGES)
            before = worker.ask(None)
            rate = embed(connection, address, names, IMAGES, str(number))
            rounds.append((rate, encoder, before, worker.ask(None)))
    print_rates(rounds)
    print_shares(rounds)


def print_rates(rounds: list[Any]) -> None:
    """Images per second of both, their ratio, and how full the worker's batches were."""
    passes = [after["passes"] - before["passes"] for _, _, before, after in rounds]
    sizes = [IMAGES / count for count in passes]
    print_table(
        f"Worker end to end, {ENCODER}, 400-px JPEG over HTTP with 50 ms latency, images/s, {ROUNDS} rounds:"
        " median (range)",
        ("worker", "bare encoder, all cores", "ratio", "images in a pass"),
        [
            (
                median_and_range([rate for rate, *_ in rounds], 1),
                median_and_range([encoder["rate"] for _, encoder, *_ in rounds], 1),
                median_and_range([rate / encoder["rate"] for rate, encoder, *_ in rounds]),
                median_and_range(sizes, 1),
            )
        ],
    )


def print_shares(rounds: list[Any]) -> None:
    """CPU milliseconds of an image by threads, and the ratio that they allow where model and the rest share cores."""
    groups = (*GROUPS, "rest")
    used = {
        group: [
            1000 * (after["cpu"][group] - before["cpu"][group]) / IMAGES for _, _, before, after in rounds
        ]
        for group in groups
    }
    bare = [1000 * encoder["cpu"] for _, encoder, *_ in rounds]
    totals = [sum(parts) for parts in zip(*used.values(), strict=True)]
    print_table(
        "The worker's CPU milliseconds of an image, by threads: median (range)",
        (*groups, "in all", "bare encoder", "bare / in all"),
        [
            (
                *(median_and_range(used[group], 1) for group in groups),
                median_and_range(totals, 1),
                median_and_range(bare, 1),
                median_and_range([one / total for one, total in zip(bare, totals, strict=True)]),
            )
        ],
    )


@contextmanager
def worker_process(settings: Settings, database_url: str) -> Iterator[Child]:
    """A worker as operators start it, but for its ear for questions."""
    with start(
        "-m",
        "bench.worker_child",
        log=settings.home / "worker.log",
        DATABASE_URL=database_url,
        BROKER_URL=services.up(settings).broker_url,
        LOOKALIKE_HOME=str(settings.home),
    ) as worker:
        yield worker


@contextmanager
def dispatching(settings: Settings, database_url: str) -> Iterator[None]:
    """An orchestrator in a thread."""
    stop = threading.Event()
    broker_url = services.up(settings).broker_url
    thread = threading.Thread(
        target=dispatch.run,
        args=(
            settings,
            lambda: connect(database_url, application_name="bench orchestrator"),
            make_app(broker_url, ENCODER),
            Broker(broker_url),
            stop,
        ),
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def embed(connection: ledger.Connection, address: str, names: list[str], count: int, prefix: str) -> float:
    """Registers so many pictures under new keys and waits until they are embedded; images per second of all that."""
    since = time.perf_counter()
    images = [
        Image(f"{prefix}/{number}", f"{address}/{names[number % len(names)]}") for number in range(count)
    ]
    ledger.register(connection, images, chunk_size=CHUNK)
    while not books.is_finished(connection, ENCODER):
        time.sleep(0.05)
    rate = count / (time.perf_counter() - since)
    counted = books.count_books(connection, ENCODER)
    assert counted.failed == 0, books.count_reasons(connection, ENCODER)
    return rate


def run_several(settings: Settings) -> None:
    """Prints images/s of one, two and four workers that share a machine, a broker and a database."""
    folder = settings.home / write_small.__name__
    names = write_small(folder, PICTURES)
    rates: dict[int, list[float]] = {1: [], 2: [], 4: []}
    with server(folder, LATENCY) as address:
        for _ in range(ROUNDS):
            for count, measured in rates.items():
                measured.append(several(settings, address, names, count))
    ratios = {
        count: [many / one for many, one in zip(measured, rates[1], strict=True)]
        for count, measured in rates.items()
    }
    print_table(
        f"Worker processes that share one machine and one broker, images/s of all, {ROUNDS} rounds: median (range)",
        ("workers", "images/s", "to one"),
        [(str(count), median_and_range(rates[count], 1), median_and_range(ratios[count])) for count in rates],
    )


def several(settings: Settings, address: str, names: list[str], count: int) -> float:
    """Images per second of so many fresh workers, once all have begun to work."""
    with fresh_database(settings) as (url, connection), ExitStack() as stack:
        workers = [stack.enter_context(worker_process(settings, url)) for _ in range(count)]
        stack.enter_context(dispatching(settings, url))
        archive.add_encoder(connection, find_encoder(ENCODER), CHUNK)
        number = 0
        while any(not worker.ask(None)["images"] for worker in workers):
            embed(connection, address, names, CHUNK * 2 * count, f"warm-up {number}")
            number += 1
        return embed(connection, address, names, IMAGES_FOR_SEVERAL, "measured")
