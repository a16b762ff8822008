"""What a worker process does with chunks and leases, on a real ledger; only the pictures are left out."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from lookalike import archive, books, ledger, sweeping
from lookalike.database import Connection, connect, make_pool
from lookalike.ledger import ChunkImage
from lookalike.settings import Settings
from tests.conftest import embedded_settings
from tests.factories import TINY, checksum, make_images, unit_vector
from tests.servers import wait_until
from workers.appearance import Glimpse
from workers.embedder import WATCHDOG_SECONDS, Embedder
from workers.gauges import STAGES, Gauges
from workers.turns import Turns
from workers.work import Encoding, Work

GLIMPSE = Glimpse(1.0, np.zeros((96, 96, 3), np.uint8))


class Pipeline:
    """In place of fetch, decode and encode: vectors from keys, once `let_go` is set."""

    device = "cpu"
    batch_size = 4

    def __init__(self) -> None:
        self.gauges = Gauges(dict.fromkeys(STAGES, 1))
        self.let_go = threading.Event()
        self.submitted = 0

    def submit(self, images: Sequence[ChunkImage], urgent: bool = False, **told: Any) -> Work:
        work = Work(images, **told)
        self.submitted += 1
        threading.Thread(target=self._run, args=(work,), daemon=True).start()
        return work

    def _run(self, work: Work) -> None:
        self.let_go.wait()
        for index, image in enumerate(work.images):
            vector = unit_vector(image.key, 16).astype(np.float32)
            work.store(index, Encoding(checksum(image.key).tobytes(), vector, None, GLIMPSE))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return embedded_settings(tmp_path).model_copy(
        update={"encoder": "tiny", "lease_seconds": 60, "stop_seconds": 0.1}
    )


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    made = Pipeline()
    yield made
    made.let_go.set()


@pytest.fixture
def embedder(
    settings: Settings, connection: Connection, database_url: str, pipeline: Pipeline
) -> Iterator[Embedder]:
    archive.add_encoder(connection, TINY, chunk_size=1)
    ledger.register(connection, make_images(4), chunk_size=1)
    calibration = archive.load_calibration(connection, "tiny")
    with make_pool(database_url, application_name="worker pool", max_size=4) as pool:
        yield Embedder(settings, "host.7", pool, pipeline, calibration, lambda _: [])  # type: ignore[arg-type]


def embed_in_thread(embedder: Embedder, claim: ledger.Lease) -> threading.Thread:
    thread = threading.Thread(target=embedder.embed, args=(claim.chunk, claim.lease), daemon=True)
    thread.start()
    return thread


def test_a_suspect_is_worked_on_alone() -> None:
    """Nothing is beside a suspect, the others are side by side, and all come in their order."""
    turns = Turns()
    beside: dict[str, set[str]] = {}
    inside: set[str] = set()
    company = threading.Barrier(2)

    def work(name: str) -> None:
        with turns.take(alone := name.startswith("suspect")):
            inside.add(name)
            if not alone:
                company.wait(10)  # breaks unless two of them are here at once
            beside[name] = set(inside) - {name}
            if not alone:
                company.wait(10)
            inside.remove(name)

    names = ["a", "b", "suspect 1", "suspect 2", "c", "d"]
    threads = []
    for number, name in enumerate(names):
        threads.append(threading.Thread(target=work, args=(name,), daemon=True))
        threads[-1].start()
        if number == 0:
            wait_until(
                lambda: inside == {"a"}, 10
            )  # waits for company, so that all others queue up behind it
    for thread in threads:
        thread.join(10)

    assert not company.broken
    assert beside == {"a": {"b"}, "b": {"a"}, "suspect 1": set(), "suspect 2": set(), "c": {"d"}, "d": {"c"}}


def test_a_cut_connection_costs_neither_lease_nor_name(
    embedder: Embedder, pipeline: Pipeline, connection: Connection, database_url: str
) -> None:
    """A worker whose every connection is cut in the middle of a chunk renews its lease, keeps its name, finishes."""
    lifeline = connect(database_url, application_name="worker lifeline")
    (claim,) = ledger.lease(connection, "tiny", "backfill", 10, 60, batch=1)
    thread = embed_in_thread(embedder, claim)
    wait_until(lambda: pipeline.submitted == 1, 10)
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name like 'worker%'"
    )
    connection.execute("update chunks set lease_until = now() where state = 'running'")
    with pytest.raises(psycopg.OperationalError):
        embedder.beat(lifeline, database_url)
    with embedder.beat(lifeline, database_url):
        assert connection.execute(
            "select lease_until > now() from chunks where id = %s", [claim.chunk]
        ).fetchone() == (True,)
        assert embedder.name == "host.7"
        pipeline.let_go.set()
        thread.join(10)
    assert books.count_books(connection, "tiny") == books.Books(4, 1, 0, 3, 0)


def test_a_lost_lease_cancels_its_work(
    embedder: Embedder, pipeline: Pipeline, connection: Connection, database_url: str
) -> None:
    """The heartbeat finds that a chunk was taken away: the worker drops it and stores nothing."""
    (claim,) = ledger.lease(connection, "tiny", "backfill", 10, 60, batch=1)
    thread = embed_in_thread(embedder, claim)
    wait_until(lambda: pipeline.submitted == 1, 10)
    connection.execute("update chunks set lease_until = '-infinity' where state = 'running'")
    sweeping.sweep(connection)
    with connect(database_url, application_name="worker lifeline") as lifeline:
        embedder.beat(lifeline, database_url)
    thread.join(10)

    assert not thread.is_alive()
    assert books.count_books(connection, "tiny") == books.Books(4, 0, 0, 4, 0)


def test_a_chunk_that_starts_while_the_worker_stops_is_given_back(
    embedder: Embedder, connection: Connection
) -> None:
    """Whatever is under way or comes after the time to finish has run out is pending again, without a crash."""
    first, second = ledger.lease(connection, "tiny", "backfill", 10, 60, batch=2)
    thread = embed_in_thread(embedder, first)
    wait_until(lambda: is_running(connection), 10)
    embedder.stop()
    thread.join(10)
    embed_in_thread(embedder, second).join(10)

    assert connection.execute(
        "select count(*) filter (where state = 'pending'), max(crashes) from chunks"
    ).fetchone() == (4, 0)


def test_a_worker_that_leaves_in_order_has_not_fallen_silent(
    embedder: Embedder, connection: Connection, database_url: str
) -> None:
    """It is no longer among those that were heard of, and its heartbeat says nothing more."""
    lifeline = connect(database_url, application_name="worker lifeline")
    beating = threading.Thread(target=embedder.heartbeat, args=(lifeline, database_url), daemon=True)
    beating.start()
    heard = "select count(*) from workers where name = 'host.7'"
    wait_until(lambda: connection.execute(heard).fetchone() == (1,), 10)
    embedder.leave()
    beating.join(10)
    lifeline.close()
    assert not beating.is_alive()
    assert connection.execute(heard).fetchone() == (0,)


def test_a_database_may_be_away_for_longer_than_all_patience(
    settings: Settings, connection: Connection, database_url: str, server_url: str, pipeline: Pipeline
) -> None:
    """A chunk that was encoded meanwhile is stored when the database is back, many leases later; it has not crashed."""
    settings = settings.model_copy(update={"lease_seconds": 0.05})
    archive.add_encoder(connection, TINY, chunk_size=4)
    ledger.register(connection, make_images(4), chunk_size=4)
    (claim,) = ledger.lease(connection, "tiny", "backfill", 10, 60)
    calibration = archive.load_calibration(connection, "tiny")
    name = sql.Identifier(connection.info.dbname)
    with (
        connect(server_url, application_name="test") as admin,
        make_pool(database_url, application_name="worker pool", max_size=4) as pool,
    ):
        embedder = Embedder(settings, "host.7", pool, pipeline, calibration, lambda _: [])  # type: ignore[arg-type]
        thread = embed_in_thread(embedder, claim)
        wait_until(lambda: pipeline.submitted == 1, 10)
        admin.execute(sql.SQL("alter database {} allow_connections false").format(name))
        admin.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s",
                      [connection.info.dbname])  # fmt: skip
        pipeline.let_go.set()
        thread.join(20 * settings.lease_seconds)
        assert thread.is_alive()
        admin.execute(sql.SQL("alter database {} allow_connections true").format(name))
        thread.join(60)

    with connect(database_url, application_name="test") as again:
        assert books.count_books(again, "tiny") == books.Books(4, 4, 0, 0, 0)
        assert again.execute("select max(crashes) from chunks").fetchone() == (0,)


def test_a_worker_that_waits_for_the_database_does_not_hang(
    embedder: Embedder, pipeline: Pipeline, connection: Connection, database_url: str
) -> None:
    """The watchdog counts no time for which the database was away."""
    lifeline = connect(database_url, application_name="worker lifeline")
    (claim,) = ledger.lease(connection, "tiny", "backfill", 10, 60, batch=1)
    thread = embed_in_thread(embedder, claim)
    wait_until(lambda: pipeline.submitted == 1, 10)
    held = embedder._held[claim.chunk]
    held.since -= 2 * WATCHDOG_SECONDS
    lifeline.close()
    with embedder.beat(lifeline, database_url):
        assert time.monotonic() - held.since < 10
    pipeline.let_go.set()
    thread.join(10)


def is_running(connection: Connection) -> bool:
    return connection.execute("select count(*) from chunks where state = 'running'").fetchone() == (1,)
