"""Makes the explorer's application: pages for people, an HTTP API for programs. Nothing connects before it starts.

The API lies at /api/v1, the pages at the root; a request for JSON at the root is one to the API.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec

from fastapi import FastAPI

from explorer.api import routers
from explorer.archive import Archive
from explorer.paths import ApiPaths
from explorer.problems import add_problem_handlers
from lookalike import __version__
from lookalike.settings import Settings

API = "/api/v1"


def create_app(settings: Settings, database_url: str) -> FastAPI:
    """The application; a database that is away is waited for, and answered with 503 meanwhile."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.archive.open()
        try:
            yield
        finally:
            app.state.archive.close()

    app = FastAPI(
        title="lookalike",
        version=__version__,
        description=__doc__,
        lifespan=lifespan,
        docs_url="/api/docs",
        openapi_url="/api/openapi.json",
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.archive = Archive(settings, database_url)
    add_problem_handlers(app)
    for router in routers():
        app.include_router(router, prefix=API)
    _add_pages(app)
    app.add_middleware(ApiPaths, api=API)
    return app


def _add_pages(app: FastAPI) -> None:
    """The pages, where they are installed: their router, their files at /static, their page of errors."""
    if find_spec("explorer.pages") is not None:
        import_module("explorer.pages").mount(app)
