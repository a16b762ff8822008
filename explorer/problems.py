"""Errors as they are answered: each class of ours has one status and one name, said once, here.

Programs get application/problem+json (RFC 9457). Browsers get a page, from whoever sets `app.state.error_page`. What we
did not expect is logged, and answered without its words: they may hold what is nobody's business.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from explorer.prefix import below
from lookalike import errors
from lookalike.database import is_away
from lookalike.reasons import Reason

log = logging.getLogger(__name__)

RETRY_SECONDS = 5


class Problem(BaseModel):
    """What went wrong. `type` tells kinds of problems apart; `reason` is that of an image which failed."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None
    reason: str | None = None
    errors: list[dict[str, Any]] | None = None


class BusyError(errors.LookalikeError):
    """Too much is asked at the moment: try again later."""


class RefusedError(errors.LookalikeError):
    """It may not be done from here."""


class UnauthorisedError(errors.LookalikeError):
    """A token is needed to change something."""


class TooManyRequestsError(errors.LookalikeError):
    """Too many requests from your address: ask again later."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """`said` is what strangers are told where the words of an error may name files and machines."""

    status: int
    name: str
    said: str | None = None


_INTERNAL = "something went wrong here; the log of the explorer says what"


# The nearest class counts: subclasses have entries of their own where they differ.
KINDS: dict[type[Exception], _Kind] = {
    errors.ConfigurationError: _Kind(422, "invalid-request"),
    errors.ServiceError: _Kind(503, "unavailable"),
    errors.ContractError: _Kind(503, "unavailable"),
    errors.SourceError: _Kind(422, "invalid-request"),
    errors.ForbiddenAddressError: _Kind(403, "forbidden-address"),
    errors.UnknownEventError: _Kind(422, "invalid-request"),
    errors.UnknownImageError: _Kind(404, "unknown-image"),
    errors.NotEmbeddedError: _Kind(409, "not-embedded"),
    errors.UnknownClusterError: _Kind(404, "unknown-cluster"),
    errors.UnknownSetError: _Kind(404, "unknown-set"),
    errors.UnknownMapError: _Kind(404, "unknown-map"),
    errors.UnknownDecisionError: _Kind(404, "unknown-decision"),
    errors.OutdatedDecisionError: _Kind(409, "outdated-decision"),
    errors.EncoderError: _Kind(
        503, "encoder-unavailable", "the network cannot be used here; the log of the explorer says why"
    ),
    errors.UnknownEncoderError: _Kind(404, "unknown-encoder"),
    errors.LostLeaseError: _Kind(409, "conflict"),
    errors.LookalikeError: _Kind(500, "internal", _INTERNAL),
    BusyError: _Kind(503, "busy"),
    RefusedError: _Kind(403, "refused"),
    UnauthorisedError: _Kind(401, "unauthorised"),
    TooManyRequestsError: _Kind(429, "too-many-requests"),
}

# What is wrong with a picture that was sent, or with where it was to be fetched from.
REASONS: dict[Reason, int] = {
    Reason.TOO_LARGE: 413,
    Reason.BOMB: 413,
    Reason.UNSUPPORTED: 415,
    Reason.NOT_AN_IMAGE: 415,
    Reason.NO_IMAGE: 415,
    Reason.HTML_PAGE: 415,
    Reason.FORBIDDEN_ADDRESS: 403,
    Reason.TIMEOUT: 504,
    Reason.UNREACHABLE: 502,
    Reason.SERVER_ERROR: 502,
    Reason.THROTTLED: 502,
    Reason.INCOMPLETE: 502,
    Reason.NOT_FOUND: 502,
    Reason.FORBIDDEN: 502,
    Reason.REJECTED: 502,
    Reason.UNREADABLE_SERVICE: 502,
    Reason.WORKER_ERROR: 500,
}


def describe(error: Exception) -> Problem:
    """The problem that an error is, in words for whoever asked."""
    if isinstance(error, errors.ImageError):
        status = REASONS.get(error.reason, 422)
        # Where a name of this network leads is nobody's business.
        hidden = error.reason is Reason.FORBIDDEN_ADDRESS
        said = error.reason.meaning if hidden else error.detail or str(error)
        return _problem(status, "unusable-picture", said, reason=str(error.reason))
    for known in type(error).__mro__:
        if known in KINDS:
            kind = KINDS[known]
            return _problem(kind.status, kind.name, kind.said or str(error))
    if isinstance(error, psycopg.errors.QueryCanceled):
        return _problem(503, "too-slow", "the search took too long: ask for less, or try again later")
    if isinstance(error, psycopg.errors.TransactionRollback):
        return _problem(503, "busy", "somebody else decides about the same at this moment: try again")
    if isinstance(error, psycopg.Error) and is_away(error):
        return _problem(503, "unavailable", "the database is away: try again later")
    if isinstance(error, psycopg.DataError):
        return _problem(422, "invalid-request", "a value is not one that the database takes")
    return _problem(500, "internal", _INTERNAL)


def _problem(status: int, name: str, detail: str, reason: str | None = None) -> Problem:
    kind = f"urn:lookalike:problem:{name}"
    return Problem(type=kind, title=HTTPStatus(status).phrase, status=status, detail=detail, reason=reason)


ErrorPage = Callable[[Request, Problem], Response]


def answer(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response, in the form that whoever asked can read."""
    page: ErrorPage | None = getattr(request.app.state, "error_page", None)
    if page is not None and wants_page(request):
        response = page(request, problem)
    else:
        shown = problem.model_copy(update={"instance": request.url.path})
        response = JSONResponse(
            shown.model_dump(mode="json", exclude_none=True),
            problem.status,
            media_type="application/problem+json",
        )
    for name, value in {"Cache-Control": "no-store", **(headers or {})}.items():
        response.headers.setdefault(name, value)
    if problem.status in (429, 503):
        response.headers.setdefault("Retry-After", str(RETRY_SECONDS))
    return response


