"""The map of the archive: a canvas to move about in, and the same in words and links for those who do not see it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from explorer import mapping
from explorer.archive import AnArchive
from explorer.pages.rendering import render
from explorer.pages.tiles import Tile, tile, tiles
from explorer.prefix import root_of
from explorer.records import Picture, as_picture
from lookalike import maps
from lookalike.errors import UnknownMapError

router = APIRouter()

# Squares in a row of the map in words.
SIDE = 6
SHOWN = 60


@router.get("/map", name="map")
def show(
    request: Request,
    archive: AnArchive,
    encoder: Annotated[str | None, Query(max_length=200)] = None,
    square: Annotated[int | None, Query(ge=0, lt=SIDE * SIDE)] = None,
) -> HTMLResponse:
    """The map, or one square of it."""
    root = root_of(request)
    with archive.reading() as connection:
        try:
            chosen = encoder or archive.encoder(connection)
            found = mapping.find(connection, chosen)
        except UnknownMapError:
            return render(request, "map.html", "/map", found=None)
        squares = [_square(row, root) for row in maps.regions(connection, found.map, SIDE)]
        inside = None
        if square is not None:
            row, column = divmod(square, SIDE)
            box = (column / SIDE, row / SIDE, (column + 1) / SIDE, (row + 1) / SIDE)
            inside = tiles(mapping.region(connection, found.map, box, SHOWN).items, root)
    asked = f"?encoder={encoder}" if encoder else ""
    return render(
        request,
        "map.html",
        "/map",
        found=found,
        encoder=encoder,
        asked=asked,
        side=SIDE,
        square=square,
        place=None if square is None else _words(square),
        inside=inside,
        squares=squares,
    )


def _square(row: dict[str, object], root: str) -> tuple[int, str, int, Tile]:
    """A square: its number, where it is, how many images it has, and the one in its middle."""
    shown = {name: value for name, value in row.items() if name not in ("n", "images", "id")}
    number, images = int(str(row["n"])), int(str(row["images"]))
    return number, _words(number), images, tile(Picture(**as_picture(shown)), root)


def _words(number: int) -> str:
    row, column = divmod(number, SIDE)
    return f"row {row + 1}, column {column + 1}"
