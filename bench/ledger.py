"""What the ledger costs: registering images, and leasing and finishing chunks, in a small and a large archive."""

import time

import numpy as np

from bench.services import fresh_database
from bench.table import median_and_range, print_table
from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.ledger import RetryPolicy
from lookalike.settings import Settings
from lookalike.vectors import Vectors

ENCODER = "efficientnet-lite0"
CHUNK = 256
BATCH = 2048
ROUNDS = 5
IMAGES = 40 * CHUNK
SIZES = (10_000, 5_000_000)
POLICY = RetryPolicy(5, 2)


def run(settings: Settings) -> None:
    """Both archives are open at once and take turns, round by round."""
    with fresh_database(settings) as (_, small), fresh_database(settings) as (_, large):
        connections = dict(zip(SIZES, (small, large), strict=True))
        for size, connection in connections.items():
            archive.add_encoder(connection, find_encoder(ENCODER), CHUNK)
            fill(connection, size)
        rates: dict[tuple[str, int], list[float]] = {}
        for number in range(ROUNDS):
            for size, connection in connections.items():
                for name, rate in measure(connection, number).items():
                    rates.setdefault((name, size), []).append(rate)
    rows = []
    for name in ("register", "lease + finish", "lease + start + finish"):
        here, there = (rates[name, size] for size in SIZES)
        ratio = [b / a for a, b in zip(here, there, strict=True)]
        rows.append((name, median_and_range(here, 0), median_and_range(there, 0), median_and_range(ratio)))
    print_table(
        f"Ledger, images/s, chunks of {CHUNK}, {ROUNDS} rounds: median (range)",
        ("", *(f"{size:,} images" for size in SIZES), "large / small"),
        rows,
    )


def fill(connection: Connection, size: int) -> None:
    """An archive of so many images that are all done, as far as the ledger can tell."""
    connection.execute(
        "insert into images (key, url, work, title) select 'old/' || i, 'https://example.org/' || i || '.jpg',"
        " 'work' || i / 100, 'An old image' from generate_series(1, %s) i",
        [size],
    )
    connection.execute(
        "insert into chunks (encoder, lane, state, lo, hi, done_at)"
        " select %s, 'backfill', 'done', lo, lo + %s, now() from generate_series(1, %s, %s) lo",
        [ENCODER, CHUNK - 1, size, CHUNK],
    )
    connection.execute("vacuum analyze images, chunks")


def measure(connection: Connection, number: int) -> dict[str, float]:
    """Images per second of each step, over `IMAGES` new images."""
    images = [
        Image(
            f"new/{number}/{i:08}", f"https://example.org/{number}/{i}.jpg", work=f"w{i // 100}", title="New"
        )
        for i in range(IMAGES)
    ]
    rates = {}
    since = time.perf_counter()
    for start in range(0, IMAGES, BATCH):
        ledger.register(connection, images[start : start + BATCH], "backfill", CHUNK)
    rates["register"] = IMAGES / (time.perf_counter() - since)

    half = IMAGES // CHUNK // 2
    since = time.perf_counter()
    claims = ledger.lease(connection, ENCODER, "backfill", 10**6, 600, batch=half)
    # As if started, without reading the images: the price of the ledger alone.
    connection.execute(
        "update chunks set state = 'running', worker = 'bench' where id = any(%s)",
        [[c.chunk for c in claims]],
    )
    for claim in claims:
        ledger.finish(connection, ledger.Chunk(claim, ENCODER, "backfill", 0, []), nothing(), [], POLICY)
    rates["lease + finish"] = half * CHUNK / (time.perf_counter() - since)

    since = time.perf_counter()
    for claim in ledger.lease(connection, ENCODER, "backfill", 10**6, 600, batch=half):
        chunk = ledger.start(connection, claim, "bench", 600)
        assert chunk is not None
        assert len(chunk.images) == CHUNK
        ledger.finish(connection, chunk, nothing(), [], POLICY)
    rates["lease + start + finish"] = half * CHUNK / (time.perf_counter() - since)
    return rates


def nothing() -> Vectors:
    """No vectors."""
    return Vectors(
        np.empty(0, np.int64), np.empty(0, np.int32), np.empty((0, 32), np.uint8), np.empty((0, 160), np.uint8),
        np.empty((0, 1280), np.float32),
    )  # fmt: skip
