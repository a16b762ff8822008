"""Readiness: what is heard of the workers and orchestrators of a host."""

from lookalike import archive, ledger
from lookalike.database import Connection, connect
from lookalike.limits import Beat, record_beat
from lookalike.readiness import is_orchestrator_ready, is_worker_ready, orchestrator_name
from tests.factories import TINY


def beat(connection: Connection, name: str, period: float = 20) -> None:
    busy = dict.fromkeys(("fetch_busy", "decode_busy", "encode_busy", "store_busy", "batch_fill"), 0.0)
    (now,) = connection.execute("select now()").fetchone()
    record_beat(
        connection, Beat(name, "tiny", "cpu", 8, now, period, images=0, seconds=20, refused=0, **busy)
    )


def test_a_worker_is_ready_while_its_heart_beats(connection: Connection) -> None:
    """Any worker of the host counts, those of other hosts do not, and three missed heartbeats end it."""
    archive.add_encoder(connection, TINY, chunk_size=1)
    assert not is_worker_ready(connection, "host")
    beat(connection, "host.12")
    assert is_worker_ready(connection, "host")
    assert not is_worker_ready(connection, "host.12")
    assert not is_worker_ready(connection, "hos")

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
