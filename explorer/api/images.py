"""Images: one by its key, its neighbours, some at random, and those that a few words find."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from explorer import finding, reading
from explorer.answers import answer
from explorer.api.parameters import Colour, Count, Cursor, EncoderName, Limit, MaxDistance, Text, filters
from explorer.archive import AnArchive
from explorer.paths import Key
from explorer.reading import Filters
from explorer.records import ImageRecord, Neighbour, Neighbours, Page, Picture
from lookalike.database import Connection
from lookalike.errors import UnknownImageError

router = APIRouter(tags=["images"])


class Wall(BaseModel):
    """Some images."""

    items: list[Picture]


class Coloured(BaseModel):
    """The images that hold most of a colour; distance 0 is a picture all of it."""

    colour: str
    neighbours: list[Neighbour]


@router.get("/images", response_model=Page[Picture])
def find_images(
    request: Request,
    archive: AnArchive,
    q: Annotated[Text, Query(max_length=200, description="the beginning of a key, or words of a title")],
    cursor: Cursor = None,
    limit: Limit = 40,
) -> Response:
    """Images whose key begins so, then those with all these words in their title; the last may be a beginning.

    A page may hold fewer than `limit`, even none, and yet have a `next`: go on with it.
    """
    with archive.reading() as connection:
        return answer(request, finding.find(connection, q, cursor, limit))


@router.get("/random", response_model=Wall)
def random_images(request: Request, archive: AnArchive, limit: Limit = 40) -> Response:
    """Random images, others every time."""
    with archive.reading() as connection:
        return answer(request, Wall(items=reading.random_wall(connection, limit)), keep=False)


@router.get("/colours/{colour}", response_model=Coloured)
def images_of_colour(
    request: Request,
    archive: AnArchive,
    colour: Colour,
    k: Count = 20,
    max_distance: MaxDistance = None,
    include_unwanted: bool = False,
) -> Response:
    """The images that hold most of a colour."""
    with archive.reading() as connection:
        found = reading.by_colour(connection, colour, k, max_distance, include_unwanted)
    return answer(request, Coloured(colour=colour, neighbours=found))


@router.get("/works/{work:path}", response_model=Page[Picture])
def images_of_work(
    request: Request,
    archive: AnArchive,
    work: Text,
    cursor: Cursor = None,
    limit: Limit = 100,
    include_unwanted: bool = False,
) -> Response:
    """The images of a work, in the order of their registration; unwanted ones where they are asked for."""
    with archive.reading() as connection:
        return answer(request, reading.find_work(connection, work, cursor, limit, include_unwanted))


@router.get("/images/{key}", response_model=ImageRecord)
def show_image(request: Request, archive: AnArchive, key: Key, encoder: EncoderName = None) -> Response:
    """What the archive says of an image: catalogue, colours, labels, clusters, near-duplicates."""
    with archive.reading() as connection:
        return answer(request, reading.find_image(connection, key, encoder))


@router.get("/images/{key}/similar", response_model=Neighbours)
def similar_images(
    request: Request,
    archive: AnArchive,
    key: Key,
    wanted: Annotated[Filters, Depends(filters)],
    k: Count = 20,
    max_distance: MaxDistance = None,
    encoder: EncoderName = None,
) -> Response:
    """The images most like this one, nearest first."""
    with archive.reading() as connection:
        chosen = encoder or archive.encoder(connection)
        try:
            found = reading.similar(connection, key, chosen, k, max_distance, wanted)
        except UnknownImageError:
            # An image may be called so; of two meanings, the one that exists.
            if (named := _image_called(connection, f"{key}/similar")) is None:
                raise
            return answer(request, named)
    return answer(request, found)


def _image_called(connection: Connection, key: str) -> ImageRecord | None:
    try:
        return reading.find_image(connection, key)
    except UnknownImageError:
        return None
