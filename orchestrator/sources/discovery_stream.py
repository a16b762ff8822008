"""The activities of a IIIF Change Discovery stream (1.0, 0.9): read backwards from the newest, kept on disk.

It only reads the stream; what an activity means for images is `discovery`'s affair.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import IO, TypeGuard

from lookalike.errors import SourceError
from orchestrator.sources.manifest import Resource, as_list, identifier, kind
from orchestrator.sources.records import joined, manifest_fault, printable, without_secrets
from orchestrator.sources.web import Web

_KNOWN = frozenset({"create", "update", "add", "delete", "remove", "move"})
_GONE = frozenset({"delete", "remove"})
_OBJECTS = frozenset({"manifest", "collection", ""})  # "": the stream does not say
_IN_MEMORY = 2**24  # bytes of activities; more of them go to disk
_TOLERANCE = timedelta(days=1)  # clocks that run ahead


@dataclass(frozen=True, slots=True)
class Activity:
    """One change: its kind and the ids of object and target. `time` is in UTC and sorts as text ("" for none).

    `fault` says why it cannot be used. What is not `wanted` was overtaken by a later activity, or means
    nothing to us.
    """

    kind: str
    object: str = ""
    object_kind: str = ""
    target: str = ""
    time: str = ""
    fault: str = ""
    wanted: bool = True

    @property
    def digest(self) -> bytes:
        """What tells it from other activities of the same time."""
        return _digest(f"{self.kind} {self.object} {self.target}")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of activities, in their order."""

    address: str
    activities: list[Activity]


