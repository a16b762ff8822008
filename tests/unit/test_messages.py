"""What messages mean: every shape that the archive's systems send, in and out of envelopes, whole and broken."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lookalike.errors import UnknownEventError
from lookalike.images import AwaitedManifest, Image, Refused, Removal
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.events.batch import combine
from orchestrator.events.messages import Interpreter, Message, Restored, Statement

SENT = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
AT = "2026-03-01T12:00:00+00:00"
Json = dict[str, Any]


def interpret(body: object, attributes: Json | None = None, **settings: Any) -> list[Statement]:
    text = body if isinstance(body, str) else json.dumps(body)
    made = Interpreter(Settings(_env_file=None, **settings))
    return made.interpret(Message(text, SENT, attributes or {}))


def record(
    key: str = "a/one.jpg", name: str = "ObjectCreated:Put", source: str = "aws:s3", **thing: Any
) -> Json:
    return {
        "eventVersion": "2.1",
        "eventSource": source,
        "eventTime": "2026-03-01T12:00:00.000Z",
        "eventName": name,
        "s3": {"bucket": {"name": "scans"}, "object": {"key": key, "size": 5, "eTag": "e1", **thing}},
    }


def s3_event(*records: Json) -> Json:
    return {"Records": list(records)}


def event_bridge(kind: str, key: str = "a/one.jpg", **detail: Any) -> Json:
    return {
        "version": "0",
        "source": "aws.s3",
        "detail-type": kind,
        "time": "2026-03-01T12:00:00Z",
        "detail": {"bucket": {"name": "scans"}, "object": {"key": key, "size": 5, "etag": "e1"}, **detail},
    }


def image(key: str = "a/one.jpg") -> Image:
    return Image(f"scans/{key}", f"s3://scans/{key}", content="e1", as_of=AT)


def removal(key: str = "a/one.jpg") -> Removal:
    return Removal(key=f"scans/{key}", url=f"s3://scans/{key}", as_of=AT)


def test_s3_events_may_have_several_records() -> None:
    """Each record of an S3 event is an image, or one that is gone."""
    body = s3_event(
        record(), record("b.tif", "ObjectRemoved:Delete"), record("c.png", "s3:ObjectCreated:Copy")
    )
    assert interpret(body) == [image(), removal("b.tif"), image("c.png")]


@pytest.mark.parametrize(
    ("sent", "source", "key"),
    [
        ("a/with+space%2Bplus+%C3%A9%25.jpg", "aws:s3", "a/with space+plus é%.jpg"),
        ("a%2Fwith+space%2Bplus+%C3%A9.jpg", "aws:s3", "a/with space+plus é.jpg"),
        ("a/with%20space%2Bplus%20%C3%A9.jpg", "aws:s3", "a/with space+plus é.jpg"),
        ("a/raw space+plus é.jpg", "aws:s3", "a/raw space+plus é.jpg"),
        ("a/raw+plus.jpg", "ceph:s3", "a/raw+plus.jpg"),
        ("a/100%.jpg", "aws:s3", "a/100%.jpg"),
    ],
    ids=["AWS", "moto", "LocalStack", "raw", "Ceph", "raw percent"],
)
def test_keys_are_decoded(sent: str, source: str, key: str) -> None:
    """Keys of objects arrive in the encodings of several servers and come out as they are in the bucket."""
    assert interpret(s3_event(record(sent, source=source))) == [image(key)]


@pytest.mark.parametrize(
    "body",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "scans"},
        {"Records": []},
        s3_event(record(name="ObjectTagging:Put")),
        s3_event(record(name="ReducedRedundancyLostObject")),
        s3_event(record("notes.txt")),
        s3_event(record("a/", size=0)),
        s3_event(record(name="ObjectRemoved:Delete", versionId="v1")),
        event_bridge("Object Tags Added"),
        event_bridge("Object Created", "notes.txt"),
        {"paths": ["/x"], "reference": "dds-b1-1"},
        {"asset": {"id": "2/5/b1_0001.jp2"}},
        {"assetBeforeUpdate": {"id": "2/5/x"}, "assetAfterUpdate": {"id": "2/5/x"}},
    ],
)
def test_some_messages_say_nothing(body: Json) -> None:
    """What does not concern images is understood, and there is nothing to do."""
    assert interpret(body) == []


@pytest.mark.parametrize(
    "name",
    ["ObjectRemoved:Delete", "ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:DeleteMarkerCreated"],
)
def test_objects_that_are_gone(name: str) -> None:
    """Deletions, markers of deletions and expiries take an image away; an event of them has no size or ETag."""
    body = s3_event(record(name=name))
    thing = body["Records"][0]["s3"]["object"]
    del thing["size"], thing["eTag"]
    if name.endswith("DeleteMarkerCreated"):
        thing["versionId"] = "marker"
    assert interpret(body) == [removal()]


def test_restored_objects_are_fetched_again() -> None:
    """An object that came back from archived storage is told from one that is new."""
    assert interpret(s3_event(record(name="ObjectRestore:Completed"))) == [Restored(image())]
    assert interpret(event_bridge("Object Restore Completed")) == [Restored(image())]


def test_event_bridge() -> None:
    """Events of EventBridge have raw keys, and say in words whether an object is gone for good."""
    assert interpret(event_bridge("Object Created", "a/%2B one+.jpg")) == [image("a/%2B one+.jpg")]
    marker = event_bridge("Object Deleted", **{"deletion-type": "Delete Marker Created"})
    marker["detail"]["object"]["version-id"] = "m"
    assert interpret(marker) == [removal()]
    version = event_bridge("Object Deleted", **{"deletion-type": "Permanently Deleted"})
    version["detail"]["object"]["version-id"] = "v1"
    assert interpret(version) == []


def test_envelopes_of_sns() -> None:
    """A message means the same in the envelope of SNS, without its type, and in an envelope in an envelope."""
    inner = json.dumps(s3_event(record()))
    wrapped = {"Type": "Notification", "TopicArn": "arn:aws:sns:x", "Message": inner}
    assert interpret(wrapped) == [image()]
    assert interpret({"TopicArn": "arn:aws:sns:x", "Message": inner}) == [image()]
    assert interpret({"Type": "Notification", "Message": json.dumps(wrapped)}) == [image()]


def test_bags() -> None:
    """A bag that was registered promises a manifest; the workflow says so too, and knows no version."""
    bag = {
        "space": "digitised",
        "externalIdentifier": "b20278512",
        "version": "v1",
        "type": "RegisteredBagNotification",
    }
    address = "https://iiif.wellcomecollection.org/presentation/v3/b20278512"
    assert interpret(bag) == [AwaitedManifest(address, "b20278512", "v1", SENT.isoformat())]
    said = {
        "identifier": "b20278512",
        "space": "digitised",
        "origin": "dashboard",
        "timeSent": "2026-03-01T12:00:00Z",
    }
    assert interpret(said) == [AwaitedManifest(address, "b20278512", None, AT)]
    odd = bag | {"externalIdentifier": "PP/CRI/A 1"}
    assert interpret(odd, manifest_url="https://h.org/{identifier}/manifest.json") == [
        AwaitedManifest("https://h.org/PP%2FCRI%2FA%201/manifest.json", "PP/CRI/A 1", "v1", SENT.isoformat())
    ]


@pytest.mark.parametrize(
    "identifier", ["2/5/b1_0001.jp2", {"customer": 2, "space": 5, "asset": "b1_0001.jp2"}]
)
def test_deleted_assets(identifier: object) -> None:
    """An asset that the image server has deleted is gone: by the attribute, in an envelope or not, or by its shape."""
    gone = [Removal(key="b1_0001.jp2", as_of=SENT.isoformat())]
    body: Json = {"asset": {"id": identifier}}
    assert interpret(body, {"messageType": "Delete"}) == gone
    assert interpret(body, {"messageType": "Create"}) == []
    assert interpret(body | {"deleteFrom": "cdn"}) == gone
    attributes = {"messageType": {"Type": "String", "Value": "Delete"}}
    assert interpret({"TopicArn": "t", "Message": json.dumps(body), "MessageAttributes": attributes}) == gone


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[1]",
        "[" * 100_000,
        {},
        {"hello": "world"},
        {"Records": [{"eventName": "ObjectCreated:Put"}]},
        {"Records": "none"},
        {"source": "aws.ec2", "detail-type": "Instance Changed"},
        {"space": "digitised", "externalIdentifier": "", "version": "v1"},
        {"space": "digitised", "externalIdentifier": "b\u0000", "version": "v1"},
        {"Type": "Notification", "Message": "hello"},
        {
            "Type": "Notification",
            "Message": json.dumps({"Type": "Notification", "Message": '{"Message": "x"}'}),
        },
        {"asset": None},
        s3_event({**record(), "eventTime": "yesterday"}),
    ],
)
def test_unknown_messages(body: object) -> None:
    """What cannot be understood raises the error for it, and the error repeats nothing of the message."""
    with pytest.raises(UnknownEventError) as raised:
        interpret(body)
    assert raised.value.reason is Reason.UNKNOWN_EVENT
    assert "yesterday" not in str(raised.value)


def test_empty_objects_are_refused() -> None:
    """An image of zero bytes is refused, with its address."""
    (refused,) = interpret(s3_event(record(size=0)))
    assert isinstance(refused, Refused)
    assert (refused.where, refused.reason) == ("s3://scans/a/one.jpg", Reason.EMPTY)


def test_clocks_that_are_ahead_freeze_nothing() -> None:
    """An event is never younger than its message."""
    (found,) = interpret(s3_event({**record(), "eventTime": "9999-12-31T23:59:59Z"}))
    assert isinstance(found, Image)
    assert found.as_of == SENT.isoformat()


@pytest.mark.parametrize("identifier", [".", "..", "..."])
def test_no_event_leads_up_the_path(identifier: str) -> None:
    """What an event calls a bag stays one segment of the manifest's address: slashes are encoded, dots refused."""
    bag = {"space": "digitised", "externalIdentifier": identifier, "version": "v1"}
    with pytest.raises(UnknownEventError):
        interpret(bag)
    (found,) = interpret({**bag, "externalIdentifier": f"{identifier}/b1"})
    assert isinstance(found, AwaitedManifest)
    assert found.address.endswith(f"/v3/{identifier}%2Fb1")


