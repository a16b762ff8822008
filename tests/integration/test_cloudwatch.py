"""The figures that the orchestrator publishes, on a real database and moto's CloudWatch."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from lookalike import archive, backlog, duplicates, ledger
from lookalike.database import Connection, connect
from lookalike.errors import ServiceError
from lookalike.ledger import RetryPolicy
from lookalike.settings import Settings
from orchestrator import cloudwatch, upkeep
from orchestrator.cloudwatch import METRICS, Publisher
from orchestrator.upkeep import keeping_up
from tests.factories import TINY, make_images, make_vectors
from tests.servers import wait_until

NAMESPACE = "lookalike/test"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None, home=tmp_path, encoder="tiny", cloudwatch_namespace=NAMESPACE, connect_timeout=0.5
    )


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """moto's CloudWatch, and credentials for it."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("cloudwatch")


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """An archive of 300 images: 100 are done, 200 wait; of 20 more, from events, one chunk is for a later time."""
    archive.add_encoder(connection, TINY, chunk_size=100)
    ledger.register(connection, make_images(300), chunk_size=100)
    (claim, *_) = ledger.lease(connection, "tiny", "backfill", 1, 60)
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    ledger.finish(connection, chunk, make_vectors(chunk.images, connection), [], RetryPolicy(1, 1))
    ledger.register(connection, make_images(20, "event"), "events", 10)
    connection.execute(
        "update chunks set not_before = now() + interval '1 hour'"
        " where id = (select max(id) from chunks where lane = 'events')"
    )
    connection.execute(
        "update chunks set created_at = now() - interval '5 minutes' where state = 'pending' and lane = 'events'"
    )
    return connection


def published(watch: Any, encoder: str = "tiny") -> dict[str, float]:
    """What CloudWatch has of an encoder: the latest maximum of each metric."""
    now = datetime.now(UTC)
    found = {}
    for name in METRICS:
        points = watch.get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName=name,
            Dimensions=[{"Name": "Encoder", "Value": encoder}],
            StartTime=now - timedelta(minutes=10),
            EndTime=now + timedelta(minutes=1),
            Period=600,
            Statistics=["Maximum"],
        )["Datapoints"]
        if points:
            found[name] = points[-1]["Maximum"]
    return found


def test_backlog_is_what_workers_can_do_now(archived: Connection) -> None:
    """Images that are due within minutes count, those of later do not; the last hour's are counted by their time."""
    now = backlog.measure(archived, "tiny")
    assert (now.images, now.analysed, now.workers) == (210, 0, 0)
    assert (now.last_minute, now.last_hour, now.failed_share) == (100, 100, 0)
    assert 299 < now.oldest_event < 400
    archived.execute("update chunks set done_at = now() - interval '2 hours' where state = 'done'")
    assert backlog.measure(archived, "tiny").last_hour == 0
    assert backlog.measure(archived, "unknown").images == 0


def test_all_figures_are_published(archived: Connection, settings: Settings, watch: Any) -> None:
    """One step puts every figure into CloudWatch under the encoder's name; a share of few images is left out."""
    Publisher(settings).step(archived)
    found = published(watch)
    assert found.pop("OldestEventSeconds") > 299
    assert found == {
        "Backlog": 210,
        "BacklogPerWorker": 210,
        "OpenImages": 210,
        "Workers": 0,
        "ImagesPerMinute": 100,
        "BooksUnbalanced": 0,
    }


def test_share_of_failures(archived: Connection, settings: Settings, watch: Any) -> None:
    """Where enough images were tried in the last hour, the share that failed is published in per cent."""
    for claim in ledger.lease(archived, "tiny", "backfill", 3, 60):
        chunk = ledger.start(archived, claim, "w", 60)
        assert chunk is not None
        ledger.finish(archived, chunk, make_vectors(chunk.images, archived), [], RetryPolicy(1, 1))
    archived.execute(
        "insert into failures (encoder, image_id, revision, reason, attempts)"
        " select 'tiny', id, revision, 'corrupt', 1 from images where key like 'event/%' limit 6"
    )
    Publisher(settings).step(archived)
    assert published(watch)["FailedPercent"] == pytest.approx(2)


def test_lost_image_unbalances_the_books(archived: Connection, settings: Settings, watch: Any) -> None:
    """An image that is nowhere is published as soon as the books are counted again, which is done once an hour."""
    publisher = Publisher(settings)
    publisher.step(archived)
    archived.execute("delete from chunks where state = 'pending' and lane = 'backfill'")
    publisher.step(archived)
    assert published(watch)["BooksUnbalanced"] == 0
    publisher._count_at = 0
    publisher.step(archived)
    assert published(watch)["BooksUnbalanced"] == 1


def test_analyses_count_when_they_can_be_done(archived: Connection, settings: Settings, watch: Any) -> None:
    """Comparisons wait for the index of a large archive, and no worker is started for them before it is there."""
    duplicates.begin(archived, "tiny", duplicates.Criteria(0.01, 0.9), turned=False)
    archived.execute("analyze")
    Publisher(settings.model_copy(update={"index_rows": 10})).step(archived)
    assert published(watch)["Backlog"] == 210
    Publisher(settings).step(archived)
    assert published(watch)["Backlog"] == 530
    assert published(watch)["OpenImages"] == 210


@pytest.mark.parametrize(
    ("code", "said"), [("AccessDenied", "cloudwatch:PutMetricData"), ("Throttling", "CloudWatch: Throttling")]
)
def test_refusals_say_what_to_do(
    archived: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    """What CloudWatch refuses is one ServiceError that names the right, or the code."""

    class Refusing:
        def put_metric_data(self, **_: object) -> None:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "PutMetricData")

    publisher = Publisher(settings)
    monkeypatch.setattr(publisher, "_client", Refusing())
    with pytest.raises(ServiceError, match=said):
        publisher.step(archived)


def test_cloudwatch_that_is_away_stops_nothing(
    archived: Connection,
    settings: Settings,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without an answer from CloudWatch a line is logged every time, and the upkeep goes on with the rest."""
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "not to be said",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(upkeep, "PUBLISH_SECONDS", 0.01)
    monkeypatch.setattr(upkeep, "SETTLE_SECONDS", 0.01)
    settled = threading.Semaphore(0)
    monkeypatch.setattr(upkeep, "settle", lambda _: settled.release())
    with keeping_up(settings, lambda: connect(database_url, application_name="upkeep")):
        wait_until(lambda: caplog.text.count("upkeep, cloudwatch: CloudWatch: Could not connect") >= 2, 20)
        assert settled.acquire(timeout=5)
    assert "not to be said" not in caplog.text


def test_nothing_is_published_unless_asked(
    settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a namespace no publisher is made; what CloudWatch takes for none is refused."""
    monkeypatch.setattr(cloudwatch.Publisher, "__init__", lambda *_: pytest.fail("a publisher was made"))
    with keeping_up(
        settings.model_copy(update={"cloudwatch_namespace": None}),
        lambda: connect(database_url, application_name="upkeep"),
    ):
        pass
    with pytest.raises(ValueError, match="cloudwatch_namespace"):
        Settings(_env_file=None, cloudwatch_namespace="a*b")
