"""Errors as pages: what is wrong, and what can be done about it from here."""

from urllib.parse import unquote

from fastapi import Request
from fastapi.responses import Response

from explorer.pages.rendering import render
from explorer.prefix import root_of
from explorer.problems import RETRY_SECONDS, Problem

HEADINGS = {
    400: "That is no question the archive understands",
    401: "Deciding needs a token",
    403: "That may not be done from here",
    404: "There is nothing here",
    405: "That cannot be done here",
    408: "It came too slowly",
    409: "It is no longer so",
    413: "The picture is too large",
    415: "That is no picture we can read",
    422: "That is no question the archive understands",
    429: "Too many questions at once",
    503: "The archive is away for a moment",
}


def error_page(request: Request, problem: Problem) -> Response:
    """The page of a problem. An image that is not known gets a search box; an archive that is away is tried again."""
    heading = HEADINGS.get(problem.status, "Something went wrong")
    if problem.type.endswith("unknown-image"):
        heading = "No image has this key"
    return render(
        request,
        "error.html",
        status=problem.status,
        code=problem.status,
        heading=heading,
        detail=problem.detail or problem.title,
        sought=_sought(request) if problem.status == 404 else None,
        again=RETRY_SECONDS,
    )


def _sought(request: Request) -> str | None:
    """The key that was asked for, to look for what begins like it."""
    path = request.url.path.removeprefix(root_of(request))
    if path.startswith("/images/"):
        return unquote(path.removeprefix("/images/"))
    return request.query_params.get("key")
