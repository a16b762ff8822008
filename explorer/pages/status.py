"""The status page: how far each encoder is, what failed and why, who works, what is read."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer.access import FOR_OPERATORS, is_operator
from explorer.archive import AnArchive, Archive
from explorer.pages.rendering import render
from explorer.pages.tiles import tile
from explorer.prefix import root_of
from explorer.status import (
    EncoderStatus,
    FailedImage,
    SourceStatus,
    Status,
    WorkerStatus,
    list_failures,
    read_status,
)
from lookalike.database import Connection
from lookalike.reasons import Reason
from orchestrator.sources.records import without_secrets

router = APIRouter()

# Failed images that are shown for each reason.
SHOWN = 6


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder on the page; figures are words, because those that are not known yet are none."""

    name: str
    active: bool
    registered: int
    finished: int
    figures: list[tuple[str, str]]
    lost: int
    complete: bool
    share: str


@router.get("/status")
def show(request: Request, archive: AnArchive) -> HTMLResponse:
    """How far it is; all of it to operators."""
    return _page(request, archive, is_operator(request))


@router.get("/status/details", dependencies=FOR_OPERATORS)
def show_details(request: Request, archive: AnArchive) -> HTMLResponse:
    """All of it: here a browser asks its operator for the token."""
    return _page(request, archive, True)


def _page(request: Request, archive: Archive, details: bool) -> HTMLResponse:
    reasons: list[dict[str, Any]] = []
    status = read_status(archive, request.app.state.books, details)
    with archive.reading() as connection:
        for one in status.encoders if details else ():
            reasons += _reasons(connection, one, root_of(request))
    return render(request, "status.html", "/status", **_live(status), reasons=reasons, details=details)


@router.get("/status/live")
def show_live(request: Request, archive: AnArchive) -> HTMLResponse:
    """What changes by itself."""
    status = read_status(archive, request.app.state.books, is_operator(request))
    return render(request, "live.html", "/status", **_live(status))


def _live(status: Status) -> dict[str, Any]:
    encoders = [_encoder(one) for one in status.encoders]
    # In the title, for whoever has the page behind others.
    working = next((one.share for one in encoders if one.active and not one.complete), None)
    return {
        "encoders": encoders,
        "progress": f"{working} · " if working and working != "–" else "",
        "workers": [_worker(worker, one.name) for one in status.encoders for worker in one.workers or ()],
        "sources": [_source(one) for one in status.sources or ()],
    }


def _encoder(one: EncoderStatus) -> Encoder:
    """The last count, with what is cheap to know as of now: images that are open, and those that failed."""
    failed = sum(one.failures.values())
    registered = one.counted.registered if one.counted else 0
    finished = max(0, registered - one.left)
    # Never rounded up to all of them.
    share = f"{int(1000 * finished / registered) / 10:.1f} %" if registered else "–"
    counted = [("registered", f"{registered:,}"), ("done", f"{max(0, finished - failed):,}")]
    figures = [
        ("of all images", share),
        *(counted if one.counted else [("registered", "being counted")]),
        ("failed", f"{failed:,}"),
        ("open", f"{one.left:,}"),
        ("images a second", f"{one.images_per_second:,.1f}" if one.images_per_second else "–"),
        ("time left", _duration(one.seconds_left) if one.seconds_left is not None else "–"),
    ]
    lost = one.counted.lost if one.counted else 0
    complete = one.counted is not None and one.counted.complete and registered > 0 and one.left == 0
    return Encoder(one.name, one.active, registered, finished, figures, lost, complete, share)


def _duration(seconds: float) -> str:
    """In the two largest units: 3 d 4 h, 12 min 30 s."""
    parts = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    left, words = max(1, round(seconds)), []
    for name, length in parts:
        count, left = divmod(left, length)
        if count:
            words.append(f"{count} {name}")
    return " ".join(words[:2])


def _ago(moment: datetime) -> str:
    return f"{_duration((datetime.now(UTC) - moment).total_seconds())} ago"


def _worker(one: WorkerStatus, encoder: str) -> dict[str, Any]:
    busy = (one.fetch_busy, one.decode_busy, one.encode_busy, one.store_busy)
    return {
        "name": one.name,
        "encoder": encoder,
        "device": one.device,
        "rate": f"{one.images_per_second:,.1f}",
        "busy": [f"{share:.0%}" for share in busy],
        "limit": one.limit,
    }


def _source(one: SourceStatus) -> dict[str, Any]:
    state = "is being read"
    if one.error:
        state = f"broke off: {one.error}"
    elif one.ended_at is not None:
        state = "read to its end"
    counts = (("new", one.new), ("changed", one.changed), ("refused", sum(one.refused.values())))
    return {
        "name": without_secrets(one.name),
        "state": state,
        "read": ", ".join(f"{count:,} {word}" for word, count in counts if count) or "nothing new",
        "seen": _ago(one.read_at),
    }


def _reasons(connection: Connection, one: EncoderStatus, root: str) -> list[dict[str, Any]]:
    """Failures by reason, most frequent first, each with the latest of its images."""
    found = []
    for code, count in one.failures.items():
        reason = next(each for each in Reason if each == code)
        latest = list_failures(connection, one.name, reason, limit=SHOWN).items
        images = [_failed(image, root) for image in latest]
        found.append(
            {"encoder": one.name, "reason": code, "count": count, "meaning": reason.meaning, "images": images}
        )
    return found


def _failed(one: FailedImage, root: str) -> dict[str, Any]:
    return {
        "tile": tile(one, root),
        "detail": one.detail,
        "attempts": one.attempts,
        "failed_at": f"{one.failed_at:%-d %B %Y, %H:%M}",
    }
