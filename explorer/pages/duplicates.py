"""Near-duplicates: pairs side by side, to be judged one after the other, and the groups that they link."""

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer import reviewing
from explorer.archive import AnArchive, Archive
from explorer.pages.rendering import render
from explorer.pages.tiles import Tile, tile, tiles
from explorer.pages.undoing import QUERIES, offer_undo
from explorer.prefix import root_of
from explorer.reading import rows
from explorer.records import Page, Pair
from lookalike.database import Connection
from lookalike.errors import UnknownEncoderError

router = APIRouter()

GROUPS = 20
# Pairs that wait are counted up to this.
MOST = 1000


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair on the page; `later` is the page of the next one."""

    first: Tile
    second: Tile
    distance: float
    likeness: float | None
    turn: str
    same: bool | None
    decided_by: str | None
    decided_at: datetime | None
    later: str


@dataclass(frozen=True, slots=True)
class ShownGroup:
    """A group on the page, with its first pictures."""

    size: int
    tiles: list[Tile]


@router.get("/duplicates")
def show_pair(
    request: Request,
    archive: AnArchive,
    decided: str | None = None,
    cursor: str | None = None,
    end: str | None = None,
    decision: str | None = None,
) -> HTMLResponse:
    """The nearest pair that nobody has judged, behind those that were kept for later; or any pair."""
    root, is_all = root_of(request), decided == "true"
    here = _address(root, is_all, cursor, end is not None)
    with archive.reading() as connection:
        found = _pair(connection, archive, is_all, cursor) if end is None else Page[Pair](items=[])
        # The next one's pictures come while this one is looked at.
        following = _pair(connection, archive, is_all, found.next).items if found.next else []
        waiting = 0 if is_all else _waiting(connection, archive)
        undo = offer_undo(connection, decision, here)
    return render(
        request,
        "duplicates.html",
        "/duplicates",
        tab="all" if is_all else "open",
        pair=_shown(found, is_all, root) if found.items else None,
        # A pair that stays in the list is left behind when it is judged.
        back=_address(root, is_all, found.next, found.next is None) if is_all else here,
        again=_address(root, is_all) if end is not None or cursor else None,
        undo=undo,
        waiting=f"{MOST:,} or more" if waiting >= MOST else f"{waiting:,}",
        following=[tile(one, root) for pair in following for one in (pair.first, pair.second)],
    )


def _waiting(connection: Connection, archive: Archive) -> int:
    try:
        asked = {"encoder": archive.encoder(connection), "most": MOST}
    except UnknownEncoderError:
        return 0
    return int(rows(connection, QUERIES["waiting_pairs"], asked)[0]["waiting"])


def _pair(connection: Connection, archive: Archive, is_all: bool, cursor: str | None) -> Page[Pair]:
    try:
        return reviewing.list_pairs(connection, archive.encoder(connection), is_all, cursor, limit=1)
    except UnknownEncoderError:
        return Page(items=[])


def _address(root: str, is_all: bool, cursor: str | None = None, is_end: bool = False) -> str:
    asked = {"decided": "true"} if is_all else {}
    if is_end:
        asked["end"] = "true"
    elif cursor:
        asked["cursor"] = cursor
    return f"{root}/duplicates?{urlencode(asked)}" if asked else f"{root}/duplicates"


def _shown(found: Page[Pair], is_all: bool, root: str) -> ShownPair:
    pair = found.items[0]
    return ShownPair(
        tile(pair.first, root),
        tile(pair.second, root),
        pair.distance,
        pair.likeness,
        pair.turn,
        pair.same,
        pair.decided_by,
        pair.decided_at,
        _address(root, is_all, found.next, found.next is None),
    )


@router.get("/duplicates/groups")
def show_groups(request: Request, archive: AnArchive, cursor: str | None = None) -> HTMLResponse:
    """Groups of near-duplicates, the largest first."""
    root = root_of(request)
    with archive.reading() as connection:
        try:
            found = reviewing.list_groups(connection, archive.encoder(connection), cursor, GROUPS)
        except UnknownEncoderError:
            found = Page(items=[])
    groups = [ShownGroup(one.size, tiles(one.images, root)) for one in found.items]
    more = f"{root}/duplicates/groups?{urlencode({'cursor': found.next})}" if found.next else None
    return render(request, "groups.html", "/duplicates", tab="groups", groups=groups, more=more)
