"""Home: a wall of random images; what a search for words or a colour finds; the images of a work."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from explorer import finding, reading
from explorer.archive import AnArchive
from explorer.pages.rendering import render
from explorer.pages.tiles import tiles
from explorer.prefix import root_of
from explorer.records import Page, Picture
from lookalike.errors import ConfigurationError

router = APIRouter()

WALL = 60
FOUND = 60
COLOURS = 100


@router.get("/")
def home(request: Request, archive: AnArchive) -> HTMLResponse:
    """A wall of images, others each time."""
    with archive.reading() as connection:
        wall = reading.random_wall(connection, WALL)
    return render(request, "home.html", "/", kept=True, tiles=tiles(wall, root_of(request)))


@router.get("/search")
def find(
    request: Request,
    archive: AnArchive,
    q: Annotated[str, Query(max_length=1000)] = "",
    colour: str | None = None,
    work: str | None = None,
    cursor: str | None = None,
) -> HTMLResponse:
    """What a search for keys and titles finds, for a colour, or for a work."""
    if colour is not None:
        return _by_colour(request, archive, colour)
    with archive.reading() as connection:
        if work is not None:
            found: Page[Picture] = reading.find_work(connection, work, cursor, FOUND)
            heading, nothing = f"Work {work}", "The archive has no images of this work."
        else:
            found = finding.find(connection, q, cursor, FOUND)
            heading = f"“{q.strip()}”" if q.strip() else "Find images"
            nothing = "No key begins so, and no title has all these words."
            if found.next:
                nothing = (
                    f"None of the first {finding.WALK_AT_MOST:,} titles from here on has all these words."
                )
    more = None
    if found.next:
        asked = {"work": work} if work is not None else {"q": q}
        more = f"{root_of(request)}/search?{urlencode({**asked, 'cursor': found.next})}"
    shown = tiles(found.items, root_of(request))
    return render(
        request,
        "found.html",
        kept=True,
        q=q,
        heading=heading,
        nothing=nothing,
        tiles=shown,
        more=more,
        colour=None,
    )


def _by_colour(request: Request, archive: AnArchive, colour: str) -> HTMLResponse:
    nothing = "No picture holds much of this colour."
    status = 200
    with archive.reading() as connection:
        try:
            found = reading.by_colour(connection, colour, COLOURS)
        except ConfigurationError as error:
            found, nothing, status = [], str(error), 400
    shown = tiles(found, root_of(request))
    return render(
        request,
        "found.html",
        status=status,
        kept=True,
        heading=f"Colour #{colour.removeprefix('#').lower()}",
        nothing=nothing,
        tiles=shown,
        more=None,
        colour=colour,
        shown_colour=f"#{colour.removeprefix('#').lower()}",
    )
