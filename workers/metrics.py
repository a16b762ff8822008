"""What a worker tells Prometheus. Counted once for each chunk, or read when somebody asks: images pay next to nothing.

Names of hosts are limited to the first few; see lookalike/metrics.py.
"""

import logging
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric

from lookalike.envelope import refusals
from lookalike.ledger import LANES, Chunk, Failure, Postponement, RetryPolicy, may_repeat
from lookalike.metrics import Labels, counter, gauge, new_registry
from workers.gauges import Totals
from workers.network import read_use
from workers.pipeline import Pipeline

log = logging.getLogger(__name__)

REGISTRY = new_registry()
CHUNKS = Counter(
    "lookalike_worker_chunks",
    "Chunks that this worker is through with: done, stale (a message without its lease), lost (the lease was"
    " another's), given_back.",
    ["encoder", "lane", "outcome"],
    registry=REGISTRY,
)
IMAGES = Counter(
    "lookalike_worker_images",
    "Images of those chunks that are done: embedded, failed, repeated (to be tried again), postponed (their host"
    " could not be asked).",
    ["encoder", "lane", "outcome"],
    registry=REGISTRY,
)
FAILURES = Counter(
    "lookalike_worker_failures",
    "Images that failed or are to be tried again, by reason and host; few hosts are named, files are those of `files`.",
    ["encoder", "reason", "host", "outcome"],
    registry=REGISTRY,
)
SECONDS = Histogram(
    "lookalike_worker_chunk_seconds",
    "From the start of a chunk to its end.",
    ["encoder", "lane"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
    registry=REGISTRY,
)
HELD = Gauge("lookalike_worker_chunks_held", "Chunks that it works on now.", registry=REGISTRY)
BEAT = Gauge(
    "lookalike_worker_heartbeat_timestamp_seconds",
    "When a heartbeat last reached the database, in seconds since 1970.",
    registry=REGISTRY,
)
MISSED = Counter(
    "lookalike_worker_missed_heartbeats", "Heartbeats that did not reach the database.", registry=REGISTRY
)
OUTCOMES = ("embedded", "failed", "repeated", "postponed")
_HOSTS = Labels()


def count_images(
    chunk: Chunk,
    embedded: int,
    failures: Sequence[Failure],
    hosts: Mapping[int, str],
    postponed: Sequence[Postponement],
    policy: RetryPolicy,
) -> None:
    """Counts what became of the images of a chunk that is done; `hosts` are those of failed images by their id."""
    tally: Tally[str] = Tally(embedded=embedded, postponed=sum(len(one.images) for one in postponed))
    for failure in failures:
        outcome = "repeated" if may_repeat(chunk, failure, policy) else "failed"
        tally[outcome] += 1
        host = _HOSTS.limit(hosts.get(failure.image.id) or "files")
        FAILURES.labels(chunk.encoder, str(failure.reason), host, outcome).inc()
    for outcome, number in tally.items():
        if number:
            IMAGES.labels(chunk.encoder, chunk.lane, outcome).inc(number)


class PipelineFigures:
    """What the pipeline of this worker has done so far, read when somebody asks. `encoder` is a label of all of it."""

    def __init__(self, pipeline: Pipeline, encoder: str, name: str) -> None:
        self._pipeline = pipeline
        self._encoder = encoder
        self._name = name
        # From the beginning, so that the first failure is seen to be one more.
        for lane in LANES:
            for outcome in OUTCOMES:
                IMAGES.labels(encoder, lane, outcome)

    def collect(self) -> Iterator[Metric]:
        """The figures of this moment."""
        yield gauge(
            "lookalike_worker_info",
            "Always 1; its labels say what this worker is.",
            ["name", "encoder", "device"],
            [((self._name, self._encoder, self._pipeline.device), 1)],
        )
        totals = self._pipeline.gauges.totals()
        yield from self._stages(totals)
        yield from self._batches(totals)
        yield from self._hosts(totals)
        yield counter(
            "lookalike_worker_refused_messages",
            "Messages of the broker that were not ours and were dropped.",
            [],
            [((), refusals.count)],
        )
        yield from self._device()

    def _stages(self, totals: Totals) -> Iterator[Metric]:
        encoder = self._encoder
        yield counter(
            "lookalike_worker_stage_seconds",
            "Seconds that the threads of a stage have worked rather than waited.",
            ["encoder", "stage"],
            [((encoder, stage), seconds) for stage, seconds in totals.seconds.items()],
        )
        yield gauge(
            "lookalike_worker_stage_threads",
            "Threads of a stage; of a GPU, the passes that it takes at once.",
            ["encoder", "stage"],
            [((encoder, stage), threads) for stage, threads in self._pipeline.gauges.threads.items()],
        )

    def _batches(self, totals: Totals) -> Iterator[Metric]:
        encoder = self._encoder
        for name, meaning, number in (
            ("lookalike_worker_encoded_images", "Images that went through the network.", totals.images),
            ("lookalike_worker_batches", "Batches that went through the network.", totals.batches),
            (
                "lookalike_worker_batch_places",
                "Images that those batches had room for: images by places is how full they were.",
                totals.places,
            ),
        ):
            yield counter(name, meaning, ["encoder"], [((encoder,), number)])
        yield gauge(
            "lookalike_worker_batch_size",
            "Images in a full batch; it shrinks when the device runs out of memory.",
            ["encoder"],
            [((encoder,), self._pipeline.batch_size)],
        )

    def _hosts(self, totals: Totals) -> Iterator[Metric]:
        encoder, crowd = self._encoder, self._pipeline.gate.look()
        yield counter(
            "lookalike_worker_fetched_images",
            "Images that were fetched, by host.",
            ["encoder", "host"],
            [((encoder, host), number) for host, number in totals.fetched.items()],
        )
        yield counter(
            "lookalike_worker_fetched_bytes",
            "Bytes of those images.",
            ["encoder", "host"],
            [((encoder, host), number) for host, number in totals.fetched_bytes.items()],
        )
        yield gauge(
            "lookalike_worker_waiting_images",
            "Images that wait until their host may be asked.",
            ["encoder"],
            [((encoder,), crowd.waiting)],
        )
        yield gauge(
            "lookalike_worker_paused_hosts",
            "Hosts that this worker leaves in peace for now.",
            ["encoder"],
            [((encoder,), crowd.paused)],
        )

    def _device(self) -> Iterator[Metric]:
        try:
            use = read_use(self._pipeline.device)
        except Exception as error:  # whatever a driver says: the other figures are worth having
            log.debug("no figures of the GPU: %s", error)
            return
        if use is None:
            return
        labels, values = ["encoder", "device", "model"], (self._encoder, self._pipeline.device, use.name)
        figures = {
            "lookalike_worker_gpu_memory_used_bytes": (
                "Memory of the GPU in use, by whomever.",
                use.used_bytes,
            ),
            "lookalike_worker_gpu_memory_bytes": ("Memory of the GPU in all.", use.total_bytes),
            "lookalike_worker_gpu_utilisation_ratio": (
                "Share 0..1 of the last moments that the GPU worked.",
                use.utilisation,
            ),
        }
        for name, (meaning, number) in figures.items():
            if number is not None:
                yield gauge(name, meaning, labels, [(values, number)])
