"""What a backfill would take, by arithmetic from what one machine was measured to do. It measures nothing itself.

A stage can be as fast as its threads allow, and all that run on the processor share its cores: a worker is as fast as
the slowest of these. What was measured on a sample is taken to hold for all images.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lookalike.index import estimate_rows
from lookalike.limits import SENTENCES

# add_encoder makes so many partitions.
PARTITIONS = 8
# What is counted for one row, in bytes. PostgreSQL 18, src/include: htup_details.h, itemid.h, bufpage.h, heaptoast.h.
_PAGE = 8192
_ROOM = _PAGE - 24
_HEADER, _POINTER = 24, 4
_CHUNK = 1996
_LEAF_FILL = 0.9
# Rows that are laid out to know the mean.
_MANY = 400
# A row up to here stays in its page, as add_encoder decides.
_INLINE = 1900
# Of the feeding of a GPU that is fast.
GPU_RATE = 1000


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stage takes for one image: `cpu` seconds of one core of the worker's machine, and `seconds` of the stage
    as a whole, with all its threads busy; 0 where nothing but the cores limits it."""

    cpu: float
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a sample showed, for one image of it.

    `seen` images were tried, `embedded` have a vector. `read` and `register` are seconds of the orchestrator. `encode`
    is of the `device`. `bytes_fetched` is the mean over all that were tried. `archive_bytes` are those of its rows in
    `images` and `labels` with their indexes, `log_bytes` those of Postgres' write-ahead log. `database` is the seconds
    of one connection to store an image.
    """

    seen: int
    embedded: int
    cores: int
    device: str
    read: float
    register: float
    fetch: Cost
    decode: Cost
    encode: Cost
    store: Cost
    database: float
    bytes_fetched: float
    archive_bytes: float
    log_bytes: float
    dimension: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a worker is. `limit` is the stage that the others wait for, `sentence` says it to people.

    `stages` has images a second: what each stage could do had it the machine to itself, and under "cores" what all do
    that share its cores.
    """

    images_per_second: float
    limit: str
    sentence: str
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes: fetched, of the table of vectors and its keys, of its index, of images and labels, of write-ahead log."""

    fetched: int
    vectors: int
    index: int
    archive: int
    log: int

    @property
    def stored(self) -> int:
        """What the database is larger by in the end."""
        return self.vectors + self.index + self.archive


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a backfill takes.

    `worker` is the worker that was measured. `gpu_worker` is the same where it has a GPU, otherwise the most that the
    fastest of GPUs could reach on this machine. `gpu_cores`
    feed a GPU of `GPU_RATE` images a second. `register_hours` is what the orchestrator needs to read and register all.
    `ceilings` are images a second that no number of workers exceeds. The index is built in `index_core_hours`, with
    `index_memory` bytes for one of its partitions at a time.
    """

    images: int
    vectors: int
    worker: Pace
    gpu_worker: Pace
    gpu_measured: bool
    gpu_cores: float
    register_hours: float
    ceilings: Mapping[str, float]
    sizes: Sizes
    index_memory: int
    index_core_hours: float

    def hours(self, pace: Pace, workers: int) -> float:
        """Hours that so many workers take, each on a machine of its own like this one."""
        return self.images / min(workers * pace.images_per_second, *self.ceilings.values()) / 3600

    def useful_workers(self, pace: Pace) -> int:
        """So many workers reach a ceiling; more only wait for it."""
        return max(1, math.ceil(min(self.ceilings.values()) / pace.images_per_second))


