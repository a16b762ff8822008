"""Who decides on the pages."""

from typing import Annotated

from fastapi import Depends, Request


async def _person(request: Request) -> str:  # noqa: ARG001
    return "visitor"


Person = Annotated[str, Depends(_person)]
