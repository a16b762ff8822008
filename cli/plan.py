"""`lookalike plan`: what a backfill would take, measured on a sample and worked out for all. It registers nothing."""

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from cli import output
from cli.session import Session
from lookalike import archive
from lookalike.calibration import make_calibration
from lookalike.capacity import GPU_RATE, Capacity, Cost, Measured, Pace, plan
from lookalike.encoders import find_encoder
from lookalike.errors import SourceError
from lookalike.hosts import host_of
from lookalike.images import Image
from lookalike.settings import Settings
from lookalike.trial import DatabaseTrial, try_database
from orchestrator.sampling import Sample, sample_evenly, sample_first
from workers.gate import requests_for
from workers.network import Encoder, load_encoder
from workers.network.runtime import available_cores
from workers.pipeline import chunk_threads
from workers.trial import StageTrial, try_stages

# More machines than that nobody compares.
MOST_WORKERS = 64
COLUMNS = 100


def plan_sources(
    session: Session, sources: Sequence[str], size: int, total: int | None, as_json: bool
) -> None:
    """Measures on `size` images of the sources and prints what all of them, or `total`, would take."""
    settings = session.settings
    spec = find_encoder(settings.encoder)
    with _progress(as_json) as progress:
        sample = _read(progress, settings, sources, size, total)
        if not sample.images:
            raise SourceError("the sources hold no images: `lookalike add --dry-run` lists what they hold")
        task = progress.add_task(f"loading {spec.name}", total=len(sample.images))
        encoder = load_encoder(spec.name, settings)
        with session.connect() as connection:
            added = archive.is_added(connection, spec.name)
            calibration = (
                archive.load_calibration(connection, spec.name)
                if added
                else make_calibration(spec.name, spec.dimension)
            )
            progress.update(task, description="fetching, decoding and encoding the sample")
            stages = try_stages(
                sample.images, settings, encoder, calibration, lambda n: progress.advance(task, n)
            )
            if not len(stages.vectors):
                raise SourceError(f"no image of the sample could be embedded: {_counts(stages.failures)}")
            task = progress.add_task("registering and storing, to be undone", total=1.0)
            database = try_database(
                connection,
                spec,
                sample.images,
                stages.vectors,
                settings.chunk_size,
                lambda share: progress.update(task, completed=share),
            )
    measured = _measured(settings, encoder, sample, stages, database)
    capacity = plan(measured, total or sample.announced, host_ceilings(settings, sample.images))
    if as_json:
        output.print_json(_document(settings, sample, total, stages, measured, capacity))
    else:
        _print_sample(sample, total, stages)
        _print_measured(settings, measured, capacity)
        _print_hours(capacity)
        _print_sizes(capacity)


def host_ceilings(settings: Settings, images: Sequence[Image]) -> dict[str, float]:
    """Images a second, of all hosts together, that the rate of each host allows which has one.

    A host with a tenth of the images is asked for a tenth of them; an image service takes two requests for each.
    """
    requests: Counter[str] = Counter()
    for image in images:
        requests[host_of(image.url)] += requests_for(image.protocol)
    rates = {
        host: settings.hosts[host].rate if host in settings.hosts else settings.host_rate for host in requests
    }
    return {
        f"host {host}": rates[host] * len(images) / requests[host]
        for host in requests
        if host and rates[host]
    }


def _read(
    progress: Progress, settings: Settings, sources: Sequence[str], size: int, total: int | None
) -> Sample:
    task = progress.add_task("reading the sources", total=None)
    read = sample_evenly if total is None else sample_first
    sample = read(
        sources,
        settings,
        size,
        lambda so_far: progress.update(task, description=f"{so_far.announced:,} images read"),
    )
    progress.update(task, total=1, completed=1, description=f"{sample.announced:,} images read")
    return sample


def _measured(
    settings: Settings, encoder: Encoder, sample: Sample, stages: StageTrial, database: DatabaseTrial
) -> Measured:
    """Puts the trials together, each cost for one image of the sample, whatever became of it."""
    share = len(stages.vectors) / len(sample.images)
    store = database.store_seconds * share
    # The embedded database works on the same cores; another one only has this process wait.
    cpu = stages.settle.cpu + (store if settings.database_url is None else database.store_cpu * share)
    return Measured(
        seen=len(sample.images),
        embedded=len(stages.vectors),
        cores=available_cores(),
        device=encoder.device,
        read=sample.seconds_per_image,
        register=database.register_seconds,
        fetch=stages.fetch,
        decode=stages.decode,
        encode=stages.encode,
        store=Cost(cpu, (stages.settle.cpu + store) / chunk_threads(settings, encoder.device)),
        database=store,
        bytes_fetched=stages.bytes_fetched,
        archive_bytes=database.archive_bytes,
        log_bytes=database.log_bytes,
        dimension=encoder.spec.dimension,
    )


# What programs read ---------------------------------------------------------------------------------------------------


def _document(
    settings: Settings,
    sample: Sample,
    total: int | None,
    stages: StageTrial,
    measured: Measured,
    capacity: Capacity,
) -> dict[str, Any]:
    return {
        "encoder": settings.encoder,
        "images": capacity.images,
        "images_are": "counted" if total is None else "given",
        "vectors": capacity.vectors,
        "refused": dict(sample.refused),
        "removals": sample.removals,
        "sample": {
            "images": measured.seen,
            "embedded": measured.embedded,
            "failures": stages.failures,
            "of": "all, evenly" if total is None else "the first images",
        },
        "measured": asdict(measured),
        "worker": _pace_document(capacity, capacity.worker),
        "gpu_worker": {
            **_pace_document(capacity, capacity.gpu_worker),
            "measured": capacity.gpu_measured,
            "cores_for_1000_per_second": capacity.gpu_cores,
        },
        "register_hours": capacity.register_hours,
        "ceilings": dict(capacity.ceilings),
        "bytes": {**asdict(capacity.sizes), "stored": capacity.sizes.stored},
        "index": {"memory_bytes": capacity.index_memory, "core_hours": capacity.index_core_hours},
    }


