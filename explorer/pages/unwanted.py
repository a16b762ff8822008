"""Unwanted images: the candidates of a set, to be reviewed by people, and what they decided before."""

from typing import get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer import reviewing
from explorer.archive import AnArchive
from explorer.pages.rendering import render
from explorer.pages.tiles import tiles
from explorer.pages.undoing import offer_undo
from explorer.prefix import root_of
from explorer.records import Page, UnwantedImage, UnwantedSet
from lookalike.unwanted import State

router = APIRouter()

REVIEWED = 60
STATES: dict[State, str] = {"candidate": "To review", "accepted": "Unwanted", "fine": "Fine"}
# What can be said of images in each state.
VERDICTS: dict[State, list[tuple[str, str]]] = {
    "candidate": [("unwanted", "Unwanted"), ("fine", "Fine")],
    "accepted": [("fine", "Fine")],
    "fine": [("unwanted", "Unwanted")],
}
NOTHING: dict[State, str] = {
    "candidate": "Nothing is left to review in this set.",
    "accepted": "Nothing of this set is unwanted.",
    "fine": "Nothing of this set was called fine.",
}


@router.get("/unwanted")
def review(
    request: Request,
    archive: AnArchive,
    set: str | None = None,
    state: str = "candidate",
    cursor: str | None = None,
    decision: str | None = None,
) -> HTMLResponse:
    """The images of a set in one state, nearest to an example first."""
    root = root_of(request)
    wanted: State = next((each for each in get_args(State) if each == state), "candidate")
    with archive.reading() as connection:
        sets = reviewing.list_sets(connection)
        chosen = next((one for one in sets if one.name == set), None) or _fullest(sets)
        found = Page[UnwantedImage](items=[])
        if chosen is not None:
            found = reviewing.list_unwanted(connection, chosen.name, wanted, cursor, REVIEWED)
        name = chosen.name if chosen else ""
        here = f"{root}/unwanted?{urlencode({'set': name, 'state': wanted})}"
        undo = offer_undo(connection, decision, here)
    return render(
        request,
        "unwanted.html",
        "/unwanted",
        sets=sets,
        chosen=name,
        state=wanted,
        states=_counted(chosen),
        verdicts=VERDICTS[wanted],
        tiles=tiles(found.items, root),
        nothing=NOTHING[wanted],
        here=here,
        undo=undo,
        more=f"{here}&{urlencode({'cursor': found.next})}" if found.next else None,
        learning=request.app.state.learning.progress,
    )


def _fullest(sets: list[UnwantedSet]) -> UnwantedSet | None:
    """The set with most to review."""
    return max(sets, key=lambda one: one.candidates, default=None)


def _counted(chosen: UnwantedSet | None) -> list[tuple[str, str, int]]:
    if chosen is None:
        return []
    counts = {"candidate": chosen.candidates, "accepted": chosen.accepted, "fine": chosen.fine}
    return [(state, words, counts[state]) for state, words in STATES.items()]


@router.get("/unwanted/learning")
def show_learning(request: Request) -> HTMLResponse:
    """How far the learning of a set is."""
    return render(request, "learning_live.html", "/unwanted", learning=request.app.state.learning.progress)
