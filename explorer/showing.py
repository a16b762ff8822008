"""The route that shows an image: by its thumbnail, else by what shows it elsewhere, else by its colours.

No file of this machine is ever read for it but those that a worker has stored as thumbnails.
"""

import logging

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from explorer.answers import has
from explorer.archive import AnArchive, Archive
from explorer.placeholders import draw
from explorer.services import Services
from explorer.thumbnails import SMALL, public_address
from lookalike import thumbnails
from lookalike.thumbnails import Cache, Shown, open_cache

log = logging.getLogger(__name__)
router = APIRouter()

# What has the revision in its address never changes; the rest is asked for again now and then.
FOR_EVER = "public, max-age=31536000, immutable"
FOR_A_WHILE = "public, max-age=300"

# Threads of their own: a bucket or an image service that hangs must not keep pages and searches waiting.
THREADS = 16


def mount(app: FastAPI) -> None:
    """Adds the route to the application. Raises ConfigurationError for a cache that is none."""
    app.state.thumbnails = open_cache(app.state.settings)
    app.state.services = Services(app.state.settings)
    app.state.thumbnail_threads = CapacityLimiter(THREADS)
    app.include_router(router, include_in_schema=False)


@router.get("/thumbnails/{key:path}", response_class=Response)
async def show(request: Request, archive: AnArchive, key: str, v: str | None = None) -> Response:
    """A JPEG; or a redirect to who shows the image; or 404 with an SVG of its colours, for a page to show."""
    threads: CapacityLimiter = request.app.state.thumbnail_threads
    return await run_sync(_show, request, archive, key, v, limiter=threads)


@router.get("/zoom", response_class=Response)
async def show_zoom(request: Request, archive: AnArchive, key: str) -> Response:
    """How the picture comes in tiles, as JSON; an empty object where it comes as one file alone."""
    threads: CapacityLimiter = request.app.state.thumbnail_threads
    return await run_sync(_zoom, request, archive, key, limiter=threads)


def _zoom(request: Request, archive: Archive, key: str) -> Response:
    shown = None
    if "\0" not in key:
        with archive.reading() as connection:
            shown = thumbnails.find(connection, key)
    services: Services = request.app.state.services
    zoom = None
    # One that had to be cleaned of a secret would not answer.
    if shown and shown.open and shown.protocol == "iiif" and public_address(shown.url) == shown.url:
        zoom = services.zoom(shown.url, SMALL // 2, shown.outside)
    headers = {"Cache-Control": "private, max-age=300"}
    return JSONResponse(zoom.model_dump() if zoom else {}, headers=headers)


def _show(request: Request, archive: Archive, key: str, v: str | None) -> Response:
    if "\0" in key:
        return _draw(None)
    with archive.reading() as connection:
        shown = thumbnails.find(connection, key)
    if shown is None or not shown.open:
        return _draw(shown)
    if shown.revision is not None and shown.stored_at is not None:
        etag = f'"{shown.id:x}-{shown.revision:x}-{int(shown.stored_at.timestamp() * 1e6):x}"'
        headers = {"Cache-Control": FOR_EVER if v == str(shown.revision) else FOR_A_WHILE, "ETag": etag}
        if has(request, etag):
            return Response(status_code=304, headers=headers)
        if (jpeg := _read(request.app.state.thumbnails, shown)) is not None:
            return Response(jpeg, media_type="image/jpeg", headers=headers)
    address = _elsewhere(request.app.state.services, shown)
    if address is not None:
        return RedirectResponse(address, 302, {"Cache-Control": FOR_A_WHILE})
    return _draw(shown)


def _read(cache: Cache | None, shown: Shown) -> bytes | None:
    """The thumbnail; one in the database can be read without a cache."""
    try:
        return (cache or Cache(None, local=False)).read(shown)
    except Exception as error:  # a folder or a bucket that is away; its libraries have errors of many kinds
        said = " ".join(str(error).split())
        log.warning("the thumbnail of image %d cannot be read: %s: %s", shown.id, type(error).__name__, said)
        return None


def _elsewhere(services: Services, shown: Shown) -> str | None:
    """An address that a browser can show the image from."""
    address = public_address(shown.url)
    if shown.protocol != "iiif" or address is None:
        return address
    # One that had to be cleaned of a secret would not answer.
    found = services.small(shown.url, SMALL // 2, shown.outside) if address == shown.url else None
    return found and public_address(found)


def _draw(shown: Shown | None) -> Response:
    drawing = (
        draw(shown.aspect_ratio, shown.palette, shown.palette_shares) if shown else draw(None, None, None)
    )
    # Not for long: a worker may be about to make it.
    headers = {"Cache-Control": "public, max-age=30"}
    return Response(drawing, 404, headers, media_type="image/svg+xml")
