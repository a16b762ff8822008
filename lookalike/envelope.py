"""What a message must be before Celery sees it: JSON, of our one task, asking nothing else. All else is only counted.

Whoever can write to the broker must not be able to stop a worker or to run code in it. What the message says to the
worker (a chunk, its lease) is the task's own to check.
"""

import base64
import logging
import threading
from collections.abc import Callable
from queue import Empty
from typing import Annotated, Any, Literal
from uuid import UUID

import kombu.transport.redis
from kombu.transport import virtual
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

log = logging.getLogger(__name__)

TASK = "lookalike.embed"
MAX_MESSAGE = 64 * 1024
"""Longest message in bytes; ours have about one thousand."""

# Those that only say how many are missing: a flood of messages must not become a flood in the log.
_LOGGED = 100
_Nothing = Annotated[dict[str, object], Field(max_length=0)]


class _Headers(BaseModel):
    """Celery's headers. What would have it wait, call back, unpack or kill is not ours; new ones say nothing to us."""

    model_config = ConfigDict(extra="ignore")

    task: Literal["lookalike.embed"]
    id: UUID
    retries: Literal[0]
    timelimit: tuple[None, None]
    eta: None
    expires: None
    group: None
    shadow: None
    compression: None = None
    chord: None = None
    stamped_headers: None = None
    stamps: _Nothing = {}


class _Delivery(BaseModel):
    exchange: Literal[""]
    routing_key: Annotated[str, Field(max_length=200)]


class _Properties(BaseModel):
    delivery_tag: Annotated[str, Field(min_length=1, max_length=200)]
    body_encoding: Literal["base64"]
    delivery_info: _Delivery
    priority: Literal[0]


class _Envelope(BaseModel):
    """What the Redis transport keeps in its lists."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    body: str
    content_type: Annotated[Literal["application/json"], Field(alias="content-type")]
    content_encoding: Annotated[Literal["utf-8"], Field(alias="content-encoding")]
    headers: _Headers
    properties: _Properties


class _Options(BaseModel):
    """What Celery is to do after the task: nothing."""

    model_config = ConfigDict(extra="forbid")

    callbacks: None
    errbacks: None
    chain: None
    chord: None


# A few words by place, none by name, and the options. No objects: kombu makes things of some, and stumbles over others.
_Body = tuple[Annotated[list[str | int | float | None], Field(max_length=16)], _Nothing, _Options]
_BODY: TypeAdapter[_Body] = TypeAdapter(_Body)


class RefusedMessageError(ValueError):
    """The message is not ours."""


class Refusals:
    """Counts messages that were dropped by this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @property
    def count(self) -> int:
        return self._count

    def add(self, why: object) -> None:
        """One more. The first are logged, with what is wrong but without what they hold."""
        with self._lock:
            self._count += 1
            number = self._count
        if number <= _LOGGED:
            log.warning("a message that is not ours was dropped: %s", why)
        if number == _LOGGED:
            log.warning("further ones are only counted: see `lookalike status`")


refusals = Refusals()


def check_envelope(payload: object) -> None:
    """Raises RefusedMessageError, which names the field at fault, for what no orchestrator of ours has sent."""
    try:
        envelope = _Envelope.model_validate(payload)
        _BODY.validate_json(base64.b64decode(envelope.body, validate=True))
    except ValidationError as error:
        faults = [".".join(map(str, fault["loc"])) or "the whole" for fault in error.errors()]
        raise RefusedMessageError(", ".join(faults)[:200]) from None
    except (ValueError, RecursionError) as error:
        raise RefusedMessageError(type(error).__name__) from None


def guard_transport() -> None:
    """Has kombu's Redis transport drop what is not ours, for all forms of addresses (redis, rediss, socket, sentinel).

    kombu has no hook: it parses a message in the worker's event loop, and one that is no JSON ends the process.
    """
    channel = kombu.transport.redis.Channel
    if channel.Message is not _CheckedMessage:
        kombu.transport.redis.loads = _parse(kombu.transport.redis.loads)
        channel._brpop_read = _dropping(channel._brpop_read)
        channel.Message = _CheckedMessage


class _CheckedMessage(virtual.Message):  # type: ignore[misc]  # kombu has no types
    """A message that is checked before anything is made of it."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        check_envelope(payload)
        super().__init__(payload, channel, **options)


def _parse(loads: Callable[[str], object]) -> Callable[[str], object]:
    def parse(text: str) -> object:
        if len(text) > MAX_MESSAGE:
            raise RefusedMessageError(f"{len(text)} characters")
        try:
            return loads(text)
        except (ValueError, RecursionError, TypeError, KeyError) as error:
            raise RefusedMessageError(f"no JSON ({type(error).__name__})") from None

    return parse


def _dropping(read: Callable[..., object]) -> Callable[..., object]:
    def read_ours(channel: Any, **options: Any) -> object:
        try:
            return read(channel, **options)
        except RefusedMessageError as error:
            # It has left its list and is not among the unacknowledged yet: nobody will see it again.
            refusals.add(error)
            raise Empty from None

    return read_ours
