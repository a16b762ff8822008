"""Reads the manifests that events have promised, as soon as they appear, and registers what they show.

It holds up no queue: the events that promise them are long committed.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus

from lookalike import awaited, deletion, ledger
from lookalike.awaited import DueManifest
from lookalike.errors import ForbiddenAddressError, SourceError
from lookalike.images import Image, Refused, Removal
from lookalike.ledger import Connection
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator import progress
from orchestrator.progress import Intake
from orchestrator.sources import iiif
from orchestrator.sources.web import AnswerError, PassingError, Web

log = logging.getLogger(__name__)

SOURCE = "awaited manifests"
"""What their images are filed under, and counted as in the table `sources`."""

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
# Whoever reads one for longer has died, as far as others know.
CLAIM_SECONDS = 900.0
# These say of a canvas that it has no image for us; all others that we do not know.
_SHOWS_NOTHING = frozenset({Reason.NO_IMAGE, Reason.NOT_OPEN})
_STAYS_SO = _SHOWS_NOTHING | {Reason.BAD_RECORD, Reason.BAD_ADDRESS}


def read_due(settings: Settings, connection: Connection, stop: threading.Event | None = None) -> int:
    """Reads the manifests that are due, one after the other, and returns how many were read to their end.

    What is not there yet, or cannot be read, is asked for again after 5 seconds, doubling to 5 minutes, and
    is a failure with a name once LOOKALIKE_MANIFEST_HOURS are over.
    """
    # Its own pauses are the tries; within one the host is asked once.
    once = settings.model_copy(update={"tries": 1})
    count = 0
    while stop is None or not stop.is_set():
        due = awaited.claim_due(connection, CLAIM_SECONDS, settings.manifest_hours)
        if due is None:
            break
        try:
            # The operator's own, by LOOKALIKE_MANIFEST_URL, unless a stream has named it.
            with Web(once, given=None if due.outside else due.address) as web:
                found = iiif.read_document(web, due.address)
                images = list(web.vouch(found.images))
        except SourceError as error:
            _put_off(connection, due, _reason_of(error), str(error))
            continue
        count += _take_in(connection, settings, due, images, found.refused)
    return count


def _take_in(
    connection: Connection,
    settings: Settings,
    due: DueManifest,
    images: Sequence[Image],
    refused: Sequence[Refused],
) -> bool:
    """Registers what was read, and ends the waiting where that was all. Returns whether it was.

    Where a part could not be read, it is all read again, and nothing counts as gone.
    """
    fault = next((each for each in refused if each.reason not in _STAYS_SO), None)
    with connection.transaction():
        if fault is None and not awaited.settle(connection, due):
            return False  # another event came meanwhile: it is read again
        intake = Intake()
        if all(each.reason in _SHOWS_NOTHING for each in refused):
            for removal in _gone(connection, due, images, refused):
                intake.deleted += deletion.remove(connection, removal)
        registered = _filed(connection, due, images)
        intake.registered = ledger.register(connection, registered, "events", settings.chunk_size)
        intake.refused.update(str(each.reason) for each in refused)
        progress.add(connection, SOURCE, intake)
    if fault is not None:
        _put_off(connection, due, fault.reason, f"{fault.where}: {fault.detail}")
    return fault is None


def _filed(connection: Connection, due: DueManifest, images: Sequence[Image]) -> list[Image]:
    """The images as they are registered: a new version has new content, whatever the pictures' addresses.

    The work that a catalogue has given some of them stays, and is that of their new neighbours.
    """
    known = awaited.works_of(connection, [image.key for image in images])
    works = set(known.values())
    common = works.pop() if len(works) == 1 else None
    as_of = due.as_of.isoformat()
    return [
        replace(
            image,
            work=known.get(image.key) or common or image.work,
            content=due.version,
            source=SOURCE,
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
    kept, as_of = frozenset(image.key for image in images), due.as_of.isoformat()
    works = {image.work for image in images if image.work} | {due.address}
    removals = [Removal(work=work, kept=kept, as_of=as_of) for work in sorted(works)]
    hidden = {each.where.rstrip("/").rpartition("/")[2] for each in refused}
    named = awaited.works_of(connection, sorted(kept | hidden | {f"{due.identifier}_0001.jp2"}))
    elsewhere = sorted(set(named.values()) - works)
    for key in awaited.siblings(connection, elsewhere, f"{due.identifier}_"):
        if key not in kept:
            removals.append(Removal(key=key, as_of=as_of))
    return removals


def _reason_of(error: SourceError) -> Reason:
    if isinstance(error, AnswerError) and error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return Reason.MISSING_MANIFEST
    if isinstance(error, ForbiddenAddressError):
        return Reason.FORBIDDEN_ADDRESS
    return Reason.UNREACHABLE if isinstance(error, PassingError) else Reason.UNREADABLE_MANIFEST


def _put_off(connection: Connection, due: DueManifest, reason: Reason, detail: str) -> None:
    if due.expired:
        log.warning("%s is given up after %d tries: %s", due.address, due.tries, reason)
        awaited.give_up(connection, due, reason, detail)
    else:
        pause = min(FIRST_PAUSE * 2.0 ** min(due.tries - 1, 16), LONGEST_PAUSE)
        awaited.postpone(connection, due, pause, reason, detail)
