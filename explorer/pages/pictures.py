"""Searching with a picture from outside: sent as a file, or named by its address. It is looked at and not kept."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from starlette.datastructures import UploadFile

from explorer import reading
from explorer.archive import AnArchive, Archive
from explorer.forms import picture_form
from explorer.limits import client_of
from explorer.pages.rendering import render
from explorer.pages.tiles import tiles
from explorer.pictures import Pictures, ThePictures
from explorer.prefix import root_of
from explorer.problems import RETRY_SECONDS, BusyError, TooManyRequestsError, describe
from explorer.records import Neighbours
from explorer.thumbnails import public_address
from lookalike import books
from lookalike.errors import ConfigurationError, EncoderError, ForbiddenAddressError, ImageError

router = APIRouter()

FOUND = 60
# Characters of an address.
LONGEST = 4000
NEITHER = "Choose a picture, or give an address."
IMPOSSIBLE = "Searching with a picture needs the network, which is not installed here: pip install 'lookalike[worker]'."


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent, in words; `address` shows it where it was an address."""

    words: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form was filled in with; fields that are missing are empty."""

    file: UploadFile | None
    url: str
    encoder: str


async def read_form(request: Request) -> AsyncIterator[Asked]:
    """The form; what lies on disk of it goes with the answer."""
    async with picture_form(request) as form:
        file = form.get("file")
        url, encoder = (
            word if isinstance(word := form.get(name), str) else "" for name in ("url", "encoder")
        )
        if len(url) > LONGEST:
            raise ConfigurationError(f"an address has no more than {LONGEST:,} characters")
        yield Asked(file if isinstance(file, UploadFile) else None, url, encoder)


@router.get("/picture")
def ask(request: Request, archive: AnArchive) -> HTMLResponse:
    """Where a picture is dropped, pasted, chosen or named."""
    with archive.reading() as connection:
        encoders = books.encoder_names(connection)
    return _page(request, encoders, "Search with a picture")


@router.post("/picture/search")
def look(
    request: Request,
    archive: AnArchive,
    pictures: ThePictures,
    asked: Annotated[Asked, Depends(read_form)],
) -> HTMLResponse:
    """The images of the archive that look like a picture."""
    file, url = asked.file, asked.url
    with archive.reading() as connection:
        encoders = books.encoder_names(connection)
    if not encoders:
        return _page(
            request, encoders, "Search with a picture", trouble="The archive is empty yet.", status=409
        )
    chosen = asked.encoder if asked.encoder in encoders else encoders[0]
    is_file = file is not None and bool(file.filename or file.size)
    if not is_file and not url:
        return _page(
            request,
            encoders,
            "Search with a picture",
            trouble=NEITHER,
            refused="file",
            status=400,
        )
    words = (file.filename or "A picture") if is_file and file else url
    try:
        found = _search(request, archive, pictures, chosen, file if is_file else None, url)
    except (BusyError, EncoderError, ForbiddenAddressError, ImageError, TooManyRequestsError) as error:
        problem = describe(error)
        why = error.reason.meaning if isinstance(error, ImageError) else problem.detail
        trouble = f"{words} cannot be searched with: {why}."
        return _page(
            request,
            encoders,
            "Search with a picture",
            trouble=trouble,
            refused="file" if is_file else "url",
            refused_url="" if is_file else url,
            status=problem.status,
        )
    sent = Sent(words, None if is_file else public_address(url))
    heading = f"{len(found.neighbours)} images like yours"
    return _page(request, encoders, heading, sent=sent, found=found)


def _page(
    request: Request,
    encoders: list[str],
    heading: str,
    *,
    trouble: str | None = None,
    refused: str | None = None,
    refused_url: str = "",
    sent: Sent | None = None,
    found: Neighbours | None = None,
    status: int = 200,
) -> HTMLResponse:
    most = request.app.state.settings.explorer_upload_bytes
    shown = tiles(found.neighbours, root_of(request)) if found else []
    page = render(
        request,
        "picture.html",
        "/picture",
        status,
        heading=heading,
        trouble=trouble,
        refused=refused,
        refused_url=refused_url,
        sent=sent,
        tiles=shown,
        encoders=encoders,
        possible=find_spec("torch") is not None,
        impossible=IMPOSSIBLE,
        most_words=f"{most / 2**20:.0f} MB",
    )
    if status in (429, 503):
        page.headers["Retry-After"] = str(RETRY_SECONDS)
    return page


def _search(
    request: Request, archive: Archive, pictures: Pictures, encoder: str, file: UploadFile | None, url: str
) -> Neighbours:
    # No connection is held while the picture is fetched and embedded.
    if file is None:
        vector = pictures.embed_address(url, encoder, client_of(request.scope))
    else:
        vector = pictures.embed_upload(file.file, encoder)
    with archive.reading() as connection:
        return reading.nearest(connection, vector, encoder, FOUND)
