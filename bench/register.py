"""What registering costs, from the file to the committed row, and how much memory: JSON lines and S3 Inventory."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.processes import start
from bench.services import fresh_database
from bench.table import median_and_range, print_table
from lookalike import archive
from lookalike.encoders import find_encoder
from lookalike.settings import Settings

ENCODER = "efficientnet-lite0"
CHUNK = 64
ROUNDS = 5
IMAGES = 100_000
MANY = 2_000_000
PAGES = 100
ROW_GROUP = 50_000


def run(settings: Settings) -> None:
    """Sources take turns, each into an archive of its own; the reader is a process of its own."""
    files = {name: make(settings.home / f"register-{IMAGES}", IMAGES) for name, make in KINDS.items()}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in KINDS}
    for _ in range(ROUNDS):
        for name, file in files.items():
            rounds[name].append(register(settings, file, IMAGES))
    print_table(
        f"Registering {IMAGES:,} images, chunks of {CHUNK}, {ROUNDS} rounds: median (range)",
        ("from", "images/s", "per CPU second", "reader, CPU us", "server, CPU us", "reading alone, images/s"),
        [(name, *columns(measured)) for name, measured in rounds.items()],
    )


def columns(measured: list[dict[str, Any]]) -> Iterator[str]:
    yield median_and_range([IMAGES / one["seconds"] for one in measured], 0)
    yield median_and_range([IMAGES / (one["cpu"] + one["server_cpu"]) for one in measured], 0)
    yield median_and_range([1e6 * one["cpu"] / IMAGES for one in measured], 1)
    yield median_and_range([1e6 * one["server_cpu"] / IMAGES for one in measured], 1)
    yield median_and_range([IMAGES / one["reading"] for one in measured], 0)


def run_memory(settings: Settings) -> None:
    """The highest memory of the reading process, of few images and of many."""
    rows = []
    for name, make in KINDS.items():
        peaks = [
            register(settings, make(settings.home / f"register-{count}", count), count)
            for count in (IMAGES, MANY)
        ]
        memory = [f"{one['peak'] / 2**20:.1f} MB" for one in peaks]
        rates = [f"{count / one['seconds']:,.0f}" for count, one in zip((IMAGES, MANY), peaks, strict=True)]
        rows.append((name, f"{peaks[0]['idle'] / 2**20:.1f} MB", *memory, *rates))
    print_table(
        "Memory of the process that reads and registers, and images/s, one round",
        ("from", "idle", *(f"peak, {count:,}" for count in (IMAGES, MANY)), "images/s", "images/s of many"),
        rows,
    )


def register(settings: Settings, source: Path, count: int) -> dict[str, Any]:
    """Registers a source in an empty archive, in a process of its own; what that said of itself."""
    with fresh_database(settings) as (url, connection):
        archive.add_encoder(connection, find_encoder(ENCODER), CHUNK)
        with start("-m", "bench.register_child", url, str(source), str(CHUNK)) as reader:
            answer: dict[str, Any] = reader.read()
        assert answer["new"] == count, answer
        return answer


def write_lines(folder: Path, count: int) -> Path:
    """A table of so many images, with what a catalogue says of them."""
    path = folder / "images.jsonl"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            for number in range(count):
                work, key = name(number)
                row = {
                    "key": key, "url": f"https://iiif.example.org/image/{key}/info.json", "work": work,
                    "title": f"A book, page {number % PAGES}", "licence": "cc-by", "access": "open",
                    "content": f"{number:032x}", "digitised": f"2024-05-{1 + number // 1000 % 30:02}",
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")
    return path


def write_inventory(folder: Path, count: int) -> Path:
    """An S3 Inventory of so many objects in one Parquet file, as S3 writes it; returns its manifest."""
    import pyarrow
    from pyarrow import parquet

    manifest = folder / "manifest.json"
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data.parquet"
    schema = pyarrow.schema(
        [
            ("bucket", pyarrow.string()), ("key", pyarrow.string()), ("size", pyarrow.int64()),
            ("last_modified_date", pyarrow.timestamp("ms")), ("e_tag", pyarrow.string()),
        ]
    )  # fmt: skip
    with parquet.ParquetWriter(data, schema) as writer:
        for first in range(0, count, ROW_GROUP):
            numbers = range(first, min(first + ROW_GROUP, count))
            names = [name(number) for number in numbers]
            writer.write_batch(
                pyarrow.record_batch(
                    [
                        ["scans"] * len(numbers),
                        [f"{work}/{key}" for work, key in names],
                        [5_000_000 + number for number in numbers],
                        pyarrow.array(
                            [1_700_000_000_000 + number for number in numbers], pyarrow.timestamp("ms")
                        ),
                        [f"{number:032x}" for number in numbers],
                    ],
                    schema=schema,
                )
            )
    manifest.write_text(
        json.dumps(
            {
                "sourceBucket": "scans", "destinationBucket": "arn:aws:s3:::inventory", "version": "2016-11-30",
                "creationTimestamp": "1700000000000", "fileFormat": "Parquet",
                "fileSchema": "message s3.inventory { ... }",
                "files": [
                    {
                        "key": data.name, "size": data.stat().st_size,
                        "MD5checksum": hashlib.md5(data.read_bytes()).hexdigest(),
                    }
                ],
            }
        )
    )  # fmt: skip
    return manifest


def name(number: int) -> tuple[str, str]:
    """Work and key of an image; works come in no order, their pages do."""
    work = f"b{number // PAGES * 7919 % 99999989:08}"
    return work, f"{work}_{number % PAGES:04}.jp2"


KINDS: dict[str, Callable[[Path, int], Path]] = {
    "JSON lines": write_lines,
    "S3 Inventory, Parquet": write_inventory,
}