def wants_page(request: Request) -> bool:
    """Whether a browser asks: it names text/html. The API never answers pages."""
    return not below(request.scope).startswith("/api/") and "text/html" in request.headers.get("accept", "")


def add_problem_handlers(app: FastAPI) -> None:
    """Has every error that leaves a handler answered as a problem."""
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    for known in (errors.LookalikeError, psycopg.Error):
        app.add_exception_handler(known, _answer_known)
    app.add_exception_handler(Exception, _answer_unknown)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    detail = error.detail if error.detail != phrase else None
    problem = Problem(title=phrase, status=error.status_code, detail=detail)
    return answer(request, problem, dict(error.headers or {}))


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"where": ".".join(str(part) for part in fault["loc"]), "detail": fault["msg"]}
        for fault in error.errors()
    ]
    said = "; ".join(f"{fault['where']}: {fault['detail']}" for fault in faults)
    problem = _problem(422, "invalid-request", said)
    return answer(request, problem.model_copy(update={"errors": faults}))


async def _answer_known(request: Request, error: Exception) -> Response:
    problem = describe(error)
    if problem.status >= 500 and not isinstance(error, errors.ImageError):
        asked = f"{request.method} {request.url.path}"
        log.warning("%s: %s: %s", asked, type(error).__name__, error, exc_info=_trace(error))
    headers = {}
    if isinstance(error, UnauthorisedError):
        headers["WWW-Authenticate"] = 'Basic realm="lookalike", charset="UTF-8"'
    return answer(request, problem, headers)


def _trace(error: Exception) -> Exception | None:
    """What is logged of an error: nothing more of those whose words say all."""
    return None if isinstance(error, errors.LookalikeError) or describe(error).status == 503 else error


async def _answer_unknown(request: Request, error: Exception) -> Response:
    return answer(request, describe(error))
