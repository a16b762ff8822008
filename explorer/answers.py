"""Answers of the API: a record's JSON, written once, with what caches need to know of it."""

import hashlib

from fastapi import Request, Response
from pydantic import BaseModel

from explorer.prefix import root_of

JSON = "application/json"


def answer(request: Request, record: BaseModel, keep: bool = True) -> Response:
    """A record as JSON with its ETag, or 304 when whoever asks has it already.

    With `keep` browsers and caches may keep it for the time of the setting; else they ask again each time.
    """
    body = write(request, record)
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    seconds = request.app.state.settings.explorer_cache_seconds if keep else 0
    headers = {
        "ETag": etag,
        "Cache-Control": f"public, max-age={seconds}" if seconds else "no-cache",
        "Vary": "Accept, Origin",
    }
    if has(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=JSON)


def write(request: Request, record: BaseModel) -> bytes:
    """A record as JSON, in which our own addresses begin with the path that the explorer lies under."""
    return record.model_dump_json(context={"root": root_of(request)}).encode()


def has(request: Request, etag: str) -> bool:
    """Whether one of the ETags that were sent is this one; compared weakly, as caches compress what they keep."""
    sent = request.headers.get("if-none-match", "")
    return sent.strip() == "*" or etag in (one.strip().removeprefix("W/") for one in sent.split(","))


def written(request: Request, record: BaseModel, status: int = 200) -> Response:
    """The answer to a change, which nobody keeps."""
    return Response(write(request, record), status, headers={"Cache-Control": "no-store"}, media_type=JSON)
