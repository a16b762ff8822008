"""The benches of scaling in small: several real workers share one archive, and none does another's work."""

from pathlib import Path

import pytest

from bench import fleet, scaling
from bench.processes import server
from bench.scaling_child import SLEEPER
from lookalike import archive
from lookalike.database import Connection
from tests.conftest import embedded_settings

CHUNKS = 12


def test_a_fleet_shares_the_work_and_loses_nothing(
    connection: Connection, database_url: str, broker_url: str, settings_home: Path
) -> None:
    """Each chunk is settled once, by one of two workers that both took part; every image has its one vector."""
    settings = embedded_settings(settings_home)
    held = CHUNKS - 4
    fleet.fill(connection, CHUNKS * fleet.CHUNK, held)
    with fleet.fleet(settings, database_url, 2, "all", 1000.0):
        fleet.wait(connection)
        fleet.release(connection)
        fleet.wait(connection)
    fleet.check(connection, "all")
    done = connection.execute(
        "select count(*), count(distinct worker) from chunks where state = 'done' and crashes = 0"
    ).fetchone()
    assert done == (CHUNKS, 2)
    stored = "select count(*), count(distinct image_id) from vectors_efficientnet_lite0"
    assert connection.execute(stored).fetchone() == (CHUNKS * fleet.CHUNK,) * 2
    assert connection.execute("select count(*) from labels").fetchone() == (5 * CHUNKS * fleet.CHUNK,)
    assert fleet.middle_rate(connection, held) > 0


@pytest.mark.slow
def test_devices_that_sleep_share_the_work(
    connection: Connection, database_url: str, broker_url: str, settings_home: Path
) -> None:
    """Two workers with a device each encode every image once between them, most of their passes full."""
    images = 768
    settings = embedded_settings(settings_home)
    archive.add_encoder(connection, SLEEPER, scaling.CHUNK)
    names = scaling.write_tiny(settings_home / "tiny", scaling.PICTURES)
    with (
        server(settings_home / "tiny", 0.0) as address,
        scaling.sleeping_system(settings, database_url) as system,
    ):
        system.grow(2)
        workers = system.workers
        addresses = [f"{address}/{name}" for name in names]
        scaling.warm_up(connection, addresses, workers)
        before = [worker.ask(None) for worker in workers]
        scaling.embed(connection, addresses, images, "measured")
        after = [worker.ask(None) for worker in workers]
    encoded = [late["images"] - early["images"] for early, late in zip(before, after, strict=True)]
    passes = sum(late["passes"] - early["passes"] for early, late in zip(before, after, strict=True))
    assert sum(encoded) == images
    assert min(encoded) > 0
    assert passes < 1.5 * images / scaling.BATCH
    assert scaling.middle_rate(connection, "measured") > 0
