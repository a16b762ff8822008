"""Queues of events against real servers of S3, SNS and SQS (moto) and a real ledger."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import psycopg
import pytest
from psycopg import sql

from lookalike import archive, awaited, books, ledger
from lookalike.database import Connection, connect
from lookalike.errors import SourceError
from lookalike.ledger import Failure, RetryPolicy
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.events.consumer import Consumer, consume
from orchestrator.events.messages import Interpreter
from orchestrator.events.queue import Queue
from tests.conftest import embedded_settings
from tests.factories import TINY, make_vectors
from tests.servers import ROOT, aws_server, wait_until

KEYS = ["a/with space+plus é.jpg", "a/100%.jpg", "a/b&c=d?#.tif", "plain.png"]
# Takes messages in and dies before it deletes them.
DYING = """
import os, signal, sys, threading
from lookalike.database import connect
from lookalike.settings import Settings
from orchestrator.events import consumer, queue
class Dying(queue.Queue):
    def delete(self, messages):
        os.kill(os.getpid(), signal.SIGKILL)
consumer.Queue = Dying
consumer.consume(
    Settings(_env_file=None), lambda: connect(sys.argv[1], application_name="dying"), sys.argv[2], threading.Event())
"""


@pytest.fixture(scope="module")
def aws_environment() -> Iterator[dict[str, str]]:
    with aws_server() as environment:
        yield environment


@pytest.fixture
def aws(aws_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in aws_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return aws_environment


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return embedded_settings(tmp_path)


@pytest.fixture
def archive_db(connection: Connection) -> Connection:
    archive.add_encoder(connection, TINY, chunk_size=4)
    return connection


class Sqs:
    """A queue of the test's own, with a queue of dead letters where wanted."""

    def __init__(self, *, visibility: int = 1, tries: int | None = None, fifo: bool = False) -> None:
        self.client = boto3.client("sqs")
        suffix = ".fifo" if fifo else ""
        self.name = f"q-{uuid4().hex}{suffix}"
        attributes = {"VisibilityTimeout": str(visibility)}
        if fifo:
            attributes |= {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        if tries is not None:
            self.dead_url = self.client.create_queue(QueueName=f"dead-{self.name}")["QueueUrl"]
            attributes["RedrivePolicy"] = json.dumps(
                {"deadLetterTargetArn": self._arn(self.dead_url), "maxReceiveCount": str(tries)}
            )
        self.url = self.client.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]
        self.arn = self._arn(self.url)
        self.spec = f"sqs:{self.name}"

    def _arn(self, url: str) -> str:
        answer = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]

    def send(self, body: object, **options: Any) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.client.send_message(QueueUrl=self.url, MessageBody=text, **options)

    def count(self, url: str | None = None) -> int:
        """Messages in the queue, also those that somebody holds."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.client.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)


@contextmanager
def consuming(settings: Settings, database_url: str, spec: str) -> Iterator[threading.Thread]:
    """Runs the consumer in a thread, as the orchestrator does."""
    stop = threading.Event()

    def connected() -> Connection:
        return connect(database_url, application_name="consumer")

    thread = threading.Thread(target=consume, args=(settings, connected, spec, stop), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        begun = time.monotonic()
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
        assert time.monotonic() - begun < 5


def step_until(connection: Connection, settings: Settings, spec: str, done: Callable[[], bool]) -> None:
    """Receives in this thread until the condition holds."""
    consumer = Consumer(settings, Queue(spec, settings), Interpreter(settings))
    until = time.monotonic() + 20
    while not done():
        assert time.monotonic() < until
        consumer.step(connection)


def keys(connection: Connection) -> list[str]:
    rows = connection.execute("select key from images").fetchall()
    return sorted(str(row[0]) for row in rows)


def counts(connection: Connection, spec: str) -> dict[str, Any]:
    row = connection.execute(
        "select new, changed, unchanged, gone, deleted, irrelevant, refused from sources where name = %s",
        [spec],
    ).fetchone()
    names = ("new", "changed", "unchanged", "gone", "deleted", "irrelevant", "refused")
    return dict(zip(names, row, strict=True)) if row else {}


def created(
    key: str, when: str = "2026-03-01T12:00:00Z", etag: str = "e", name: str = "ObjectCreated:Put"
) -> Any:
    thing = {"key": key, "size": 3, "eTag": etag}
    return {"eventName": name, "eventTime": when, "s3": {"bucket": {"name": "scans"}, "object": thing}}


def test_uploads_and_deletions_in_s3(
    archive_db: Connection, database_url: str, settings: Settings, aws: dict[str, str]
) -> None:
    """What is uploaded becomes images in the lane of events, what is deleted is gone; test events do no harm."""
    queue, s3 = Sqs(), boto3.client("s3")
    bucket = f"scans-{uuid4().hex}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    events = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [events]}
    )
    with consuming(settings, database_url, queue.spec):
        for key in [*KEYS, "notes.txt", "folder/"]:
            s3.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else b"123")
        wait_until(lambda: keys(archive_db) == sorted(f"{bucket}/{key}" for key in KEYS), 20, "images")
        s3.delete_object(Bucket=bucket, Key=KEYS[0])
        wait_until(lambda: len(keys(archive_db)) == len(KEYS) - 1, 20, "the deletion")
        wait_until(lambda: queue.count() == 0, 20, "an empty queue")
    assert set(archive_db.execute("select distinct lane from chunks").fetchall()) == {("events",)}
    found = counts(archive_db, queue.spec)
    assert (found["new"], found["deleted"], found["refused"]) == (len(KEYS), 1, {})
    assert archive_db.execute(
        "select url, source from images where key = %s", [f"{bucket}/plain.png"]
    ).fetchone() == (
        f"s3://{bucket}/plain.png",
        queue.spec,
    )


@pytest.mark.parametrize("raw", ["true", "false"])
def test_topics_of_sns(archive_db: Connection, settings: Settings, aws: dict[str, str], raw: str) -> None:
    """Messages that come by a topic are understood in their envelope and without; a queue may be named by its URL."""
    queue, sns = Sqs(), boto3.client("sns")
    topic = sns.create_topic(Name=f"t-{uuid4().hex}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn, Attributes={"RawMessageDelivery": raw})
    sns.publish(TopicArn=topic, Message=json.dumps({"Records": [created("x.jpg")]}))
    kind = {"messageType": {"DataType": "String", "StringValue": "Delete"}}
    ledger.register(archive_db, [ledger.Image("b1_0001.jp2", "https://h.org/image/b1_0001.jp2", "iiif")])
    sns.publish(
        TopicArn=topic, Message=json.dumps({"asset": {"id": "2/5/b1_0001.jp2"}}), MessageAttributes=kind
    )
    step_until(archive_db, settings, f"sqs:{queue.url}", lambda: keys(archive_db) == ["scans/x.jpg"])
    assert queue.count() == 0


def test_unknown_messages_become_dead_letters(
    archive_db: Connection, database_url: str, settings: Settings, aws: dict[str, str]
) -> None:
    """What cannot be understood is counted once and ends in the queue of dead letters; others go through at once."""
    queue = Sqs(tries=2)
    for number in range(3):
        queue.send({"what": f"is this {number}", "token": "secret"})
        queue.send({"Records": [created(f"{number}.jpg")]})
    with consuming(settings, database_url, queue.spec):
        wait_until(lambda: len(keys(archive_db)) == 3, 5, "the images")
        wait_until(lambda: queue.count(queue.dead_url) == 3, 30, "the dead letters")
    assert queue.count() == 0
    assert counts(archive_db, queue.spec)["refused"] == {"unknown_event": 3}


def test_killed_between_commit_and_delete(
    archive_db: Connection, database_url: str, settings: Settings, aws: dict[str, str]
) -> None:
    """A consumer that dies after the commit has done nothing twice when its messages come again."""
    queue = Sqs(visibility=2)
    for number in range(5):
        queue.send({"Records": [created(f"{number}.jpg")]})
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    died = subprocess.run(
        [sys.executable, "-c", DYING, database_url, queue.spec], env=environment, timeout=60, check=False
    )
    assert died.returncode == -9
    taken = len(keys(archive_db))
    assert taken > 0
    assert queue.count() == 5
    step_until(archive_db, settings, queue.spec, lambda: queue.count() == 0)
    assert len(keys(archive_db)) == 5
    covered = archive_db.execute("select sum(coalesce(cardinality(ids), hi - lo + 1)) from chunks").fetchone()
    assert covered == (5,)
    assert (counts(archive_db, queue.spec)["new"], counts(archive_db, queue.spec)["unchanged"]) == (5, taken)


def test_order_of_events(archive_db: Connection, settings: Settings, aws: dict[str, str]) -> None:
    """Within a batch and across batches the time of an event decides, whatever the order in which they come."""
    queue = Sqs()

    def take(*records: Any) -> None:
        queue.send({"Records": list(records)})
        step_until(archive_db, settings, queue.spec, lambda: queue.count() == 0)

    removed = "ObjectRemoved:Delete"
    take(created("a.jpg", "2026-03-01T12:00:03Z", "3"), created("a.jpg", "2026-03-01T12:00:02Z", name=removed),
         created("a.jpg", "2026-03-01T12:00:01Z", "1"))  # fmt: skip
    assert archive_db.execute("select content from images").fetchall() == [("3",)]
    take(created("a.jpg", "2026-03-01T12:00:04Z", name=removed))
    take(created("a.jpg", "2026-03-01T12:00:03Z", "3"))
    assert keys(archive_db) == []
    take(created("a.jpg", "2026-03-01T12:00:05Z", "5"))
    take(created("a.jpg", "2026-03-01T12:00:04Z", name=removed))
    assert archive_db.execute("select content from images").fetchall() == [("5",)]


def test_fifo(archive_db: Connection, settings: Settings, aws: dict[str, str]) -> None:
    """A FIFO queue is read like another one; an unknown message leaves other groups alone."""
    queue = Sqs(fifo=True)
    queue.send("nonsense", MessageGroupId="bad")
    for number in range(3):
        queue.send({"Records": [created(f"{number}.jpg")]}, MessageGroupId="good")
    step_until(archive_db, settings, queue.spec, lambda: len(keys(archive_db)) == 3)
    assert queue.count() == 1


def test_new_content_is_embedded_again(
    archive_db: Connection, settings: Settings, aws: dict[str, str]
) -> None:
    """A changed ETag queues the image in the lane of events, and its vector stays until there is a new one."""
    queue = Sqs()
    queue.send({"Records": [created("a.jpg", "2026-03-01T12:00:01Z", "1")]})
    step_until(archive_db, settings, queue.spec, lambda: queue.count() == 0)
    (claim,) = ledger.lease(archive_db, "tiny", "events", window=100, seconds=60, batch=1)
    chunk = ledger.start(archive_db, claim, "w", 60)
    assert chunk is not None
    ledger.finish(archive_db, chunk, make_vectors(chunk.images, archive_db), [], RetryPolicy(3, 0.01))
    queue.send({"Records": [created("a.jpg", "2026-03-01T12:00:02Z", "2")]})
    step_until(archive_db, settings, queue.spec, lambda: queue.count() == 0)
    assert books.count_books(archive_db, "tiny") == books.Books(1, 0, 0, 1, 0)
    assert archive_db.execute("select count(*) from vectors_tiny").fetchone() == (1,)
    assert counts(archive_db, queue.spec)["changed"] == 1


def test_restored_objects_are_tried_again(
    archive_db: Connection, settings: Settings, aws: dict[str, str]
) -> None:
    """An image that failed while its object was archived is pending again when it is restored."""
    queue = Sqs()
    queue.send({"Records": [created("a.jpg")]})
    step_until(archive_db, settings, queue.spec, lambda: queue.count() == 0)
    (claim,) = ledger.lease(archive_db, "tiny", "events", window=100, seconds=60, batch=1)
    chunk = ledger.start(archive_db, claim, "w", 60)
    assert chunk is not None
    failure = Failure(chunk.images[0], Reason.FORBIDDEN)
    ledger.finish(archive_db, chunk, make_vectors([], archive_db), [failure], RetryPolicy(3, 0.01))
    assert books.count_books(archive_db, "tiny").failed == 1
    queue.send({"Records": [created("a.jpg", "2026-03-02T12:00:00Z", name="ObjectRestore:Completed")]})
    step_until(archive_db, settings, queue.spec, lambda: queue.count() == 0)
    assert books.count_books(archive_db, "tiny") == books.Books(1, 0, 0, 1, 0)


def test_database_that_goes_away(
    archive_db: Connection, database_url: str, server_url: str, settings: Settings, aws: dict[str, str]
) -> None:
    """While the database is away nothing is received; when it is back, everything is taken in."""
    queue = Sqs(tries=3)
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]

    def allow(allowed: str) -> None:
        with psycopg.connect(server_url, autocommit=True) as admin:
            statement = sql.SQL("alter database {} allow_connections {}")
            admin.execute(statement.format(sql.Identifier(str(name)), sql.SQL(allowed)))
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = %s and application_name = 'consumer'",
                [name],
            )

    with consuming(settings, database_url, queue.spec):
        queue.send({"Records": [created("1.jpg")]})
        wait_until(lambda: len(keys(archive_db)) == 1, 10, "the first image")
        allow("false")
        queue.send({"Records": [created("2.jpg")]})
        time.sleep(3)
        assert queue.count() == 1
        assert len(keys(archive_db)) == 1
        allow("true")
        wait_until(lambda: len(keys(archive_db)) == 2, 30, "the second image")
    assert queue.count(queue.dead_url) == 0


def test_queue_that_comes_later(
    archive_db: Connection,
    database_url: str,
    settings: Settings,
    aws: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A queue that is not there is named with advice and waited for; a spec that names none is an error."""
    name = f"later-{uuid4().hex}"
    client = boto3.client("sqs")
    with consuming(settings, database_url, f"sqs:{name}"):
        wait_until(lambda: "no such queue; check its name" in caplog.text, 10, "the warning")
        url = client.create_queue(QueueName=name)["QueueUrl"]
        client.send_message(QueueUrl=url, MessageBody=json.dumps({"Records": [created("1.jpg")]}))
        wait_until(lambda: len(keys(archive_db)) == 1, 20, "the image")
    with pytest.raises(SourceError, match=r"write sqs:NAME"):
        Queue("sqs:not a name", settings)
    with pytest.raises(SourceError, match=r"write sqs:NAME") as raised:
        Queue("sqs:https://user:secret@host/1/name", settings)
    assert "secret" not in str(raised.value)


def test_messages_that_postgres_does_not_take(
    archive_db: Connection, settings: Settings, aws: dict[str, str]
) -> None:
    """A message that the database refuses is left like an unknown one; those received with it go through."""
    queue = Sqs()
    queue.send({"Records": [created("bad.jpg"), created("bad2.jpg")]})
    queue.send({"space": "s", "externalIdentifier": "b1", "version": "v1"})
    archive_db.execute("alter table images add check (key <> 'scans/bad.jpg')")
    queue.send({"Records": [created("good.jpg")]})
    step_until(
        archive_db, settings, queue.spec, lambda: queue.count() == 1 and "scans/good.jpg" in keys(archive_db)
    )
    assert keys(archive_db) == ["scans/good.jpg"]
    assert counts(archive_db, queue.spec)["refused"] == {"unknown_event": 1}
    assert awaited.count_awaited(archive_db) == {"awaited": 1, "failed": 0}
