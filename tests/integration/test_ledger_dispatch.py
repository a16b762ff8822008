"""The dispatcher between a real ledger and a real broker: what is published, what is lost and found again."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.queue import Broker, make_app, queue_name, redis_url
from lookalike.settings import Settings
from orchestrator.dispatch import GRACE_SECONDS, Dispatcher
from tests.conftest import embedded_settings
from tests.factories import TINY, make_images

WINDOW = 3


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return embedded_settings(tmp_path).model_copy(
        update={"window": WINDOW, "encoder": "tiny", "lease_seconds": 60}
    )


@pytest.fixture
def broker(broker_url: str) -> Iterator[Broker]:
    opened = Broker(broker_url)
    assert opened.was_wiped()
    yield opened
    opened.close()


@pytest.fixture
def dispatcher(settings: Settings, connection: Connection, broker: Broker, broker_url: str) -> Dispatcher:
    """A dispatcher of an archive with two encoders and ten chunks of one image for each."""
    archive.add_encoder(connection, TINY, chunk_size=1)
    archive.add_encoder(connection, replace(TINY, name="second"), chunk_size=1)
    ledger.register(connection, make_images(10), chunk_size=1)
    return Dispatcher(settings, connection, make_app(broker_url, "tiny"), broker)


def age(connection: Connection, seconds: float) -> None:
    """As if so much time had passed since chunks were leased."""
    connection.execute("update chunks set lease_until = lease_until - make_interval(secs => %s)", [seconds])


def count(connection: Connection, state: str) -> int:
    row = connection.execute(
        "select count(*) from chunks where encoder = 'tiny' and state = %s", [state]
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_every_encoder_of_the_archive_is_served(dispatcher: Dispatcher, broker: Broker) -> None:
    """Also those that the orchestrator's own settings do not name, each in its own queue, within the window."""
    assert dispatcher.step() == 2 * WINDOW
    assert dispatcher.step() == 0
    assert [broker.waiting(name, "backfill") for name in ("tiny", "second")] == [WINDOW, WINDOW]


def test_a_lane_without_workers_does_not_fill_the_broker(
    dispatcher: Dispatcher, connection: Connection, broker: Broker
) -> None:
    """However often the leases of waiting messages run out, no second message is sent."""
    dispatcher.step()
    for _ in range(5):
        age(connection, 3600)
        dispatcher.sweep()
        dispatcher.step()

    assert broker.waiting("tiny", "backfill") == WINDOW


def test_lost_messages_are_published_again(
    dispatcher: Dispatcher, connection: Connection, broker: Broker, broker_url: str
) -> None:
    """An empty queue beside queued chunks means that their messages are gone; a moment of grace spares new ones."""
    dispatcher.step()
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        client.delete(queue_name("tiny", "backfill"))
    dispatcher.sweep()
    assert count(connection, "queued") == WINDOW

    age(connection, GRACE_SECONDS + 1)
    dispatcher.sweep()
    dispatcher.step()
    assert broker.waiting("tiny", "backfill") == WINDOW


def test_a_wiped_broker_gets_all_its_messages_again_at_once(
    dispatcher: Dispatcher, broker: Broker, broker_url: str
) -> None:
    """Without its sentinel the broker has lost everything, that which was sent just now too."""
    dispatcher.step()
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        client.flushall()
    dispatcher.sweep()
    dispatcher.step()

    assert [broker.waiting(name, "backfill") for name in ("tiny", "second")] == [WINDOW, WINDOW]


def test_a_new_dispatcher_lets_workers_renew_their_leases_first(
    dispatcher: Dispatcher, connection: Connection, settings: Settings, broker: Broker
) -> None:
    """After an outage every lease looks expired; only what no heartbeat has renewed within a moment has crashed."""
    (claim, *_) = ledger.lease(connection, "tiny", "backfill", 10, 60)
    ledger.start(connection, claim, "w", 60)
    age(connection, 3600)
    dispatcher.sweep()
    assert count(connection, "running") == 1

    late = Dispatcher(settings.model_copy(update={"lease_seconds": -3}), connection, dispatcher.app, broker)
    late.sweep()
    assert count(connection, "running") == 0
