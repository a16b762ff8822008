"""Makes the explorer's application: pages for people, an HTTP API for programs. Nothing connects before it starts.

The API lies at /api/v1, the pages at the root; a request for JSON at the root is one to the API.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from explorer import showing
from explorer.api import reference, routers, state
from explorer.archive import Archive
from explorer.bodies import Bodies
from explorer.headers import SecurityHeaders
from explorer.heads import Heads
from explorer.limits import Proxies, RateLimit
from explorer.mapping import Maps
from explorer.metrics import Measured, Metrics
from explorer.paths import ApiPaths
from explorer.pictures import FETCHES, OWN_WAITING, Pictures
from explorer.prefix import Prefix, parse_prefix
from explorer.problems import add_problem_handlers
from explorer.status import BookKeeper
from lookalike import __version__
from lookalike.guard import parse_networks
from lookalike.settings import Settings

API = "/api/v1"
# Threads for those who only read: more than there are connections to Postgres serve nobody.
READERS = 32
ABOUT = """\
Finds the images in an archive that look alike.

Reading needs no token. Lists come in pages: hand `next` back as `cursor`. Errors are problems as in RFC 9457. Keys may
hold slashes, bare or as %2F.
"""


def create_app(settings: Settings, database_url: str) -> FastAPI:
    """The application; a database that is away is waited for, and answered with 503 meanwhile."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Whoever waits for the network or for a host holds a thread: those who only read shall always find one.
        waiting = settings.explorer_searches + FETCHES + OWN_WAITING
        current_default_thread_limiter().total_tokens = READERS + waiting
        app.state.archive.open()
        try:
            yield
        finally:
            app.state.pictures.close()
            app.state.books.close()
            app.state.archive.close()

    app = FastAPI(
        title="lookalike",
        version=__version__,
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    app.state.archive = Archive(settings, database_url)
    app.state.books = BookKeeper(app.state.archive)
    app.state.pictures = Pictures(settings, app.state.metrics)
    app.state.maps = Maps()
    add_problem_handlers(app)
    for router in routers():
        app.include_router(router, prefix=API)
    app.include_router(state.root)
    app.include_router(reference.router, prefix="/api")
    showing.mount(app)
    _add_pages(app)
    _add_middleware(app, settings)
    return app


def _add_pages(app: FastAPI) -> None:
    """The pages, where they are installed: their router, their files at /static, their page of errors."""
    if find_spec("explorer.pages") is not None:
        import_module("explorer.pages").mount(app)


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """From the innermost to the outermost, which sees a request first."""
    app.add_middleware(ApiPaths, api=API)
    app.add_middleware(Bodies, upload_bytes=settings.explorer_upload_bytes, metrics=app.state.metrics)
    app.add_middleware(RateLimit, rate=settings.explorer_rate, burst=settings.explorer_burst)
    if settings.explorer_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in settings.explorer_origins.split(",")],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match"],
            expose_headers=["ETag", "Retry-After"],
        )
    app.add_middleware(SecurityHeaders, image_sources=settings.explorer_image_sources)
    app.add_middleware(Heads)
    app.add_middleware(Measured, metrics=app.state.metrics, api=API)
    app.add_middleware(Proxies, believed=parse_networks(settings.explorer_proxies))
    app.add_middleware(Prefix, root=parse_prefix(settings.explorer_root_path))
