"""What strangers push into the broker: a real worker drops and counts it, lives, and nothing changes."""

import base64
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from lookalike import ledger
from lookalike.archive import add_encoder
from lookalike.contract import CONTRACT
from lookalike.database import Connection
from lookalike.encoders import find_encoder
from lookalike.envelope import MAX_MESSAGE, RefusedMessageError, check_envelope
from lookalike.images import Image
from lookalike.ledger import Lease
from lookalike.queue import Broker, make_app, publish, queue_name, redis_url
from tests.pictures import jpeg, photographs
from tests.servers import Lookalike, wait_until

ENCODER = "efficientnet-lite0"
QUEUE = queue_name(ENCODER, "backfill")
SECURITY = Path(__file__).parents[2] / "docs" / "security.md"

Json = Any
Change = Callable[[Json], None]


def pack(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def put(*path: str, value: object) -> Change:
    """Sets one field of an envelope."""

    def change(envelope: Json) -> None:
        for name in path[:-1]:
            envelope = envelope[name]
        envelope[path[-1]] = value

    return change


def drop(*path: str) -> Change:
    def change(envelope: Json) -> None:
        for name in path[:-1]:
            envelope = envelope[name]
        del envelope[path[-1]]

    return change


LEASE = str(uuid4())
OPTIONS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
SHELL = {"task": "os.system", "args": ["true"], "kwargs": {}, "options": {}, "subtask_type": None}

# Envelopes that differ from ours in one thing.
FORGED: dict[str, Change] = {
    "pickled": lambda envelope: envelope.update(
        {"content-type": "application/x-python-serialize", "body": base64.b64encode(pickle.dumps(1)).decode()}
    ),
    "yaml": put("content-type", value="application/x-yaml"),
    "no type": drop("content-type"),
    "of another encoding": put("content-encoding", value="utf-16"),
    "compressed": put("headers", "compression", value="application/x-gzip"),
    "of another task": put("headers", "task", value="celery.backend_cleanup"),
    "of no task": drop("headers", "task"),
    "without headers": put("headers", value=None),
    "with a list of headers": put("headers", value=[1]),
    "without id": drop("headers", "id"),
    "to wait": put("headers", "eta", value="2099-01-01T00:00:00+00:00"),
    "to expire": put("headers", "expires", value="soon"),
    "to be killed": put("headers", "timelimit", value=[1, 1]),
    "of a group": put("headers", "group", value="g"),
    "of no priority": put("properties", "priority", value="high"),
    "without properties": drop("properties"),
    "without tag": drop("properties", "delivery_tag"),
    "with a tag that is none": put("properties", "delivery_tag", value={"$": 1}),
    "through an exchange": put("properties", "delivery_info", "exchange", value="celeryev"),
    "with more": put("and", value=1),
    "without body": drop("body"),
    "with a body that is none": put("body", value="%%%"),
    "with a body that is no JSON": put("body", value=base64.b64encode(b"\x80\x04K\x01.").decode()),
    "with named arguments": put("body", value=pack([[], {"chunk": 1, "lease": LEASE}, OPTIONS])),
    "that calls back": put("body", value=pack([[1, LEASE], {}, {**OPTIONS, "callbacks": [SHELL]}])),
    "with a chain": put("body", value=pack([[1, LEASE], {}, {**OPTIONS, "chain": [SHELL]}])),
    "with too many arguments": put("body", value=pack([[1] * 17, {}, OPTIONS])),
}
# Envelopes of ours that say nonsense: the task refuses them.
NONSENSE = {
    "no chunk": [],
    "one word": [1],
    "a third": [1, LEASE, {"more": 1}],
    "SQL": ["1; drop table images", LEASE],
    "a number as text": ["1", LEASE],
    "true": [True, LEASE],
    "too large": [2**63, LEASE],
    "negative": [-1, LEASE],
    "no lease": [1, "lease"],
    "objects": [{"__type__": "uuid", "__value__": 1}, [LEASE]],
}
# What is no envelope at all.
RAW = {
    "nothing": b"",
    "text": b"hello",
    "no UTF-8": b"\xff\xfe\x00",
    "a pickle": pickle.dumps({"body": 1}),
    "half": b'{"body": "',
    "a number": b"1",
    "null": b"null",
    "a list": b"[[],{},{}]",
    "deep": b"[" * 60_000,
    "huge": b'{"body": "' + b"x" * 4 * MAX_MESSAGE + b'"}',
    "a type of kombu's": b'{"__type__": "datetime", "__value__": []}',
}


def envelope_of_ours(client: redis.Redis, broker_url: str) -> Json:
    publish(make_app(broker_url, ENCODER), ENCODER, "backfill", [Lease(1, uuid4())])
    return json.loads(client.rpop(QUEUE))


def test_every_field_of_an_envelope_is_checked(broker_url: str) -> None:
    """Ours passes, whoever redelivers it; one that differs in one field does not."""
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        ours = envelope_of_ours(client, broker_url)
    check_envelope(ours)
    again = json.loads(json.dumps(ours))
    again["headers"]["redelivered"] = again["properties"]["delivery_info"]["redelivered"] = True
    check_envelope(again)
    for change in FORGED.values():
        forged = json.loads(json.dumps(ours))
        change(forged)
        with pytest.raises(RefusedMessageError):
            check_envelope(forged)


@pytest.mark.parametrize("raw", RAW)
def test_what_is_no_envelope_is_refused(raw: str) -> None:
    """Whatever JSON it is."""
    try:
        payload = json.loads(RAW[raw])
    except (ValueError, RecursionError):
        return
    with pytest.raises(RefusedMessageError):
        check_envelope(payload)


def test_a_user_without_rights_cannot_write(broker_url: str) -> None:
    """A forger needs the password of the one user that may."""
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        client.execute_command("ACL", "SETUSER", "stranger", "reset", "on", ">secret", "~*", "-@all")
    address = re.sub(r"//[^@]*@", "//stranger:secret@", redis_url(broker_url))
    with (
        redis.Redis.from_url(address) as stranger,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        stranger.lpush(QUEUE, b"{}")


def state(connection: Connection) -> list[object]:
    return connection.execute("select id, state, lease, worker, attempts, crashes from chunks").fetchall()


def test_a_worker_survives_forged_messages(
    connection: Connection, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    """All that is forged and all that is stale; then it does the one message that is ours, and `status` tells."""
    add_encoder(connection, find_encoder(ENCODER), 8)
    (tmp_path / "a.jpg").write_bytes(jpeg(photographs()[0]))
    ledger.register(connection, [Image("a", (tmp_path / "a.jpg").as_uri())], "backfill", 8)
    (claim,) = ledger.lease(connection, ENCODER, "backfill", 16, 600)
    before = state(connection)
    ours = least_privileged(broker_url)
    system = Lookalike(tmp_path, database_url, ours, LOOKALIKE_LEASE_SECONDS="3")
    try:
        with redis.Redis.from_url(redis_url(broker_url)) as client:
            pushed = push_forged(client, envelope_of_ours(client, broker_url), claim)
            worker = system.start("worker")
            refused = "select coalesce(sum(refused), 0) from workers"
            wait_until(
                lambda: (connection.execute(refused).fetchone() or (0,))[0] == pushed, 90, system.logs()
            )
            assert state(connection) == before
            assert connection.execute("select count(*) from failures").fetchone() == (0,)
            assert worker.poll() is None
            publish(make_app(ours, ENCODER), ENCODER, "backfill", [claim])
            broker = Broker(ours)
            assert (broker.was_wiped(), broker.waiting(ENCODER, "events")) == (True, 0)
            broker.close()
            finished = "select count(*) from chunks where state = 'done'"
            wait_until(lambda: connection.execute(finished).fetchone() == (1,), 60, system.logs())
            wait_until(lambda: client.hlen("unacked") == 0, 20, "acknowledgement")
        assert f"dropped {pushed:,} messages that are not ours" in " ".join(
            system.run("status").stdout.split()
        )
    finally:
        system.stop()


def least_privileged(broker_url: str) -> str:
    """The address of the broker for the user that docs/security.md describes."""
    (rules,) = re.findall(r"^user lookalike on >PASSWORD (.*)$", SECURITY.read_text(), re.MULTILINE)
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        client.execute_command("ACL", "SETUSER", "lookalike", "reset", "on", ">secret", *rules.split())
    return re.sub(r"//[^@]*@", "//lookalike:secret@", broker_url)


def push_forged(client: redis.Redis, ours: Json, claim: Lease) -> int:
    """Pushes all that is forged; returns how many a worker is to count. Stale ones of our own form it passes over."""
    for raw in RAW.values():
        client.lpush(QUEUE, raw)
        client.lpush(queue_name(ENCODER, "suspect"), raw)
    for change in FORGED.values():
        forged = json.loads(json.dumps(ours))
        change(forged)
        client.lpush(QUEUE, json.dumps(forged))
    for number, words in enumerate(NONSENSE.values()):
        ours["properties"]["delivery_tag"] = f"nonsense-{number}"
        ours["body"] = pack([words, {}, OPTIONS])
        client.lpush(QUEUE, json.dumps(ours))
    # Neither a foreign lease nor an unknown chunk finds a row.
    for number, words in enumerate(
        ([claim.chunk, str(uuid4()), CONTRACT], [2**62, str(claim.lease), CONTRACT])
    ):
        ours["properties"]["delivery_tag"] = f"stale-{number}"
        ours["body"] = pack([words, {}, OPTIONS])
        client.lpush(QUEUE, json.dumps(ours))
    return 2 * len(RAW) + len(FORGED) + len(NONSENSE)


@pytest.mark.parametrize(
    "value", [b"", b"hello", b"1", b"[1]", b'["a", "b", "c"]', b'[{}, "e", "r"]', b"\xff"]
)
def test_what_is_forged_among_the_unacknowledged_is_dropped(broker_url: str, value: bytes) -> None:
    """A worker that gives back what others left takes it away, and is not ended by it."""
    with (
        redis.Redis.from_url(redis_url(broker_url)) as client,
        make_app(broker_url, ENCODER).connection_for_read() as connection,
    ):
        qos = connection.default_channel.qos
        client.hset("unacked", "forged", value)
        client.zadd("unacked_index", {"forged": 1})
        qos.restore_by_tag("forged")
        assert (client.hlen("unacked"), client.zcard("unacked_index")) == (0, 0)
