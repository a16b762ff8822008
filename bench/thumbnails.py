"""What a thumbnail costs a worker: decoding with one against decoding without, and storing it. CPU time, in turns."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.pictures import write_medium, write_scans, write_small
from bench.services import fresh_database
from bench.table import median_and_range, print_table
from bench.usage import server_seconds
from lookalike import archive, ledger
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.settings import Settings
from lookalike.thumbnails import Cache, Thumbnail
from workers.decode import decode

ENCODER = "efficientnet-lite0"
ROUNDS = 7
CHUNK = 64
SETS: tuple[tuple[str, Callable[[Path, int], list[str]], int], ...] = (
    ("400 x 400 px, as an image service gives them", write_small, 64),
    ("2,000 x 1,500 px", write_medium, 32),
    ("6,000 x 4,000 px, baseline JPEG", lambda folder, count: write_scans(folder, "baseline", count), 6),
)


def run(settings: Settings) -> None:
    """Prints milliseconds and ratios, sizes, and what storing costs."""
    rows, made = [], list[bytes]()
    for number, (name, write, count) in enumerate(SETS):
        folder = settings.home / f"thumbnails-{number}"
        files = [(folder / one).read_bytes() for one in write(folder, count)]
        look(files, thumbnail=True)
        rounds = [(look(files, thumbnail=False)[0], look(files, thumbnail=True)[0]) for _ in range(ROUNDS)]
        _, jpegs = look(files, thumbnail=True)
        made += jpegs
        rows.append(
            (
                name,
                *(median_and_range([one[side] * 1000 for one in rounds]) for side in (0, 1)),
                median_and_range([with_it / without for without, with_it in rounds]),
                f"{statistics.mean(len(one) for one in jpegs) / 1000:.1f}",
            )
        )
    print_table(
        f"Decoding one image, CPU milliseconds, {ROUNDS} rounds: median (range)",
        ("", "without", "with a thumbnail", "ratio", "kB"),
        rows,
    )
    store(settings, made)


def look(files: list[bytes], thumbnail: bool) -> tuple[float, list[bytes]]:
    """CPU seconds of an image, and the thumbnails."""
    preprocessing = find_encoder(ENCODER).preprocessing
    out = np.empty((preprocessing.crop, preprocessing.crop, 3), np.uint8)
    since = time.thread_time()
    seen = [decode(file, preprocessing, out, 200_000_000, thumbnail=thumbnail) for file in files]
    seconds = (time.thread_time() - since) / len(files)
    return seconds, [one.thumbnail for one in seen if one.thumbnail is not None]


def store(settings: Settings, jpegs: list[bytes]) -> None:
    """What it costs to ask which are wanted and to store a chunk of them in the database."""
    with fresh_database(settings) as (_, connection):
        archive.add_encoder(connection, find_encoder(ENCODER), CHUNK)
        images = [Image(f"image/{n}", f"/scans/{n}.tif") for n in range(CHUNK * 50)]
        ledger.register(connection, images)
        ids = [int(str(row[0])) for row in connection.execute("select id from images order by id")]
        cache = Cache(None, local=False)
        clients, servers, walls = [], [], []
        for start in range(0, len(ids), CHUNK):
            some = ids[start : start + CHUNK]
            chunk = [ledger.ChunkImage(one, "", "/scans", "file", 1) for one in some]
            before = time.thread_time(), server_seconds(connection), time.perf_counter()
            wanted = cache.wanted(connection, chunk)
            made = [Thumbnail(one, 1, jpegs[one % len(jpegs)]) for one in some if one in wanted]
            assert cache.store(connection, made) == CHUNK
            clients.append((time.thread_time() - before[0]) / CHUNK * 1000)
            servers.append((server_seconds(connection) - before[1]) / CHUNK * 1000)
            walls.append((time.perf_counter() - before[2]) / CHUNK * 1000)
    print_table(
        f"Storing one thumbnail, chunks of {CHUNK}, milliseconds: median (range)",
        ("", "worker's CPU", "Postgres' CPU", "wall clock"),
        [("in the database", *(median_and_range(one) for one in (clients, servers, walls)))],
    )
