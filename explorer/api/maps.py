"""The map: a sample of the archive in the plane, look-alikes near each other."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import StringConstraints

from explorer import mapping
from explorer.answers import answer, has
from explorer.api.parameters import EncoderName, Limit
from explorer.archive import AnArchive
from explorer.mapping import MapPictures, MapRecord

router = APIRouter(tags=["map"])

Side = Annotated[float, Query(ge=0, le=1)]
# Eighteen digits fit 64 bits, and a hundred such numbers are as many as a page wants at once.
Ids = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,18}(,[0-9]{1,18})*$", max_length=2_000),
    Query(description="numbers of images, as the points have them, separated by commas"),
]


@router.get("/map", response_model=MapRecord)
def show_map(request: Request, archive: AnArchive, encoder: EncoderName = None) -> Response:
    """Which map there is. `lookalike map make` makes it; later images are not on it until it is made anew."""
    with archive.reading() as connection:
        return answer(request, mapping.find(connection, encoder or archive.encoder(connection)), keep=False)


@router.get(
    "/map/points",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def map_points(request: Request, archive: AnArchive, encoder: EncoderName = None) -> Response:
    """All points at once, little-endian: "LKMP", uint32 version 1, uint32 n, uint32 0; then float64 image[n],
    uint16 x[n], uint16 y[n] (of 65535), uint8 rgb[n][3]."""
    packed = request.app.state.maps.points(archive, encoder)
    headers = {"ETag": packed.etag, "Cache-Control": "no-cache"}
    if has(request, packed.etag):
        return Response(status_code=304, headers=headers)
    return Response(packed.data, headers=headers, media_type="application/octet-stream")


@router.get("/map/images", response_model=MapPictures)
def map_images(request: Request, archive: AnArchive, ids: Ids, encoder: EncoderName = None) -> Response:
    """Some images of the map."""
    with archive.reading() as connection:
        found = mapping.find(connection, encoder or archive.encoder(connection))
        return answer(request, mapping.some(connection, found.map, [int(one) for one in ids.split(",")]))


@router.get("/map/region", response_model=MapPictures)
def map_region(
    request: Request,
    archive: AnArchive,
    left: Side = 0,
    top: Side = 0,
    right: Side = 1,
    bottom: Side = 1,
    limit: Limit = 24,
    encoder: EncoderName = None,
) -> Response:
    """The images of a rectangle of the map, those in its middle first."""
    with archive.reading() as connection:
        found = mapping.find(connection, encoder or archive.encoder(connection))
        return answer(request, mapping.region(connection, found.map, (left, top, right, bottom), limit))
