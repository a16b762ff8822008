"""The explorer's pages for people: rendered on the server, with a little script where it serves.

Everything works as plain links and forms as well. What is read comes from explorer.reading and explorer.reviewing, what
is decided goes through explorer.deciding: no page asks the database by itself for what the API has.
"""

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from explorer.pages import (
    clusters,
    comparing,
    decisions,
    duplicates,
    images,
    map,
    pictures,
    status,
    unwanted,
    walls,
)
from explorer.pages.classes import Classes
from explorer.pages.errors import error_page
from explorer.pages.learning import Learning
from explorer.pages.rendering import STATIC, digest

ROUTERS = (walls, images, comparing, map, pictures, clusters, duplicates, unwanted, status, decisions)


class Files(StaticFiles):
    """The pages' own files: below the digest of their content they are kept for ever."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        named, _, rest = path.partition("/")
        is_named = named == digest()
        response = await super().get_response(rest if is_named else path, scope)
        kept = "public, max-age=31536000, immutable" if is_named else "no-cache"
        response.headers["Cache-Control"] = kept
        return response


def mount(app: FastAPI) -> None:
    """Adds the pages, their files and their page of errors to the application."""
    for module in ROUTERS:
        app.include_router(module.router, include_in_schema=False)
    app.mount("/static", Files(directory=STATIC), name="static")
    app.state.classes = Classes(app.state.pictures)
    app.state.learning = Learning(app.state.archive)
    app.state.error_page = error_page