def test_suffixes_and_keys_are_settings() -> None:
    """Only chosen suffixes are images; keys and works are found by the rule, or the object is refused."""
    rule = {
        "suffixes": ".jp2, .TIF",
        "s3_key": r"(?P<work>b\d+)/v\d+/data/objects/(?P<key>[^/]+)$",
    }
    name = "digitised/b24923333/v1/data/objects/b24923333_0001.jp2"
    assert interpret(s3_event(record(name)), **rule) == [
        Image("b24923333_0001.jp2", f"s3://scans/{name}", work="b24923333", content="e1", as_of=AT)
    ]
    assert interpret(s3_event(record("a.jpg")), **rule) == []
    (refused,) = interpret(s3_event(record("elsewhere/x.tif")), **rule)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.BAD_RECORD
    assert interpret(s3_event(record("elsewhere/x.tif", "ObjectRemoved:Delete")), **rule) == []


def test_latest_statement_of_a_key_counts() -> None:
    """Created, removed, created: in any order of arrival the image is there; otherwise it is gone."""
    early, late = "2026-03-01T12:00:01+00:00", "2026-03-01T12:00:02+00:00"
    first, gone, again = (
        image(),
        Removal(key=image().key, as_of=early),
        Image(image().key, image().url, as_of=late),
    )
    assert combine([gone, again, first]).images == [again]
    assert combine([gone, again, first]).removals == []
    assert combine([gone, first]).removals == [gone]
    assert combine([gone, first]).images == []


def test_removed_objects_leave_the_image_that_took_their_key() -> None:
    """A key that passed to another object is not taken away by the removal of the first."""
    new = Image("k", "s3://scans/v2/k", as_of="2026-03-01T12:00:00+00:00")
    old = Removal(key="k", url="s3://scans/v1/k", as_of="2026-03-01T12:00:01+00:00")
    assert combine([new, old]).images == [new]
    assert combine([new, old]).removals == []


def test_bag_announced_twice_is_awaited_once() -> None:
    """Two events of one bag are one manifest, of the version that one of them knew."""
    known = AwaitedManifest("https://h.org/b1", "b1", "v2", "2026-03-01T12:00:00+00:00")
    unknown = AwaitedManifest("https://h.org/b1", "b1", None, "2026-03-01T12:00:01+00:00")
    assert combine([unknown, known]).awaited == [
        AwaitedManifest("https://h.org/b1", "b1", "v2", "2026-03-01T12:00:01+00:00")
    ]
