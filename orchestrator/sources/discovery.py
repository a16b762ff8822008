"""Follows a IIIF Change Discovery stream: what was created, updated, moved and deleted since it was read last.

A stream has no end: its position lasts, and each reading goes on behind the one before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lookalike.errors import SourceError
from lookalike.images import AwaitedManifest, Checkpoint, Notice, Position, Refused, Removal
from lookalike.reasons import Reason
from orchestrator.sources.discovery_stream import Activity, Spool, collect
from orchestrator.sources.iiif import Crawl, awaited, read_document, refused
from orchestrator.sources.manifest import Described, Resource
from orchestrator.sources.records import without_secrets
from orchestrator.sources.web import PassingError, Web, fingerprint


def read_stream(
    web: Web, stream: Resource, address: str, position: Position | None = None
) -> Iterator[Notice]:
    """Yields what the activities since the position mean for images, from the oldest to the newest.

    Manifests and collections that were created, updated or added are read, and their images announced as of
    the activity's time; pages that a manifest has no more, and works that are gone, are Removals: of what the
    stream says is gone, those images that are its own. A moved manifest is read in its new place first. What
    cannot be read or understood is Refused; a manifest whose host fails for the moment is awaited like one that
    an event has promised. After each page of the stream comes a lasting Checkpoint. A stream without times
    (level 0) is read as a whole each time. Raises SourceError when a page of the stream cannot be had, one
    whose host fails after some minutes; nothing has been read then.
    """
    name = fingerprint(address)
    known = position if position is not None and position.get("discovery") == name else {}
    since = known.get("endTime")
    done = _Done(since if isinstance(since, str) else "")
    spool = Spool()
    try:
        collect(web, stream, address, done.time, spool)
        to_skip = _done_before(spool, known, done.time)
        for page in spool.pages():
            for activity in page.activities:
                if to_skip and activity.time == since:
                    to_skip -= 1
                elif activity.fault:
                    yield Refused(without_secrets(page.address), Reason.BAD_RECORD, activity.fault)
                elif activity.wanted:
                    yield from _meant(web, activity)
                done.add(activity)
            yield done.checkpoint(name)
        yield done.checkpoint(name)
    finally:
        spool.close()


@dataclass
class _Done:
    """The time up to which activities were done, and how many of that very time, with the sum of their digests."""

    time: str
    count: int = 0
    digest: int = 0

    def add(self, activity: Activity) -> None:
        """Counts an activity. Those before the time of the last one do not matter: they will not be met again."""
        if activity.time > self.time:
            self.time, self.count, self.digest = activity.time, 0, 0
        if activity.time == self.time:
            self.count += 1
            self.digest ^= int.from_bytes(activity.digest, "big")

    def checkpoint(self, name: str) -> Checkpoint:
        """The position behind what was done."""
        position = {"discovery": name, "endTime": self.time, "done": self.count, "digest": f"{self.digest:x}"}
        return Checkpoint(position, lasting=True)


def _done_before(spool: Spool, known: Mapping[str, object], time: str) -> int:
    """Returns how many activities of this time were done; none, when they are not the same any more."""
    count = known.get("done")
    if not time or not isinstance(count, int):
        return 0
    done = _Done(time)
    for page in spool.pages():
        for activity in page.activities:
            if activity.time == time and done.count < count:
                done.add(activity)
        if done.count == count:
            break
    return count if (done.count, f"{done.digest:x}") == (count, known.get("digest")) else 0


def _meant(web: Web, activity: Activity) -> Iterator[Notice]:
    """Yields what one activity means: images that are there now, and what is gone."""
    as_of = activity.time or None
    if activity.kind in ("delete", "remove"):
        yield Removal(work=activity.object, as_of=as_of, own_only=True)
    elif activity.kind == "move":
        yield from _manifest(web, activity.target, as_of, gone_from=activity.object)
    elif activity.object_kind == "collection":
        yield from Crawl(web).follow(activity.object, Described(as_of=as_of))
    else:
        yield from _manifest(web, activity.object, as_of, gone_from=activity.object)


def _manifest(web: Web, address: str, as_of: str | None, gone_from: str) -> Iterator[Notice]:
    """Yields the images of a manifest and, when all of it could be read, that no others are of that work.

    Its own host says what a manifest no longer shows; that it has moved, only the stream says.
    """
    described = Described(work=address, as_of=as_of)
    has_moved = gone_from != address
    try:
        document = read_document(web, address, described)
    except PassingError as error:
        # The stream will not tell of it again.
        yield _whole(web, address, error, as_of, gone_from)
        return
    except SourceError as error:
        yield refused(address, error)
        return
    yield from document.refused
    yield from document.images
    if document.awaited:
        fault = PassingError(document.awaited[0].detail)
        yield _whole(web, address, fault, as_of, gone_from)
    elif document.is_complete:
        kept = frozenset(each.key for each in document.images)
        yield Removal(work=gone_from, kept=kept, as_of=as_of, own_only=has_moved)


def _whole(
    web: Web, address: str, error: PassingError, as_of: str | None, gone_from: str
) -> AwaitedManifest | Refused:
    """A manifest, or a work of several, that is read in one and later."""
    moved_from = gone_from if gone_from != address else None
    later = awaited(web, address, error, Described(as_of=as_of))
    return later if isinstance(later, Refused) else replace(later, whole=True, moved_from=moved_from)
