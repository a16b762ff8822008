"""Two images side by side, and in words what they have in common: why one was found for the other."""

import math
from itertools import product
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from explorer import reading
from explorer.archive import AnArchive
from explorer.pages.rendering import render
from explorer.pages.tiles import tile
from explorer.pages.undoing import QUERIES
from explorer.prefix import root_of
from explorer.records import ImageRecord
from lookalike.database import Connection
from lookalike.errors import NotEmbeddedError

router = APIRouter()

Key = Annotated[str, Query(min_length=1, max_length=4000)]

# Two colours of palettes that are no further apart than this are one to the eye: of 441, in red, green and blue.
SAME_COLOUR = 40


@router.get("/compare")
def compare(
    request: Request, archive: AnArchive, first: Key, second: Key, encoder: str | None = None
) -> HTMLResponse:
    """Both images, how far apart they are, and what they share."""
    root = root_of(request)
    with archive.reading() as connection:
        chosen = encoder or archive.encoder(connection)
        one, other = (reading.find_image(connection, key, chosen) for key in (first, second))
        distance = _distance(connection, first, second, chosen)
    return render(
        request,
        "compare.html",
        first=tile(one, root),
        second=tile(other, root),
        distance=distance,
        encoder=chosen,
        shared=_shared(one, other),
        colours=_colours(one, other),
    )


def _distance(connection: Connection, first: str, second: str, encoder: str) -> float | None:
    """None where one of them has no vector yet."""
    for key in (first, second):
        try:
            reading.vector_of(connection, key, encoder)
        except NotEmbeddedError:
            return None
    asked = {"first": first, "second": second, "encoder": encoder}
    return float(reading.rows(connection, QUERIES["distance"], asked)[0]["distance"])


def _shared(one: ImageRecord, other: ImageRecord) -> list[tuple[str, str]]:
    """What the archive knows of both, as (word, value)."""
    seen = {label.label for label in other.labels}
    clusters = {each.cluster for each in other.clusters}
    copy = next((each for each in one.copies if each.key == other.key), None)
    found = [
        ("Work", one.work if one.work == other.work else None),
        ("The network sees in both", ", ".join(each.label for each in one.labels if each.label in seen)),
        (
            "Cluster",
            ", ".join(
                each.name or each.label or str(each.cluster)
                for each in one.clusters
                if each.cluster in clusters
            ),
        ),
        ("Near-duplicates", copy and _copy(copy.likeness, copy.turn)),
    ]
    return [(word, value) for word, value in found if value]


def _copy(likeness: float | None, turn: str) -> str:
    parts = ["yes"]
    if likeness is not None:
        parts.append(f"likeness of the miniatures {likeness:.2f}")
    if turn != "upright":
        parts.append(turn)
    return ", ".join(parts)


def _colours(one: ImageRecord, other: ImageRecord) -> list[tuple[str, str]]:
    """The colours of the first that the second has as well, with the nearest of these."""
    pairs = product((each.colour for each in one.palette), (each.colour for each in other.palette))
    near = sorted((_apart(a, b), a, b) for a, b in pairs)
    found: dict[str, str] = {}
    for apart, a, b in near:
        if apart <= SAME_COLOUR and a not in found:
            found[a] = b
    return list(found.items())


def _apart(one: str, other: str) -> float:
    parts = ((int(one[at : at + 2], 16) - int(other[at : at + 2], 16)) ** 2 for at in (1, 3, 5))
    return math.sqrt(sum(parts))
