"""Search with a picture that is sent, or that lies at an address."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from explorer import reading
from explorer.answers import written
from explorer.api.parameters import Count, EncoderName, MaxDistance, filters
from explorer.archive import AnArchive
from explorer.forms import picture_form
from explorer.limits import client_of
from explorer.pictures import ThePictures
from explorer.reading import Filters
from explorer.records import Neighbours
from lookalike import books
from lookalike.errors import ConfigurationError

router = APIRouter(tags=["search"])


class Address(BaseModel):
    """Where the picture is, on the public web."""

    url: str = Field(pattern=r"^https?://[^\s/]", max_length=4000)


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {"picture": {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["url"],
                    "properties": {
                        "url": {"type": "string", "pattern": r"^https?://[^\s/]", "maxLength": 4000}
                    },
                }
            },
        },
    }
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What somebody searches with: a file, or an address."""

    file: BinaryIO | None
    name: str


async def sent_picture(request: Request) -> AsyncIterator[Sent]:
    """The picture of a request, as a form or as JSON; what lies on disk of it goes with the answer."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with picture_form(request) as form:
            sent = form.get("picture")
            if not isinstance(sent, UploadFile):
                raise ConfigurationError("send the file of a picture as `picture`")
            yield Sent(sent.file, sent.filename or "a picture")
    elif kind == "application/json":
        try:
            address = Address.model_validate_json(await request.body())
        except ValidationError:
            raise ConfigurationError('write {"url": "https://…"}, the address of a picture') from None
        yield Sent(None, address.url)
    else:
        raise HTTPException(415, 'send a form with the file `picture`, or JSON: {"url": "https://…"}')


@router.post("/search", response_model=Neighbours, openapi_extra=BODY)
def search_with_picture(
    request: Request,
    archive: AnArchive,
    pictures: ThePictures,
    sent: Annotated[Sent, Depends(sent_picture)],
    wanted: Annotated[Filters, Depends(filters)],
    k: Count = 20,
    max_distance: MaxDistance = None,
    encoder: EncoderName = None,
) -> Response:
    """The images most like a picture that is sent as a form (`picture`), or lies at a public address (JSON `url`).

    It is not kept.
    """
    with archive.reading() as connection:
        chosen = encoder or archive.encoder(connection)
        # Nobody has a network loaded that finds nothing here.
        books.vectors_table(connection, chosen)
    # No connection is held while the picture is fetched and embedded.
    if sent.file is None:
        vector = pictures.embed_address(sent.name, chosen, client_of(request.scope))
    else:
        vector = pictures.embed_upload(sent.file, chosen)
    with archive.reading() as connection:
        return written(
            request, reading.nearest(connection, vector, chosen, k, max_distance, wanted, sent.name)
        )
