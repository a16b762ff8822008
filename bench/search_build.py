"""What storing costs with and without the index, what building it takes, and the plan for 40 million from these."""

import os
import statistics
import time

import numpy as np

from bench.search_archive import (
    Loaded,
    build,
    bytes_per_image,
    calibration_of,
    copy_archive,
    open_archive,
    reconnect,
    register,
    store,
)
from bench.search_data import BLOCK, Mixture
from bench.table import median_and_range, print_table
from lookalike import index
from lookalike.database import Connection
from lookalike.settings import Settings

DIMENSION = 1280
ROUNDS = 5
# Images in a transaction, as a worker's chunk holds, and chunks in a round.
CHUNK = 250
CHUNKS = 8
PLANNED = 40_000_000
# Of the machine that the plan is for.
CORES = 16


def run(settings: Settings) -> None:
    """Rounds of storing take turns between a copy of the archive with its index and one without."""
    with open_archive(settings, DIMENSION) as (loaded, _):
        pass
    with (
        copy_archive(settings, loaded, "indexed") as with_index,
        copy_archive(settings, loaded, "bare") as without,
    ):
        with reconnect(without) as connection:
            index.drop(connection, loaded.encoder)
        with reconnect(with_index) as connection:
            table_bytes, index_bytes = bytes_per_image(connection, with_index)
            per_partition = index.estimate(connection, loaded.encoder)
        rates = measure_storing(with_index, without)
        with reconnect(with_index) as connection:
            index.drop(connection, loaded.encoder)
        seconds = build(with_index)
    bare, indexed = rates["without"], rates["with"]
    ratios = [a / b for a, b in zip(indexed, bare, strict=True)]
    print_table(
        f"Storing into {loaded.rows:,} x {DIMENSION:,}, rows/s, {CHUNK} in a transaction, {ROUNDS} rounds",
        ("without index", "with index", "ratio"),
        [(median_and_range(bare, 0), median_and_range(indexed, 0), median_and_range(ratios))],
    )
    core_ms = 1000 * seconds * (os.cpu_count() or 1) / (loaded.rows + ROUNDS * CHUNK * CHUNKS)
    print_table(
        f"The index on the codes of {loaded.rows:,} x {DIMENSION:,}",
        ("build seconds", "core-ms an image", "table B an image", "index B an image", "graph MB a partition"),
        [
            (
                f"{seconds:,.0f}",
                f"{core_ms:.2f}",
                f"{table_bytes:,.0f}",
                f"{index_bytes:,.0f}",
                f"{per_partition.memory_bytes / 2**20:,.0f}",
            )
        ],
    )
    print_plan(table_bytes, index_bytes, core_ms, statistics.median(bare), statistics.median(indexed))


def measure_storing(with_index: Loaded, without: Loaded) -> dict[str, list[float]]:
    """Rows per second of each round, by side."""
    rates: dict[str, list[float]] = {"without": [], "with": []}
    with reconnect(with_index) as one, reconnect(without) as other:
        for number in range(ROUNDS):
            for name, connection, archive in (("without", other, without), ("with", one, with_index)):
                rates[name].append(storing_rate(connection, archive, number))
    return rates


def storing_rate(connection: Connection, archive: Loaded, number: int) -> float:
    """Rows per second of storing vectors that the archive does not have yet; registered before the clock starts."""
    count = CHUNK * CHUNKS
    ids = register(connection, archive.rows + number * count, count)
    vectors = Mixture(archive.dimension).make(BLOCK, 2 * 10**6 + number)
    codes = calibration_of(connection, archive).codes(vectors)
    since = time.perf_counter()
    for part in np.array_split(np.arange(count), CHUNKS):
        store(connection, archive, ids[part], codes[part], vectors[part])
    return count / (time.perf_counter() - since)


def print_plan(table_bytes: float, index_bytes: float, core_ms: float, bare: float, indexed: float) -> None:
    """The arithmetic for an archive of 40 million images, from the figures of one image."""
    gigabyte = 10**9
    graph = (index.GRAPH_BYTES + index.GRAPH_BYTES_PER_BIT * DIMENSION) * PLANNED / 8 * index.HEADROOM
    hours = core_ms / 1000 * PLANNED / 3600
    rows = [
        ("table", f"{table_bytes:,.0f} B x 40 M", f"{table_bytes * PLANNED / gigabyte:,.0f} GB"),
        ("index", f"{index_bytes:,.0f} B x 40 M", f"{index_bytes * PLANNED / gigabyte:,.0f} GB"),
        (
            "memory to build one of 8 partitions",
            f"{graph / PLANNED * 8:,.0f} B x 5 M",
            f"{graph / gigabyte:.1f} GB",
        ),
        ("build, one core", f"{core_ms:.2f} ms x 40 M", f"{hours:,.1f} h"),
        (f"build, {CORES} cores", f"{hours:,.1f} h / {CORES}, at best", f"{hours / CORES:,.1f} h"),
        ("load, one connection", f"40 M / {bare:,.0f} per s", f"{PLANNED / bare / 3600:,.1f} h"),
        (
            "load with the index in place",
            f"40 M / {indexed:,.0f} per s",
            f"{PLANNED / indexed / 3600:,.1f} h",
        ),
        ("10,000 new images a day", f"10,000 / {indexed:,.0f} per s", f"{10_000 / indexed:,.0f} s"),
    ]
    print_table(
        f"40 million images of {DIMENSION:,} dimensions, from the above", ("", "arithmetic", ""), rows
    )
