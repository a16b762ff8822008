"""The trial of a database: measured on copies of the tables, which leave no trace."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from lookalike import archive, ledger
from lookalike.database import Connection, connect
from lookalike.encoders import find_encoder
from lookalike.errors import ServiceError
from lookalike.trial import DatabaseTrial, try_database
from lookalike.vectors import Appearance, Labels, Vectors
from tests.factories import make_images
from tests.snapshots import snapshot

ENCODER = find_encoder("efficientnet-lite0")


def sample_vectors(count: int) -> Vectors:
    rows = np.random.default_rng(0).standard_normal((count, ENCODER.dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Vectors(
        np.arange(count),
        np.ones(count, np.int32),
        np.zeros((count, 32), np.uint8),
        np.packbits(rows > 0, axis=1),
        rows,
        Labels(np.tile(np.arange(5), (count, 1)), np.full((count, 5), 0.2, np.float32)),
        [Appearance(1.5, "#a0b0c0", ("#a0b0c0",), (1.0,), bytes(144))] * count,
    )


def run_trial(connection: Connection, on_step: Callable[[float], None] = lambda _: None) -> DatabaseTrial:
    return try_database(connection, ENCODER, make_images(7), sample_vectors(5), 64, on_step)


def test_an_archive_is_as_it_was(connection: Connection) -> None:
    """After a trial every table has its rows and its size, no number was used up, and nothing was left behind."""
    archive.add_encoder(connection, ENCODER, 64)
    ledger.register(connection, make_images(100))
    before = snapshot(connection)
    trial = run_trial(connection)
    assert snapshot(connection) == before
    assert 0 < trial.register_seconds < 1
    assert 0 < trial.store_cpu < trial.store_seconds < 1
    # 5 labels, an image, its keys; and a vector of 2.6 kB besides in the log.
    assert 500 < trial.archive_bytes < 5_000
    assert 3_000 < trial.log_bytes < 30_000
    # The connection is for the archive again.
    assert ledger.register(connection, make_images(100)).unchanged == 100


def test_an_archive_without_the_encoder_gets_none(connection: Connection) -> None:
    """A trial for an encoder that the archive does not have adds neither the encoder nor its table."""
    run_trial(connection)
    assert connection.execute("select count(*) from encoders").fetchone() == (0,)
    assert connection.execute("select to_regclass('vectors_efficientnet_lite0')").fetchone() == (None,)


def test_an_archive_at_work_is_not_held_up(database_url: str, connection: Connection) -> None:
    """In the middle of a trial others register images, lease their chunks and read them."""
    archive.add_encoder(connection, ENCODER, 64)
    registered: list[ledger.Registered] = []

    def work() -> None:
        with connect(database_url, application_name="test other") as other:
            other.execute("set statement_timeout = '10s'")
            registered.append(ledger.register(other, make_images(10)))
            (claim,) = ledger.lease(other, ENCODER.name, "backfill", 10, 60)
            chunk = ledger.start(other, claim, "worker", 60)
            assert chunk is not None
            registered.extend(ledger.Registered(unchanged=1) for _ in chunk.images)

    def work_once(_: float) -> None:
        if not registered:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(20)

    run_trial(connection, work_once)
    assert registered[0].new == 10
    assert len(registered) == 11


def test_tables_that_are_being_changed_are_not_waited_for(database_url: str, connection: Connection) -> None:
    """While a migration holds the tables, a trial gives up and says so: whoever comes after it would wait as well."""
    with connect(database_url, application_name="test migration") as other, other.transaction():
        other.execute("lock table images in access exclusive mode")
        with pytest.raises(ServiceError, match="try again later"):
            run_trial(connection)


def test_a_role_that_may_not_create_a_schema_is_told(database_url: str, connection: Connection) -> None:
    """A role without the right to create a schema gets a message that says which right is missing."""
    archive.add_encoder(connection, ENCODER, 64)
    connection.execute("set role analyst")
    with pytest.raises(ServiceError, match="may create a schema"):
        run_trial(connection)
    connection.execute("reset role")
