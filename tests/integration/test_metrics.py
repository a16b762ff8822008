"""The figures for Prometheus: what the orchestrator sees, what a worker counts, and the endpoint that serves both."""

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from lookalike import archive, index, ledger, sweeping
from lookalike.database import Connection, connect
from lookalike.ledger import Chunk, ChunkImage, Failure, Lease, Postponement, RetryPolicy
from lookalike.metrics import LABELS, OTHER, Labels, new_registry, serve
from lookalike.queue import Broker, make_app
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator import metrics as orchestrator_metrics
from orchestrator import progress
from orchestrator import watch as watching_module
from orchestrator.dispatch import Dispatcher
from orchestrator.progress import Intake
from orchestrator.watch import PART, Watch, watching
from tests.conftest import embedded_settings
from tests.factories import TINY, make_images, make_vectors
from tests.servers import wait_until
from workers import metrics as worker_metrics

POLICY = RetryPolicy(3, 2)


def values(metrics: Iterator[Metric]) -> dict[tuple[str, ...], float]:
    """The samples by name and values of labels."""
    return {(s.name, *s.labels.values()): s.value for metric in metrics for s in metric.samples}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return embedded_settings(tmp_path)


@pytest.fixture
def broker(broker_url: str) -> Iterator[Broker]:
    opened = Broker(broker_url)
    yield opened
    opened.close()


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """Ten images in five chunks of one encoder; one chunk is done, with one vector and one failure."""
    archive.add_encoder(connection, TINY, chunk_size=2)
    ledger.register(connection, make_images(10), chunk_size=2)
    (claim,) = ledger.lease(connection, "tiny", "backfill", 1, 60)
    chunk = ledger.start(connection, claim, "host.1", 60)
    assert chunk is not None
    failures = [Failure(chunk.images[1], Reason.NOT_FOUND)]
    ledger.finish(connection, chunk, make_vectors(chunk.images[:1], connection), failures, POLICY)
    return connection


def test_the_orchestrator_sees_the_archive(
    archived: Connection, settings: Settings, broker: Broker, broker_url: str
) -> None:
    """Chunks and images by state, failures by reason, the books, queues and sources, as the ledger has them."""
    ledger.lease(archived, "tiny", "backfill", 1, 60)
    archived.execute("update chunks set not_before = now() + interval '1 hour' where id = 5")
    watch = Watch(settings, broker, broker_url)
    watch.step(archived)
    seen = values(watch.collect())
    expected = {
        ("lookalike_up", "database"): 1, ("lookalike_up", "broker"): 1,
        ("lookalike_chunks", "tiny", "backfill", "queued"): 1,
        ("lookalike_chunks", "tiny", "backfill", "pending"): 2,
        ("lookalike_chunks", "tiny", "backfill", "put_off"): 1,
        ("lookalike_open_images", "tiny", "backfill", "pending"): 4,
        ("lookalike_oldest_chunk_seconds", "tiny", "backfill", "put_off"): 0,
        ("lookalike_failed_images", "tiny", "not_found"): 1,
        ("lookalike_registered_images",): 10, ("lookalike_images", "tiny", "done"): 1,
        ("lookalike_images", "tiny", "open"): 8, ("lookalike_images", "tiny", "lost"): 0,
        ("lookalike_books_balanced", "tiny"): 1, ("lookalike_images_per_second", "tiny"): 2 / 60,
        ("lookalike_workers", "tiny", "alive"): 0, ("lookalike_waiting_messages", "tiny", "events"): 0,
        ("lookalike_index_partitions", "tiny", "indexed"): 0, ("lookalike_manifests", "awaited"): 0,
    }  # fmt: skip
    assert {key: seen.get(key) for key in expected} == pytest.approx(expected)
    assert 0 <= seen["lookalike_oldest_chunk_seconds", "tiny", "backfill", "pending"] < 60


def test_the_first_refusal_of_a_source_is_one_more(
    archived: Connection, settings: Settings, broker: Broker, broker_url: str
) -> None:
    """What a rule counts stands at 0 before it, also where the source came with it; what is old is shown as it is."""

    def shown(watch: Watch) -> dict[str, float]:
        watch._due.clear()
        watch.step(archived)
        seen = values(watch.collect())
        names = ("old", "quiet", "new")
        found = {name: seen.get(("lookalike_source_refused", name, "unknown_event")) for name in names}
        return {name: number for name, number in found.items() if number is not None}

    refused = Intake(refused=Counter(unknown_event=3))
    progress.add(archived, "old", refused)
    progress.add(archived, "quiet", Intake())
    watch = Watch(settings, broker, broker_url)
    assert shown(watch) == {"old": 3, "quiet": 0}
    progress.add(archived, "new", refused)
    assert shown(watch) == {"old": 3, "quiet": 0, "new": 0}
    assert shown(watch) == {"old": 3, "quiet": 0, "new": 3}