class Spool:
    """Pages that were read backwards, given out forwards; in memory while they are few, then on disk."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by close()
        self._starts: list[int] = []

    def put(self, page: Page) -> None:
        """Adds the page before those that were added."""
        self._starts.append(self._file.seek(0, os.SEEK_END))
        activities = [astuple(each) for each in page.activities]
        self._file.write(json.dumps([page.address, activities]).encode() + b"\n")

    def pages(self) -> Iterator[Page]:
        """Yields the pages, the one that was added last first."""
        for start in reversed(self._starts):
            self._file.seek(start)
            address, activities = json.loads(self._file.readline())
            yield Page(address, [Activity(*fields) for fields in activities])

    def close(self) -> None:
        """Gives back memory and disk."""
        self._file.close()


def is_stream(document: object) -> TypeGuard[Resource]:
    """Whether this is the document at the head of a stream."""
    return isinstance(document, dict) and kind(document) == "orderedcollection"


def collect(web: Web, stream: Resource, address: str, since: str, spool: Spool) -> None:
    """Reads the stream backwards into the spool, up to the activities from before `since` ("": all).

    As the specification has it, of each object only the last activity is wanted; before a Refresh only
    deletions are, and nothing at all when the stream is read for the first time. Raises SourceError when a
    page cannot be had.
    """
    judge = _Judge()
    for page_address, document in _backwards(web, stream, address):
        own = {address, identifier(stream)}
        items = as_list(document.get("orderedItems"))
        kept: list[Activity] = []
        ends = False
        for activity in reversed(_in_order([_activity(each, page_address, own) for each in items])):
            if activity.kind == "refresh":
                judge.only_deletions = True
            is_old = bool(activity.time) and activity.time < since
            if ends := is_old or (activity.kind == "refresh" and not since):
                break
            kept.append(judge.judged(activity))
        spool.put(Page(page_address, kept[::-1]))
        if ends:
            return


@dataclass
class _Judge:
    """Says which activities are wanted, from the newest to the oldest."""

    only_deletions: bool = False
    _overtaken: set[bytes] = field(default_factory=set)
    _gone: set[bytes] = field(default_factory=set)

    def judged(self, activity: Activity) -> Activity:
        """Returns the activity, marked unless it is wanted."""
        if activity.fault:
            return activity
        known = activity.kind in _KNOWN and activity.object_kind in _OBJECTS
        name = _digest(activity.object)
        if not known or name in self._overtaken or (self.only_deletions and activity.kind not in _GONE):
            return replace(activity, wanted=False)
        self._overtaken.add(name)
        if activity.kind in _GONE:
            self._gone.add(name)
        elif activity.kind == "move" and _digest(activity.target) in self._gone:
            return replace(activity, kind="delete")  # what was moved was deleted afterwards
        return activity


def _backwards(web: Web, stream: Resource, address: str) -> Iterator[tuple[str, Resource]]:
    """Yields the pages with their addresses, the newest first; those in a circle once."""
    if stream.get("last"):
        yield from _linked(web, stream["last"], "prev", address)
    elif stream.get("first"):  # against the rules: the last page is where `next` ends
        addresses = [each for each, _ in _linked(web, stream["first"], "next", address)]
        for each in reversed(addresses):
            yield each, _load(web, each)
    elif isinstance(stream.get("orderedItems"), list):
        yield address, stream
    elif stream.get("totalItems") != 0:
        raise SourceError(f"{without_secrets(address)} is a stream of changes that names no page")


def _linked(web: Web, link: object, direction: str, base: str) -> Iterator[tuple[str, Resource]]:
    seen: set[str] = set()
    while link:
        address = joined(base, identifier(link))
        if address in seen:
            return
        seen.add(address)
        page = _load(web, address)
        yield address, page
        link, base = page.get(direction), address


def _load(web: Web, address: str) -> Resource:
    if not address.lower().startswith(("http://", "https://")):
        raise SourceError(f"{printable(address)}: the pages of a stream of changes have http(s) addresses")
    page = web.json(address, patiently=True)
    if not isinstance(page, dict) or not isinstance(page.get("orderedItems"), list):
        raise SourceError(f"{without_secrets(address)} is no page of a stream of changes")
    return page


def _activity(value: object, page: str, own: set[str]) -> Activity:
    """Reads one activity; `own` are the names of the stream, which other streams' Add and Remove do not bear."""
    if not isinstance(value, dict):
        return Activity("", fault="the activity is not a JSON object")
    sort = kind(value)
    time, fault = _time(value.get("startTime" if sort == "refresh" else "endTime"))
    changed = value.get("object")
    of = kind(changed) if isinstance(changed, dict) else ""
    name = _address(changed, page)
    target = _address(value.get("target"), page) if sort == "move" else ""
    stream = _address(value.get({"add": "target", "remove": "origin"}.get(sort, "")), page)
    if stream and stream not in own:
        return Activity("", name, of, target, time)
    if sort in _KNOWN and of in _OBJECTS:
        fault = fault or _fault_in("object", name) or (_fault_in("target", target) if sort == "move" else "")
    elif sort:
        fault = ""
    else:
        fault = "the activity has no type"
    return Activity(sort, name, of, target, time, fault)


def _address(resource: object, page: str) -> str:
    """Returns the id of a resource, which may be relative to the page; "" for none."""
    return joined(page, identifier(resource)) if identifier(resource) else ""


def _fault_in(part: str, address: str) -> str:
    if not address:
        return f"the activity has no {part} with an id"
    if not address.lower().startswith(("http://", "https://")):
        return f"the {part}'s id is no http(s) address"
    return f"the {part}: {fault}" if (fault := manifest_fault(address)) else ""


def _time(value: object) -> tuple[str, str]:
    """Returns a time in UTC as text, "" for none, and what is wrong with it; without a zone it is UTC."""
    if value is None:
        return "", ""
    try:
        moment = datetime.fromisoformat(str(value).strip())
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return "", f"the time is none: {printable(str(value))[:40]}"
    if moment > datetime.now(UTC) + _TOLERANCE:
        return "", f"the time lies in the future: {printable(str(value))[:40]}"
    return moment.isoformat(timespec="microseconds"), ""


def _in_order(activities: list[Activity]) -> list[Activity]:
    """Returns a page by time, as it should be. What has no time has that of the one before it, or else after."""
    times = [each.time for each in activities]
    first = next(filter(None, times), "")
    filled = list(accumulate(times, lambda before, time: time or before, initial=first))[1:]
    timed = [
        each if each.time else replace(each, time=time) for each, time in zip(activities, filled, strict=True)
    ]
    return sorted(timed, key=lambda each: each.time)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
