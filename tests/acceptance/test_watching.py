"""Orchestrator and worker as an operator watches them: figures, a log in JSON, traces of whole chunks."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_tracing import collector
from tests.pictures import jpeg, photographs
from tests.servers import Lookalike, free_port, wait_until

IMAGES = 6


# In a process of its own, as Flower is: ours drops what is no message of ours.
LISTENER = """
import sys, celery
app = celery.Celery(broker=sys.argv[1])
with app.connection() as connection:
    print("listening", flush=True)
    app.events.Receiver(connection, handlers={"*": lambda event: print(event["type"], flush=True)}).capture()
"""


@contextmanager
def celery_events(broker_url: str, heard: Path) -> Iterator[None]:
    """Listens to Celery's events as Flower does, for the time of the block; writes their types into a file."""
    with heard.open("w") as file:
        command = [sys.executable, "-c", LISTENER, broker_url]
        listener = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: "listening" in heard.read_text(), 30)
        yield
    finally:
        listener.kill()
        listener.wait()


def figures(port: int) -> dict[tuple[str, ...], float]:
    """The samples of a process by name and values of labels, in the order of those; none while it is not there."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            families = text_string_to_metric_families(answer.read().decode())
    except URLError:
        return {}
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_an_orchestrator_can_be_watched(database_url: str, broker_url: str, tmp_path: Path) -> None:
    """It serves its figures where a port is set, and says so in a log of objects."""
    port = free_port()
    system = Lookalike(
        tmp_path, database_url, broker_url, LOOKALIKE_LOG_FORMAT="json", LOOKALIKE_METRICS_PORT=str(port)
    )
    try:
        system.start("orchestrate")
        # The last of its looks.
        balanced = ("lookalike_books_balanced", "efficientnet-lite0")
        wait_until(lambda: figures(port).get(balanced) == 1, 60, system.logs)
        seen = figures(port)
    finally:
        system.stop()
    assert (seen["lookalike_up", "database"], seen["lookalike_up", "broker"]) == (1, 1)
    assert seen["lookalike_dispatch_passes_total",] > 0
    (log,) = tmp_path.glob("*.log")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event for event in events if f":{port}/metrics" in event["message"]]


@pytest.mark.slow
def test_a_run_can_be_watched(database_url: str, broker_url: str, tmp_path: Path) -> None:
    """Both count the same images, every line of the log is an object that names chunk and image, the trace of a chunk
    goes from its lease to its storing, and Flower hears of the task."""
    for number, picture in enumerate(photographs()[:IMAGES]):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(picture, 90))
    rows = [{"key": f"k{n}", "url": str(tmp_path / f"{n}.jpg")} for n in range(IMAGES)]
    rows.append({"key": "missing", "url": str(tmp_path / "none.jpg")})
    (tmp_path / "images.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ports = {"orchestrate": free_port(), "worker": free_port()}
    heard = tmp_path / "events.txt"
    with collector() as spans, celery_events(broker_url, heard):
        system = Lookalike(
            tmp_path,
            database_url,
            broker_url,
            LOOKALIKE_LOG_FORMAT="json",
            LOOKALIKE_CELERY_EVENTS="true",
            LOOKALIKE_LEASE_SECONDS="6",
            OTEL_EXPORTER_OTLP_ENDPOINT=spans.url,
            OTEL_BSP_SCHEDULE_DELAY="200",
        )
        try:
            for part, port in ports.items():
                system.environment["LOOKALIKE_METRICS_PORT"] = str(port)
                words = ("images.jsonl",) if part == "orchestrate" else ()
                system.start(part, *words)
            name = "efficientnet-lite0"
            done = ("lookalike_worker_images_total", name, "backfill", "embedded")
            wait_until(lambda: figures(ports["worker"]).get(done) == IMAGES, 120, system.logs)
            wait_until(lambda: {"lease and publish", "store"} <= {s.name for _, s in spans}, 30, system.logs)
            wait_until(lambda: "task-succeeded" in heard.read_text(), 30, system.logs)
            worker, orchestrator = figures(ports["worker"]), figures(ports["orchestrate"])
        finally:
            system.stop()
    assert worker["lookalike_worker_failures_total", name, "files", "failed", "not_found"] == 1
    assert worker["lookalike_worker_chunks_total", name, "backfill", "done"] == 1
    assert worker["lookalike_worker_encoded_images_total", name] == IMAGES
    assert worker["lookalike_worker_fetched_images_total", name, "files"] == IMAGES
    assert worker["lookalike_worker_fetched_bytes_total", name, "files"] > 10_000
    for stage in ("fetch", "decode", "encode", "store"):
        assert worker["lookalike_worker_stage_seconds_total", name, stage] > 0
    assert worker["lookalike_worker_heartbeat_timestamp_seconds",] > 1e9
    assert orchestrator["lookalike_published_chunks_total", name, "backfill"] == 1
    assert orchestrator["lookalike_up", "database"] == orchestrator["lookalike_up", "broker"] == 1

    events = [
        json.loads(line) for log in tmp_path.glob("*.log") for line in log.read_text().splitlines() if line
    ]
    (failure,) = [event for event in events if event.get("image") == "missing"]
    (chunk,) = [span for _, span in spans if span.name == "chunk"]
    facts = {one.key: one.value for one in chunk.attributes}
    assert failure["chunk"] == facts["lookalike.chunk"].int_value
    assert failure["trace"] == chunk.trace_id.hex()
    whole = {span.name for _, span in spans if span.trace_id == chunk.trace_id}
    assert whole == {"lease and publish", "chunk", "start", "fetch", "decode", "encode", "store"}