def test_an_index_that_is_being_built_is_seen(
    archived: Connection, settings: Settings, broker: Broker, broker_url: str, database_url: str
) -> None:
    """Whoever builds it, for as long as it takes: here it waits for a transaction that has written."""
    part = index.list_partitions(archived, "tiny")[0].partition
    statement = f"create index concurrently on {part} using hnsw (code bit_hamming_ops)".encode()

    def build() -> None:
        with connect(database_url, application_name="builder") as builder:
            builder.execute(statement)

    watch = Watch(settings, broker, broker_url)
    with connect(database_url, application_name="writer") as writer, writer.transaction():
        writer.execute(f"delete from {part} where false".encode())
        thread = threading.Thread(target=build)
        thread.start()
        waiting = "select count(*) from pg_stat_progress_create_index"
        wait_until(lambda: archived.execute(waiting).fetchone() == (1,), 10)
        watch.step(archived)
    thread.join(30)
    assert values(watch.collect())["lookalike_index_build_ratio", "tiny"] == 0


def test_books_that_do_not_balance_are_seen(
    archived: Connection, settings: Settings, broker: Broker, broker_url: str
) -> None:
    """An image whose chunk has gone is lost, and both figures say so."""
    archived.execute("delete from chunks where id = 3")
    watch = Watch(settings, broker, broker_url)
    watch.step(archived)
    seen = values(watch.collect())
    assert (seen["lookalike_books_balanced", "tiny"], seen["lookalike_images", "tiny", "lost"]) == (0, 2)


