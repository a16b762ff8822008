"""Readiness: what is heard of the workers and orchestrators of a host."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import signals
from celery.contrib.testing.worker import start_worker

from lookalike import archive, ledger
from lookalike.database import Connection, connect
from lookalike.limits import Beat, list_workers, record_beat
from lookalike.queue import make_app
from lookalike.readiness import is_orchestrator_ready, is_worker_ready, orchestrator_name
from tests.factories import TINY
from tests.servers import wait_until
from workers.listening import watch_consumer


def beat(connection: Connection, name: str, period: float = 20, listening: bool = True) -> None:
    busy = dict.fromkeys(("fetch_busy", "decode_busy", "encode_busy", "store_busy", "batch_fill"), 0.0)
    (now,) = connection.execute("select now()").fetchone()
    record_beat(
        connection,
        Beat(
            name, "tiny", "cpu", 8, now, period, images=0, seconds=20, refused=0, listening=listening, **busy
        ),
    )


def test_a_worker_is_ready_while_its_heart_beats(connection: Connection) -> None:
    """Any worker of the host counts, those of other hosts do not; no broker ends it, or three missed heartbeats."""
    archive.add_encoder(connection, TINY, chunk_size=1)
    assert not is_worker_ready(connection, "host")
    beat(connection, "host.12")
    assert is_worker_ready(connection, "host")
    assert not is_worker_ready(connection, "host.12")
    assert not is_worker_ready(connection, "hos")

    beat(connection, "host.12", listening=False)
    assert not is_worker_ready(connection, "host")
    (state,) = list_workers(connection, "tiny")
    assert state.limit.startswith("the broker: it has no connection")
    beat(connection, "host.12")
    connection.execute("update workers set seen_at = now() - interval '61 s'")
    assert not is_worker_ready(connection, "host")


def test_an_orchestrator_is_ready_while_it_asks(connection: Connection, database_url: str) -> None:
    """It is known by the name of its connection, which holds its host; one that is gone is not ready."""
    host = "h" * 80
    assert not is_orchestrator_ready(connection, host)
    with connect(database_url, application_name=orchestrator_name(host)) as other:
        ledger.lease(other, "tiny", "backfill", 1, 60)
        assert is_orchestrator_ready(connection, host)
        assert not is_orchestrator_ready(connection, "another")
        (pid,) = other.execute("select pg_backend_pid()").fetchone()
        connection.execute("select pg_terminate_backend(%s, 5000)", [pid])
    assert not is_orchestrator_ready(connection, host)


@pytest.fixture
def logging_is_left_alone() -> Iterator[None]:
    """Celery sets up the log of its process unless somebody says that they do: here it is that of all tests."""

    def as_it_is(**_: Any) -> None:
        pass

    signals.setup_logging.connect(as_it_is)
    yield
    signals.setup_logging.disconnect(as_it_is)


@pytest.mark.usefixtures("logging_is_left_alone")
def test_a_consumer_tells_that_it_lost_the_broker_and_has_it_again(broker_url: str) -> None:
    """By Celery's own steps, which run again with each new connection."""
    told: list[bool] = []
    app = make_app(broker_url, "tiny")
    watch_consumer(app, told.append)
    with start_worker(app, pool="threads", perform_ping_check=False):
        wait_until(lambda: told == [True], 10)
        with redis.Redis.from_url(broker_url) as broker:
            broker.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: told[-2:] == [False, True], 20, lambda: str(told))
    assert told[-1] is False
