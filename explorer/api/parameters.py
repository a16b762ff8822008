"""Parameters that several requests take, with the bounds that the database would refuse them by."""

from datetime import date
from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator, StringConstraints

from explorer.reading import Filters


def _without_nul(text: str) -> str:
    # Postgres has no NUL in text.
    if "\0" in text:
        raise ValueError("no NUL can be in it")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
Count = Annotated[int, Query(ge=1, le=200, description="how many neighbours")]
MaxDistance = Annotated[float | None, Query(ge=0, le=1, description="only neighbours within this distance")]
EncoderName = Annotated[Text | None, Query(description="another encoder than the active one")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next` of the page before")]
Limit = Annotated[int, Query(ge=1, le=200, description="how many on a page")]
Colour = Annotated[str, StringConstraints(pattern=r"^#?[0-9A-Fa-f]{6}$")]


async def filters(
    work: Annotated[Text | None, Query(description="only images of this work")] = None,
    licence: Annotated[Text | None, Query(description="only images of this licence")] = None,
    access: Annotated[Text | None, Query(description="only images of this access")] = None,
    source: Annotated[Text | None, Query(description="only images of this source")] = None,
    since: Annotated[date | None, Query(description="only images digitised on this day or later")] = None,
    before: Annotated[date | None, Query(description="only images digitised before this day")] = None,
    colour: Annotated[
        Colour | None, Query(description="only images with much of this colour, as in c83c32")
    ] = None,
    exclude_same_work: Annotated[bool, Query(description="leave out images of the query's own work")] = False,
    include_unwanted: Annotated[bool, Query(description="also images that somebody called unwanted")] = False,
) -> Filters:
    """The filters of a search, from the query string; a coroutine, because a plain function would take a thread."""
    return Filters(work, licence, access, source, since, before, colour, exclude_same_work, include_unwanted)