def test_a_costly_look_is_a_rare_one(
    archived: Connection,
    settings: Settings,
    broker: Broker,
    broker_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look rests for fifty times as long as it took, and for its least pause in any case."""
    clock = [1000.0]
    monkeypatch.setattr("orchestrator.watch.time.monotonic", lambda: clock[0])
    taken = []

    def see(_: Watch, __: Connection) -> list[Metric]:
        taken.append(clock[0])
        clock[0] += 60
        return []

    look = watching_module.Look("books", "database", 60, see)
    monkeypatch.setattr(watching_module, "LOOKS", (look,))
    watch = Watch(settings, broker, broker_url)
    for _ in range(2 * PART * 60 // 100):
        watch.step(archived)
        clock[0] += 100
    assert [later - sooner for sooner, later in itertools.pairwise(taken)] == [3060]


def test_a_look_that_is_not_allowed_to_end_costs_no_other(
    archived: Connection,
    settings: Settings,
    broker: Broker,
    broker_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The limit of the login ends it: the log says so, it rests like any other, and the other figures are there."""
    asked = []

    def see(_: Watch, connection: Connection) -> list[Metric]:
        asked.append("books")
        connection.execute("select pg_sleep(10)")
        return []

    slow = watching_module.Look("books", "database", 60, see, dated=True)
    monkeypatch.setattr(watching_module, "LOOKS", (*watching_module.LOOKS[:-1], slow))
    # Other figures have to come within it, on a busy machine too.
    archived.execute("set statement_timeout = '1s'")
    watch = Watch(settings, broker, broker_url)
    for _ in range(2):
        watch.step(archived)
    archived.execute("reset statement_timeout")
    assert asked == ["books"]
    seen = values(watch.collect())
    assert seen["lookalike_up", "database"] == 1
    assert ("lookalike_chunks", "tiny", "backfill", "pending") in seen
    assert "no figures of the books" in caplog.text


def test_a_database_or_broker_that_is_away_is_said(
    archived: Connection, settings: Settings, database_url: str, broker: Broker, broker_url: str
) -> None:
    """What was seen in it is no longer shown; the rest is, and so are the books, which say when they were counted."""
    away = Broker("redis://127.0.0.1:1/0")
    watch = Watch(settings, away, "redis://127.0.0.1:1/0")
    watch.step(archived)
    seen = values(watch.collect())
    assert (seen["lookalike_up", "database"], seen["lookalike_up", "broker"]) == (1, 0)
    assert ("lookalike_chunks", "tiny", "backfill", "pending") in seen

    def refuse() -> Connection:
        raise psycopg.OperationalError("away")

    registry = CollectorRegistry()
    with watching(watch, registry, refuse):
        wait_until(lambda: values(registry.collect())["lookalike_up", "database"] == 0, 10)
    seen = values(watch.collect())
    assert ("lookalike_chunks", "tiny", "backfill", "pending") not in seen
    assert {("lookalike_books_balanced", "tiny"), ("lookalike_books_timestamp_seconds",)} <= seen.keys()
    watch = Watch(settings, broker, broker_url)
    with watching(watch, registry, lambda: connect(database_url, application_name="test")):
        wait_until(lambda: values(registry.collect()).get(("lookalike_registered_images",)) == 10, 10)


def test_the_orchestrator_counts_what_it_does(
    archived: Connection, settings: Settings, broker: Broker, broker_url: str
) -> None:
    """Chunks that it publishes, leases that run out, messages that the broker loses."""
    counted = orchestrator_metrics.REGISTRY

    def read(name: str, **labels: str) -> float:
        return counted.get_sample_value(name, labels) or 0.0

    published = read("lookalike_published_chunks_total", encoder="tiny", lane="backfill")
    expired = read("lookalike_expired_leases_total", state="running")
    wipes = read("lookalike_broker_wipes_total")
    dispatcher = Dispatcher(settings, archived, make_app(broker_url, "tiny"), broker)
    assert dispatcher.step() == 4
    assert read("lookalike_published_chunks_total", encoder="tiny", lane="backfill") - published == 4
    assert read("lookalike_broker_wipes_total") - wipes == 1
    archived.execute(
        "update chunks set state = 'running', worker = 'host.1', lease_until = now() - interval '1 s' where id = 2"
    )
    dispatcher._sweep_leases()
    assert read("lookalike_expired_leases_total", state="running") - expired == 1
    assert sweeping.sweep(archived).crashed == 0


def test_a_worker_counts_images_by_what_became_of_them() -> None:
    """Embedded, failed, to be repeated, postponed; failures by reason and host, of which few are named."""
    images = [ChunkImage(number, f"k{number}", "u", "file", 1) for number in range(LABELS + 10)]
    chunk = Chunk(Lease(1, None), "counted", "backfill", 0, images)  # type: ignore[arg-type]
    failures = [Failure(images[0], Reason.NOT_FOUND), Failure(images[1], Reason.TIMEOUT)]
    worker_metrics.count_images(
        chunk, 7, failures, {0: "a.example", 1: ""}, [Postponement(images[2:5], 1, True)], POLICY
    )
    read = worker_metrics.REGISTRY.get_sample_value
    outcomes = ("embedded", "failed", "repeated", "postponed")
    labels = {"encoder": "counted", "lane": "backfill"}
    assert [read("lookalike_worker_images_total", {**labels, "outcome": one}) for one in outcomes] == [
        7,
        1,
        1,
        3,
    ]
    found = {"encoder": "counted", "reason": "timeout", "host": "files", "outcome": "repeated"}
    assert read("lookalike_worker_failures_total", found) == 1
    found = {"encoder": "counted", "reason": "not_found", "host": "a.example", "outcome": "failed"}
    assert read("lookalike_worker_failures_total", found) == 1


def test_labels_cannot_grow_without_bound() -> None:
    """The first values stay as they are, all further ones are `other`."""
    labels = Labels(2)
    assert [labels.limit(value) for value in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_the_endpoint_serves_what_prometheus_reads(settings: Settings) -> None:
    """On the address of the settings, and only where a port is set."""
    assert serve(settings, new_registry()) is None
    port = serve(settings.model_copy(update={"metrics_port": 0}), orchestrator_metrics.REGISTRY)
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = {family.name for family in text_string_to_metric_families(answer.read().decode())}
    assert {"lookalike_build", "lookalike_dispatch_passes", "process_resident_memory_bytes"} <= families


def test_a_port_that_is_taken_costs_the_figures_alone(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The process goes on, and its log says which setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert serve(settings.model_copy(update={"metrics_port": port}), new_registry()) is None
    assert "LOOKALIKE_METRICS_PORT" in caplog.text
