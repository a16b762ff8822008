"""How far the archive is, and how the explorer itself is."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from explorer.access import FOR_OPERATORS, is_operator
from explorer.answers import answer
from explorer.api.parameters import Cursor, EncoderName, Limit
from explorer.archive import AnArchive
from explorer.records import Page
from explorer.status import FailedImage, Status, list_failures, read_status
from lookalike.reasons import Reason

router = APIRouter(tags=["state"])
# At the root: for supervisors and Prometheus.
root = APIRouter(include_in_schema=False)


@router.get("/status", response_model=Status)
def show_status(request: Request, archive: AnArchive) -> Response:
    """What is done, failed and open for each encoder, and how fast it goes; to operators also workers and sources."""
    details = is_operator(request)
    status = read_status(archive, request.app.state.books, details)
    return _unshared(answer(request, status, keep=False), details)


@router.get("/failures", response_model=Page[FailedImage], dependencies=FOR_OPERATORS)
def show_failures(
    request: Request,
    archive: AnArchive,
    reason: Reason | None = None,
    encoder: EncoderName = None,
    cursor: Cursor = None,
    limit: Limit = 40,
) -> Response:
    """Images without a vector, the latest failure first. For operators: what went wrong names hosts and files."""
    with archive.reading() as connection:
        chosen = encoder or archive.encoder(connection)
        found = list_failures(connection, chosen, reason, cursor, limit)
    return _unshared(answer(request, found, keep=False), True)


def _unshared(response: Response, details: bool) -> Response:
    """What operators see is kept by no cache for others, and what others see is not taken for it."""
    response.headers["Vary"] += ", Authorization"
    if details:
        response.headers["Cache-Control"] = "private, no-cache"
    return response


@root.get("/healthz")
async def is_alive() -> Response:
    """Whether the process answers."""
    return PlainTextResponse("alive\n", headers={"Cache-Control": "no-store"})


@root.get("/readyz")
async def is_ready(archive: AnArchive) -> Response:
    """Whether the database can be read, with 503 and the reason where it cannot."""
    fault = await run_in_threadpool(archive.fault)
    headers = {"Cache-Control": "no-store"}
    if fault is None:
        return PlainTextResponse("ready\n", headers=headers)
    return PlainTextResponse(f"not ready: {fault}\n", 503, headers={**headers, "Retry-After": "5"})


@root.get("/metrics", dependencies=FOR_OPERATORS)
async def show_metrics(request: Request) -> Response:
    """The figures of this process for Prometheus, which gets them without a token at LOOKALIKE_METRICS_PORT."""
    figures = generate_latest(request.app.state.metrics.registry)
    return Response(figures, media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})