def _pace_document(capacity: Capacity, pace: Pace) -> dict[str, Any]:
    hours = {str(count): capacity.hours(pace, count) for count in _worker_counts(capacity, pace)}
    return {**asdict(pace), "hours": hours}


# What people read -----------------------------------------------------------------------------------------------------


def _print_sample(sample: Sample, total: int | None, stages: StageTrial) -> None:
    if total is None:
        print(f"{sample.announced:,} images, measured on {len(sample.images):,} of them, chosen evenly.")
    else:
        _say(
            f"{total:,} images, as you say; measured on the first {len(sample.images):,}, which may not be typical."
        )
    if sample.refused:
        _say(f"{sample.refused.total():,} records refused: {_counts(sample.refused)}.")
    if stages.failures:
        share = sum(stages.failures.values()) / len(sample.images)
        _say(f"{share:.1%} of the sample failed: {_counts(stages.failures)}.")


def _print_measured(settings: Settings, measured: Measured, capacity: Capacity) -> None:
    rates = capacity.worker.stages
    threads = chunk_threads(settings, measured.device)
    remarks = {
        "fetch": f"{settings.fetch_threads} at once, {_size(measured.bytes_fetched)} an image",
        "encode": f"{settings.encoder} on {measured.device}",
        "store": f"{threads} chunks at once; on one connection {capacity.ceilings['database']:,.0f}",
        "cores": f"what {measured.cores} cores do when they are shared",
    }
    rows = [
        (
            stage,
            "" if stage == "cores" else f"{1000 * getattr(measured, stage).cpu:.2f}",
            f"{rates[stage]:,.0f}",
            remarks.get(stage, ""),
        )
        for stage in ("fetch", "decode", "encode", "store", "cores")
    ]
    rate = f"{capacity.ceilings['orchestrator']:,.0f}"
    rows.insert(0, ("register", "", rate, "by one orchestrator, reading included"))
    print("\nMeasured on this machine:")
    output.print_table("", ("", "CPU ms an image", "images/s", ""), rows)
    worker = capacity.worker
    _say(f"One worker: {worker.images_per_second:,.1f} images/s. Its limit is {worker.sentence}.")


def _print_hours(capacity: Capacity) -> None:
    paces = {"a GPU each" if capacity.gpu_measured else "like this one": capacity.worker}
    if not capacity.gpu_measured:
        paces["the fastest of GPUs *"] = capacity.gpu_worker
    rows = [
        (str(count), *(_duration(capacity.hours(pace, count)) for pace in paces.values()))
        for count in _worker_counts(capacity, capacity.worker)
    ]
    print(f"\nBy arithmetic, the time of a backfill if all {capacity.images:,} images are like these:")
    output.print_table("", ("machines, a worker each", *paces), rows)
    if not capacity.gpu_measured:
        pace = capacity.gpu_worker
        _say(
            f"* An upper bound, as no GPU is here: {pace.images_per_second:,.0f} images/s for each machine are what"
            f" fetch, decode and store alone allow. Their limit is {pace.sentence}."
        )
    print(f"A GPU of {GPU_RATE:,} images/s is fed by {capacity.gpu_cores:.1f} cores like these.")
    _say(
        f"No more than {min(capacity.ceilings.values()):,.0f} images/s is assumed of all workers together: that is what"
        " one orchestrator registers, one connection of the database stores, and the limits of hosts allow."
    )


def _print_sizes(capacity: Capacity) -> None:
    sizes = capacity.sizes
    rows = [
        ("fetched", sizes.fetched, "mean of the sample"),
        ("vectors with their keys", sizes.vectors, "from the layout of a row"),
        ("index of the vectors", sizes.index, "from a measurement with pgvector 0.8.5"),
        ("images and labels with their indexes", sizes.archive, "measured, before any vacuum"),
        ("the database in all", sizes.stored, ""),
        ("write-ahead log", sizes.log, "measured; how long it stays is the server's business"),
        ("memory to build the index", capacity.index_memory, "for one of its 8 partitions at a time"),
    ]
    print()
    output.print_table(
        "", ("bytes", "", "how they are known"), [(name, _size(size), how) for name, size, how in rows]
    )
    print(f"Building the index takes {_duration(capacity.index_core_hours)} of one core at the least.")


def _worker_counts(capacity: Capacity, pace: Pace) -> list[int]:
    """1, 2, 4, 8 and so on, until more would only wait for a ceiling."""
    counts = [1]
    while counts[-1] < min(capacity.useful_workers(pace), MOST_WORKERS):
        counts.append(2 * counts[-1])
    return counts


def _counts(by_reason: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in by_reason.items())


def _duration(hours: float) -> str:
    for unit, length in (("days", 48.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= length:
            return f"{hours / (24 if unit == 'days' else length):,.1f} {unit}"
    return f"{3600 * hours:,.1f} s"


def _size(size: float) -> str:
    power = min(4, int(math.log10(max(size, 1)) / 3))
    unit = ("B", "kB", "MB", "GB", "TB")[power]
    return f"{size / 1000**power:,.{1 if power else 0}f} {unit}"


def _say(text: str) -> None:
    print(textwrap.fill(text, COLUMNS, subsequent_indent="  "))


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=output.errors, disable=quiet, transient=True) as progress:
        yield progress
