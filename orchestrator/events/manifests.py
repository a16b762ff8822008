"""Reads the manifests that are awaited, as soon as they can be had, and registers what they show.

Events have promised them, or their hosts failed while a source was read: one path for all. It holds up neither queue
nor source, which have long gone on.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from http import HTTPStatus

import psycopg

from lookalike import awaited, deletion, ledger
from lookalike.awaited import DueManifest
from lookalike.errors import ForbiddenAddressError, SourceError
from lookalike.images import AwaitedManifest, Checkpoint, Image, Notice, Refused, Removal
from lookalike.ledger import Connection
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator import progress
from orchestrator.progress import Intake
from orchestrator.sources.iiif import Crawl
from orchestrator.sources.manifest import EMPTY_MANIFEST, Described
from orchestrator.sources.web import AnswerError, OutageError, PassingError, Web

log = logging.getLogger(__name__)

SOURCE = "awaited manifests"
"""What they are counted as in the table `sources`, and what images are filed under that an event has promised."""

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
# Whoever reads one and says nothing for longer has died, as far as others know: it is read again.
CLAIM_SECONDS = 300.0
# So many images of a collection are registered at once: memory does not grow with it.
BATCH = 2000
# These say of a canvas that it has no image for us; all others that we do not know.
_SHOWS_NOTHING = frozenset({Reason.NO_IMAGE, Reason.NOT_OPEN})
_STAYS_SO = _SHOWS_NOTHING | {Reason.BAD_RECORD, Reason.BAD_ADDRESS}


def read_due(settings: Settings, connection: Connection, stop: threading.Event | None = None) -> int:
    """Reads the manifests that are due, one after the other, and returns how many were read to their end.

    What is not there yet, or cannot be read, is asked for again after 5 seconds, doubling to 5 minutes, and
    is a failure with a name once LOOKALIKE_MANIFEST_HOURS are over.
    """
    claim = max(CLAIM_SECONDS, 3 * settings.fetch_timeout)
    count = 0
    while stop is None or not stop.is_set():
        due = awaited.claim_due(connection, claim, settings.manifest_hours)
        if due is None:
            break
        try:
            # The operator's own, by LOOKALIKE_MANIFEST_URL or as his source's, unless somebody else has named it. Its
            # own pauses are the tries.
            with Web(settings, given=None if due.outside else due.address, once=True) as web:
                found = _held(connection, due, claim, web.vouch(_announced(web, due)))
                take = _take_whole if due.whole else _take_parts
                count += take(connection, settings, due, found)
        except (SourceError, psycopg.DataError) as error:
            # DataError: Postgres does not take what it says; it must not be asked for without end.
            _put_off(connection, due, _reason_of(error), str(error))
    return count


def _announced(web: Web, due: DueManifest) -> Iterator[Notice]:
    """What is there now, described as whoever named it did."""
    described = Described(**due.described)
    if due.whole and due.source is not None and described.work is None:
        described = replace(
            described, work=due.address
        )  # as a stream of changes calls it, whatever it calls itself
    yield from Crawl(web).read(web.json(due.address), due.address, described)


def _held(
    connection: Connection, due: DueManifest, claim: float, notices: Iterable[Notice]
) -> Iterator[Notice]:
    """The notices; while they come, nobody else reads it."""
    since = time.monotonic()
    for notice in notices:
        if time.monotonic() - since > claim / 3:
            awaited.hold(connection, due, claim)
            since = time.monotonic()
        yield notice


def _take_parts(
    connection: Connection, settings: Settings, due: DueManifest, notices: Iterable[Notice]
) -> bool:
    """Registers, as it comes, what a source has named, and ends the waiting. Returns whether it did.

    What is named there and cannot be read yet is awaited in its turn. Nothing counts as gone.
    """
    intake, later = Intake(), list[AwaitedManifest]()
    batch: list[Image] = []
    for notice in notices:
        if isinstance(notice, Image):
            batch.append(notice)
        elif isinstance(notice, Refused):
            intake.refuse(notice)
        elif isinstance(notice, AwaitedManifest):
            later.append(replace(notice, source=due.source))
        if len(batch) >= BATCH:
            intake.registered += _register(connection, settings, due, batch)
            batch.clear()
    with connection.transaction():
        if not awaited.settle(connection, due):
            return False  # it was named again meanwhile: it is read again
        awaited.await_manifests(connection, later)
        intake.registered += _register(connection, settings, due, batch)
        progress.add(connection, SOURCE, intake)
    return True


def _take_whole(
    connection: Connection, settings: Settings, due: DueManifest, notices: Iterable[Notice]
) -> bool:
    """Registers what was read, and ends the waiting where that was all. Returns whether it was.

    Where a part could not be read, it is all read again, and nothing counts as gone.
    """
    found = [each for each in notices if not isinstance(each, Checkpoint)]
    images = [each for each in found if isinstance(each, Image)]
    refused = [each for each in found if isinstance(each, Refused)]
    fault = _fault(due, found)
    with connection.transaction():
        if fault is None and not awaited.settle(connection, due):
            return False  # another event came meanwhile: it is read again
        intake = Intake()
        if fault is None and all(each.reason in _SHOWS_NOTHING for each in refused):
            for removal in _gone(connection, due, images, refused):
                intake.deleted += deletion.remove(connection, removal, due.source)
        intake.registered = _register(connection, settings, due, images)
        intake.refused.update(str(each.reason) for each in refused)
        progress.add(connection, SOURCE, intake)
    if fault is not None:
        _put_off(connection, due, fault.reason, f"{fault.where}: {fault.detail}")
    return fault is None


def _fault(due: DueManifest, found: Sequence[Notice]) -> Refused | None:
    """What says that this is not all that there is; None: it is.

    An event knows that its bag has no images left. A stream's manifest may look so when its host comes back by halves.
    """
    for each in found:
        if isinstance(each, AwaitedManifest):
            return Refused(each.address, Reason.UNREACHABLE, each.detail)
        if isinstance(each, Refused) and (
            each.reason not in _STAYS_SO or (due.source is not None and each.detail == EMPTY_MANIFEST)
        ):
            return each
    return None if found else Refused(due.address, Reason.NO_IMAGE, "an empty collection")


def _register(
    connection: Connection, settings: Settings, due: DueManifest, images: Sequence[Image]
) -> ledger.Registered:
    """What an event or a stream has promised goes ahead of backfills."""
    filed = _filed(connection, due, images)
    return ledger.register(connection, filed, "events" if due.whole else "backfill", settings.chunk_size)


def _filed(connection: Connection, due: DueManifest, images: Sequence[Image]) -> list[Image]:
    """The images as they are registered: a new version has new content, whatever the pictures' addresses.

    The work that a catalogue has given some of them stays, and is that of their new neighbours; unless it is the
    catalogue that named the manifest.
    """
    as_of = due.as_of.isoformat() if due.as_of else None
    source = due.source or SOURCE
    if "work" in due.described or not due.whole:
        return [replace(image, content=due.version, source=source, as_of=as_of) for image in images]
    known = awaited.works_of(connection, [image.key for image in images])
    works = set(known.values())
    common = works.pop() if len(works) == 1 else None
    return [
        replace(
            image,
            work=known.get(image.key) or common or image.work,
            content=due.version,
            source=source,
            as_of=as_of,
        )
        for image in images
    ]


def _gone(
    connection: Connection, due: DueManifest, images: Sequence[Image], refused: Sequence[Refused]
) -> list[Removal]:
    """What the manifest no longer shows: of its own work, and, by their keys, what a catalogue has filed elsewhere.

    A catalogue's work may hold more than this manifest, so there only images whose keys begin with the
    identifier (`b12345678_0001.jp2`) count. The work is found through images that are shown, through canvases
    that are not (their addresses end in the names of their images), or through the first page.
    """
    kept, as_of = frozenset(image.key for image in images), due.as_of.isoformat() if due.as_of else None
    works = {due.address}
    if "work" not in due.described:
        works |= {image.work for image in images if image.work}
    removals = [Removal(work=work, kept=kept, as_of=as_of) for work in sorted(works)]
    hidden = {each.where.rstrip("/").rpartition("/")[2] for each in refused}
    named = awaited.works_of(connection, sorted(kept | hidden | {f"{due.identifier}_0001.jp2"}))
    elsewhere = sorted({*named.values(), *filter(None, [due.described.get("work")])} - works)
    for key in awaited.siblings(connection, elsewhere, f"{due.identifier}_"):
        if key not in kept:
            removals.append(Removal(key=key, as_of=as_of))
    if due.moved_from is not None:
        removals.append(Removal(work=due.moved_from, kept=kept, as_of=as_of, own_only=True))
    return removals


def _reason_of(error: Exception) -> Reason:
    if isinstance(error, AnswerError) and error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return Reason.MISSING_MANIFEST
    if isinstance(error, ForbiddenAddressError):
        return Reason.FORBIDDEN_ADDRESS
    return Reason.UNREACHABLE if isinstance(error, PassingError | OutageError) else Reason.UNREADABLE_MANIFEST


def _put_off(connection: Connection, due: DueManifest, reason: Reason, detail: str) -> None:
    if due.expired:
        log.warning("%s is given up after %d tries: %s", due.address, due.tries, reason)
        awaited.give_up(connection, due, reason, detail)
    else:
        pause = min(FIRST_PAUSE * 2.0 ** min(due.tries - 1, 16), LONGEST_PAUSE)
        awaited.postpone(connection, due, pause, reason, detail)
