"""Says what one message of a queue means for the archive, whoever sent it. It asks nobody and changes nothing.

Its errors name the fault and never repeat the message, which may hold signed addresses.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, unquote_plus

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, StringConstraints, ValidationError

from lookalike.errors import UnknownEventError
from lookalike.images import AwaitedManifest, Image, Refused, Removal
from lookalike.settings import Settings
from orchestrator.sources.objects import Objects

MAX_ENVELOPES = 3


@dataclass(frozen=True, slots=True)
class Restored:
    """An image that was out of reach (archived storage) and can be fetched again."""

    image: Image


Statement = Image | Refused | Removal | Restored | AwaitedManifest


@dataclass(frozen=True, slots=True)
class Message:
    """What arrived. `sent` is when, as the queue knows it; `attributes` are what the sender put beside the body."""

    body: str
    sent: datetime
    attributes: Mapping[str, str] = field(default_factory=dict)


class Interpreter:
    """Understands messages by the rules of the settings.

    | from | shape |
    |---|---|
    | S3 and its like | `{"Records": [{"eventName", "eventTime", "s3": {...}}]}`, `{"Event": "s3:TestEvent"}` |
    | EventBridge | `{"source": "aws.s3", "detail-type": "Object Created", "time", "detail": {...}}` |
    | a storage service | `{"space", "externalIdentifier", "version"}`: a bag is registered |
    | a workflow | `{"identifier", "space", "origin", "timeSent"}`: likewise, of some version |
    | a IIIF builder | `{"paths", "reference"}`: says nothing of images |
    | an image server (DLCS) | `{"asset"}`, `{"assetBeforeUpdate", "assetAfterUpdate"}`: only a deletion counts |

    Each may come in the envelope of SNS.
    """

    def __init__(self, settings: Settings) -> None:
        self._objects = Objects(settings)
        self._manifest_url = settings.manifest_url

    def interpret(self, message: Message) -> list[Statement]:
        """Returns what a message says, nothing where that is nothing to do. Raises UnknownEventError."""
        said, attributes = _unpack(message)
        try:
            if "Records" in said:
                return self._of_s3(_S3Event.model_validate(said), message.sent)
            if said.get("source") == "aws.s3" and "detail-type" in said:
                return self._of_event_bridge(_EventBridgeEvent.model_validate(said), message.sent)
            if "externalIdentifier" in said:
                return [self._of_bag(_Bag.model_validate(said), message.sent)]
            if "identifier" in said and "space" in said:
                return [self._of_bag(_Workflow.model_validate(said), message.sent)]
            if "asset" in said:
                return _of_asset(_Asset.model_validate(said), attributes, message.sent)
        except ValidationError as error:
            raise UnknownEventError(_faults(error)) from None
        if said.get("Event") == "s3:TestEvent" or _says_nothing_of_images(said):
            return []
        raise UnknownEventError("a JSON object of no known kind")

    def _of_s3(self, event: "_S3Event", sent: datetime) -> list[Statement]:
        statements: list[Statement] = []
        for record in event.records:
            kind = record.name.removeprefix("s3:")
            thing, bucket = record.s3.thing, record.s3.bucket.name
            name = thing.key if record.source.startswith("ceph:") else _decoded(thing.key)
            if kind.startswith("ObjectCreated:") or kind == "ObjectRestore:Completed":
                restored = kind.startswith("ObjectRestore:")
                statements += self._created(bucket, name, thing, _not_after(record.time, sent), restored)
            elif _GONE.match(kind) and _is_gone(kind.endswith(":DeleteMarkerCreated"), thing):
                statements += self._gone(bucket, name, _not_after(record.time, sent))
        return statements

    def _of_event_bridge(self, event: "_EventBridgeEvent", sent: datetime) -> list[Statement]:
        thing, bucket = event.detail.thing, event.detail.bucket.name
        as_of = _not_after(event.time, sent)
        if event.kind in ("Object Created", "Object Restore Completed"):
            return self._created(bucket, thing.key, thing, as_of, event.kind == "Object Restore Completed")
        is_marker = event.detail.deletion == "Delete Marker Created"
        if event.kind == "Object Deleted" and _is_gone(is_marker, thing):
            return self._gone(bucket, thing.key, as_of)
        return []

    def _created(
        self, bucket: str, name: str, thing: "_Object", as_of: str, restored: bool
    ) -> list[Statement]:
        if not self._objects.is_image(name):
            return []
        found = self._objects.announce(bucket, name, thing.size, thing.etag, as_of)
        return [Restored(found) if restored and isinstance(found, Image) else found]

    def _gone(self, bucket: str, name: str, as_of: str) -> list[Statement]:
        known = self._objects.address_and_key(bucket, name)
        return [Removal(key=known[1], url=known[0], as_of=as_of)] if known else []

    def _of_bag(self, bag: "_Bag | _Workflow", sent: datetime) -> Statement:
        address = self._manifest_url.replace("{identifier}", quote(bag.identifier, safe=""))
        return AwaitedManifest(address, bag.identifier, bag.version, _not_after(bag.time or sent, sent))


# The shapes -----------------------------------------------------------------------------------------------------------


def _as_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("out of range") from None


Moment = Annotated[datetime, AfterValidator(_as_utc)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
BucketName = Annotated[str, StringConstraints(pattern=r"^[^/\s]{1,255}$")]


class _Bucket(BaseModel):
    name: BucketName


class _Object(BaseModel):
    key: str = Field(min_length=1)
    size: int | None = None
    etag: str | None = Field(None, validation_alias=AliasChoices("eTag", "etag"))
    version: str | None = Field(None, validation_alias=AliasChoices("versionId", "version-id"))


class _S3(BaseModel):
    bucket: _Bucket
    thing: _Object = Field(alias="object")


class _Record(BaseModel):
    name: str = Field(alias="eventName")
    time: Moment = Field(alias="eventTime")
    source: str = Field("", alias="eventSource")
    s3: _S3


class _S3Event(BaseModel):
    records: list[_Record] = Field(alias="Records")


class _Detail(_S3):
    deletion: str | None = Field(None, alias="deletion-type")


class _EventBridgeEvent(BaseModel):
    kind: str = Field(alias="detail-type")
    time: Moment
    detail: _Detail


# "." and ".." would lead elsewhere on the host of the manifests.
Identifier = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*[^.\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
    ),
]


class _Bag(BaseModel):
    space: str
    identifier: Identifier = Field(alias="externalIdentifier")
    version: Name
    time: Moment | None = None


class _Workflow(BaseModel):
    space: str
    identifier: Identifier
    time: Moment | None = Field(None, alias="timeSent")
    version: None = None


class _AssetId(BaseModel):
    asset: Name


class _AssetState(BaseModel):
    id: _AssetId | Name


class _Asset(BaseModel):
    asset: _AssetState
    delete_from: Any = Field(None, alias="deleteFrom")


def _of_asset(said: _Asset, attributes: Mapping[str, str], sent: datetime) -> list[Statement]:
    """An asset that was deleted. One that is new or changed comes with its manifest: here it has no address."""
    if attributes.get("messageType") != "Delete" and said.delete_from is None:
        return []
    name = said.asset.id
    # As an object or as text, `customer/space/name`; the name is what its image service goes by.
    key = name.asset if isinstance(name, _AssetId) else name.rpartition("/")[2]
    return [Removal(key=key, as_of=sent.isoformat())] if key else []


def _says_nothing_of_images(said: Mapping[str, object]) -> bool:
    return {"paths", "reference"} <= said.keys() or "assetBeforeUpdate" in said or "assetAfterUpdate" in said


# Details --------------------------------------------------------------------------------------------------------------

_GONE = re.compile(r"ObjectRemoved:|LifecycleExpiration:")
_ENCODED = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")


def _unpack(message: Message) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Takes the envelopes of SNS off. Returns the JSON object within, and the attributes beside it."""
    text, attributes = message.body, message.attributes
    for _ in range(MAX_ENVELOPES):
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            raise UnknownEventError("not JSON") from None
        if not isinstance(said, dict):
            raise UnknownEventError("not a JSON object")
        inner = said.get("Message")
        if not isinstance(inner, str) or not ("TopicArn" in said or said.get("Type") == "Notification"):
            return said, attributes
        text = inner
        if isinstance(found := said.get("MessageAttributes"), dict):
            attributes = {n: str(v.get("Value")) for n, v in found.items() if isinstance(v, dict)}
    raise UnknownEventError("more envelopes than there can be")


def _decoded(key: str) -> str:
    """The key of an event: URL-encoded, spaces as plus signs. What cannot be that is the key itself.

    Some servers send raw keys; those that give themselves away by a space, a letter beyond ASCII or a percent
    sign of their own are taken as they are.
    """
    return unquote_plus(key, errors="surrogateescape") if _ENCODED.fullmatch(key) else key


def _is_gone(is_marker: bool, thing: _Object) -> bool:
    """A version that is deleted for good was not the latest, as a rule: that gets a marker of deletion first."""
    return is_marker or thing.version in (None, "", "null")


def _not_after(moment: datetime, sent: datetime) -> str:
    """The time of an event, which lies before its message: a clock that is wrong must not freeze an image."""
    return min(moment, sent).isoformat()


def _faults(error: ValidationError) -> str:
    """Which fields are at fault, without what they hold."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_context=False, include_url=False)[:5]
    )