def plan(measured: Measured, images: int, hosts: Mapping[str, float] | None = None) -> Capacity:
    """What embedding so many images takes, when they are as those of the sample.

    `hosts` are images a second that the limits of hosts allow in all, by what is said of them.
    """
    vectors = round(images * measured.embedded / measured.seen)
    on_gpu = measured.device != "cpu"
    worker = find_pace(measured)
    index = estimate_rows(vectors, math.ceil(vectors / PARTITIONS), measured.dimension)
    sizes = Sizes(
        fetched=round(images * measured.bytes_fetched),
        vectors=round(vectors * vector_bytes(measured.dimension)),
        index=index.disk_bytes,
        archive=round(images * measured.archive_bytes),
        # An index that is built writes itself to the log once.
        log=round(images * measured.log_bytes) + index.disk_bytes,
    )
    return Capacity(
        images=images,
        vectors=vectors,
        worker=worker,
        gpu_worker=worker if on_gpu else find_pace(measured, boundless=True),
        gpu_measured=on_gpu,
        gpu_cores=GPU_RATE * (measured.fetch.cpu + measured.decode.cpu + measured.store.cpu),
        register_hours=images * (measured.read + measured.register) / 3600,
        ceilings={
            "database": 1 / measured.database,
            "orchestrator": 1 / (measured.read + measured.register),
            **(hosts or {}),
        },
        sizes=sizes,
        index_memory=index.memory_bytes,
        index_core_hours=index.core_seconds / 3600,
    )


def find_pace(measured: Measured, *, boundless: bool = False) -> Pace:
    """How fast a worker like the measured one is, or one beside a `boundless` GPU, which takes no time at all."""
    encode = Cost(0.0) if boundless else measured.encode
    costs = {"fetch": measured.fetch, "decode": measured.decode, "encode": encode, "store": measured.store}
    seconds = {name: max(cost.seconds, cost.cpu / measured.cores) for name, cost in costs.items()}
    stages = {name: 1 / spent for name, spent in seconds.items() if spent}
    stages["cores"] = measured.cores / sum(cost.cpu for cost in costs.values())
    slowest = min(stages, key=stages.__getitem__)
    if slowest != "cores":
        return Pace(stages[slowest], slowest, SENTENCES[slowest], stages)
    # What takes most of the cores is what the others wait for.
    limit = max(costs, key=lambda name: costs[name].cpu)
    return Pace(stages["cores"], limit, f"{SENTENCES[limit]} (the stages share the cores)", stages)


def vector_bytes(dimension: int) -> float:
    """Bytes of a row in an encoder's table with its key, and its part beside the table where it has one.

    By the layout of rows in pages: 3,080 for 1,280 dimensions, where 3,091 were measured (bench/README.md).
    """
    code = 8 + math.ceil(dimension / 8)
    # image_id, revision, checksum, and stored_at where 8 divides its place.
    fixed = 56
    vector = 8 + 2 * dimension
    key = _index_entry(8 + 12)
    if 2 * dimension + dimension / 8 < _INLINE:
        return _heap_row(_HEADER + _aligned(fixed + _aligned(code, 4) + vector)) + key
    inside = _heap_row(_HEADER + _aligned(fixed + code + 18))
    whole, rest = divmod(vector - 4, _CHUNK)
    pieces = [_HEADER + _aligned(12 + piece) for piece in [_CHUNK] * whole + [rest] * bool(rest)]
    return inside + _heap_pages(pieces * _MANY) / _MANY + key + len(pieces) * _index_entry(8 + 8)


def _heap_row(length: int) -> float:
    """A row's share of a page that is full of such rows."""
    return _heap_pages([length] * _MANY) / _MANY


def _heap_pages(lengths: list[int]) -> int:
    """Bytes of the pages that these rows fill: each goes where the last one went, else wherever there is room."""
    free, page = [_ROOM], 0
    for length in lengths:
        needed = length + _POINTER
        if free[page] < needed:
            page = next((number for number, room in enumerate(free) if room >= needed), len(free))
            if page == len(free):
                free.append(_ROOM)
        free[page] -= needed
    return len(free) * _PAGE


def _index_entry(length: int) -> float:
    return (_aligned(length) + _POINTER) / _LEAF_FILL


def _aligned(length: int, to: int = 8) -> int:
    return -(-length // to) * to
