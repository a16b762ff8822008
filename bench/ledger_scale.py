"""What registering and working off an image costs the ledger as the archive grows: 10 thousand, 1 million, 5 million.

All three archives are open at once and take turns. New works lie among the old ones in the order of keys, as those of
a library do, and not behind them, where a page of the index is always at hand.
"""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.ledger import POLICY, nothing
from bench.services import fresh_database
from bench.table import median_and_range, print_table
from bench.usage import server_seconds
from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.settings import Settings

ENCODER = "efficientnet-lite0"
SIZES = (10_000, 1_000_000, 5_000_000)
CHUNK = 64
BATCH = 2048
BATCHES = 10
PAGES = 100  # of a work
ROUNDS = 5

FILL = """
insert into images (key, url, protocol, work, title, licence, access, content, source, digitised)
select work || '_' || lpad((i %% {pages})::text, 4, '0'),
    'https://iiif.example.org/image/' || work || '_' || lpad((i %% {pages})::text, 4, '0'), 'iiif', work,
    'A book of many pages', 'cc-by', 'open', md5(i::text), 'an old table', date '2020-01-01' + (i / 10000)::integer
from (
    select i, 'b' || lpad((i / {pages} * 7919 %% 99999989)::text, 8, '0') as work
    from generate_series(0, %s - 1) i) as numbered
"""


def run(settings: Settings) -> None:
    """Prints microseconds of an image at each size, on the clock and of CPU, and their ratios to the smallest."""
    costs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        connections = {size: stack.enter_context(fresh_database(settings))[1] for size in SIZES}
        for size, connection in connections.items():
            archive.add_encoder(connection, find_encoder(ENCODER), CHUNK)
            fill(connection, size)
        for number in range(ROUNDS):
            for size, connection in connections.items():
                for name, cost in measure(connection, number).items():
                    costs.setdefault((name, size), []).append(cost)
    for what, title in ((0, "microseconds"), (1, "CPU microseconds, client and server")):
        print_table(
            f"The ledger's {title} of an image, chunks of {CHUNK}, {ROUNDS} rounds: median (range)",
            ("", *(f"{size:,} images" for size in SIZES), "to the smallest"),
            [row(name, [[cost[what] for cost in costs[name, size]] for size in SIZES]) for name in STEPS],
        )


STEPS = ("register", "register again", "lease", "start", "finish")


def row(name: str, by_size: list[list[float]]) -> tuple[str, ...]:
    """A line of the table: each size, and the ratios of the larger ones to the smallest, round by round."""
    smallest, *larger = by_size
    ratios = [[b / a for a, b in zip(smallest, one, strict=True)] for one in larger]
    shown = [median_and_range([1e6 * cost for cost in one], 1) for one in by_size]
    return name, *shown, " / ".join(median_and_range(one) for one in ratios)


def fill(connection: Connection, size: int) -> None:
    """An archive of so many images that are all done, as far as the ledger can tell."""
    connection.execute(FILL.format(pages=PAGES), [size])
    connection.execute(
        "insert into chunks (encoder, lane, state, lo, hi, done_at)"
        " select %s, 'backfill', 'done', lo, lo + %s, now() from generate_series(1, %s, %s) lo",
        [ENCODER, CHUNK - 1, size, CHUNK],
    )
    connection.execute("vacuum analyze images, chunks")
    connection.execute("checkpoint")


def measure(connection: Connection, number: int) -> dict[str, tuple[float, float]]:
    """Seconds, and CPU seconds, of an image for each step, over the same new images."""
    images = new_images(number)
    costs: dict[str, tuple[float, float]] = {}
    for name in STEPS[:2]:
        with timing(connection, costs, name):
            for start in range(0, len(images), BATCH):
                ledger.register(connection, images[start : start + BATCH], "backfill", CHUNK)
    chunks = BATCH * BATCHES // CHUNK
    with timing(connection, costs, "lease"):
        claims = []
        # As the orchestrator leases: a few at a time.
        while len(claims) < chunks:
            claims += ledger.lease(connection, ENCODER, "backfill", 10**6, 600)
    with timing(connection, costs, "start"):
        started = [ledger.start(connection, claim, "bench", 600) for claim in claims]
    with timing(connection, costs, "finish"):
        for chunk in started:
            assert chunk is not None
            assert len(chunk.images) == CHUNK
            ledger.finish(connection, chunk, nothing(), [], POLICY)
    return {name: (seconds / len(images), cpu / len(images)) for name, (seconds, cpu) in costs.items()}


@contextmanager
def timing(connection: Connection, costs: dict[str, tuple[float, float]], name: str) -> Iterator[None]:
    """Notes what the block takes: seconds, and CPU seconds of this thread and the connection's server process."""
    since, used = time.perf_counter(), time.thread_time() + server_seconds(connection)
    yield
    spent = time.thread_time() + server_seconds(connection) - used
    costs[name] = (time.perf_counter() - since, spent)


def new_images(number: int) -> list[Image]:
    """Images of this round: works that were not there, anywhere among the others."""
    chosen = random.Random(number)
    works = [f"b{chosen.randrange(99999989):08}n{number}" for _ in range(-(-BATCH * BATCHES // PAGES))]
    pages = [(work, f"{work}_{page:04}.jp2") for work in works for page in range(PAGES)]
    return [
        Image(
            key, f"https://iiif.example.org/image/{key}", "iiif", work, "A book of many pages", "cc-by", "open",
            key, "a new table", "2024-05-06",
        )
        for work, key in pages[: BATCH * BATCHES]
    ]  # fmt: skip
