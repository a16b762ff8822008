"""The status page: how far each encoder is, what failed and why, who works, what is read."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer.archive import AnArchive
from explorer.pages.figures import Counter, Figures
from explorer.pages.rendering import image_address, render, root_of
from explorer.pages.tiles import tile
from explorer.pages.undoing import QUERIES
from explorer.reading import rows
from explorer.records import Picture, as_picture
from lookalike import books
from lookalike.books import FailedImage
from lookalike.database import Connection
from lookalike.limits import list_workers
from lookalike.reasons import Reason
from orchestrator.progress import list_sources
from orchestrator.sources.records import without_secrets

router = APIRouter()

# Failed images that are shown for each reason.
SHOWN = 6


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder on the page."""

    name: str
    active: bool
    registered: int
    done: int
    failed: int
    open: int
    lost: int
    complete: bool
    share: str
    rate: str
    left: str


@router.get("/status")
def show(request: Request, archive: AnArchive) -> HTMLResponse:
    """All of it."""
    with archive.reading() as connection:
        live = _live(request, connection)
        reasons = [
            reason for one in live["encoders"] for reason in _reasons(connection, one.name, root_of(request))
        ]
    return render(request, "status.html", "/status", **live, reasons=reasons)


@router.get("/status/live")
def show_live(request: Request, archive: AnArchive) -> HTMLResponse:
    """What changes by itself."""
    with archive.reading() as connection:
        return render(request, "live.html", "/status", **_live(request, connection))


def _live(request: Request, connection: Connection) -> dict[str, Any]:
    counter: Counter = request.app.state.figures
    names = books.encoder_names(connection)
    figures = [counter.count(connection, name, number == 0) for number, name in enumerate(names)]
    return {
        "encoders": [_encoder(one) for one in figures],
        "workers": [_worker(one, name) for name in names for one in list_workers(connection, name)],
        "sources": [_source(one) for one in list_sources(connection)],
    }


def _encoder(figures: Figures) -> Encoder:
    counted = figures.books
    finished = counted.done + counted.failed
    # Never rounded up to all of them.
    share = int(1000 * finished / counted.registered) / 10 if counted.registered else 0.0
    left = figures.seconds_left
    return Encoder(
        figures.name,
        figures.active,
        counted.registered,
        counted.done,
        counted.failed,
        counted.open,
        counted.lost,
        counted.complete and counted.registered > 0,
        f"{share:.1f} %",
        f"{figures.rate:,.1f}" if figures.rate else "–",
        _duration(left) if left is not None else "–",
    )


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


def _worker(one: Any, encoder: str) -> dict[str, Any]:
    busy = (one.fetch_busy, one.decode_busy, one.encode_busy, one.store_busy)
    return {
        "name": one.name,
        "encoder": encoder,
        "device": one.device,
        "rate": f"{one.images_per_second:,.1f}",
        "busy": [f"{share:.0%}" for share in busy],
        "limit": one.limit,
    }


def _source(one: dict[str, Any]) -> dict[str, Any]:
    state = "is being read"
    if one["error"]:
        state = f"broke off: {one['error']}"
    elif one["ended_at"] is not None:
        state = "read to its end"
    counts = (("new", one["new"]), ("changed", one["changed"]), ("refused", sum(one["refused"].values())))
    return {
        "name": without_secrets(one["name"]),
        "state": state,
        "read": ", ".join(f"{count:,} {word}" for word, count in counts if count) or "nothing new",
        "seen": _ago(one["read_at"]),
    }


def _reasons(connection: Connection, encoder: str, root: str) -> list[dict[str, Any]]:
    """Failures by reason, most frequent first, each with the latest of its images."""
    found = []
    for code, count in books.count_reasons(connection, encoder).items():
        reason = next(each for each in Reason if each == code)
        latest = books.list_failures(connection, encoder, [reason], SHOWN)
        keys = [one.image for one in latest]
        pictures = {
            row["key"]: Picture(**as_picture(row))
            for row in rows(connection, QUERIES["pictures"], {"keys": keys})
        }
        images = [_failed(one, pictures.get(one.image), root) for one in latest]
        found.append(
            {"encoder": encoder, "reason": code, "count": count, "meaning": reason.meaning, "images": images}
        )
    return found


def _failed(one: FailedImage, picture: Picture | None, root: str) -> dict[str, Any]:
    shown = tile(picture, root) if picture else None
    return {
        "key": one.image,
        "href": image_address(one.image, root),
        "small": shown.small if shown else "",
        "small_next": shown.small_next if shown else (),
        "detail": one.detail,
        "attempts": one.attempts,
        "failed_at": f"{one.failed_at:%-d %B %Y, %H:%M}",
    }
