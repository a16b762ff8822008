"""Reads paths before they are routed: keys with slashes in them, and requests for JSON at the root.

A key may hold anything, slashes too, so that `/images/a/similar` could mean two things. As it was sent, before %2F
became a slash, the path tells: what follows the last bare slash is a verb where it is one, all before it is the key.
`/images/a%2Fsimilar` is the image "a/similar". Routes see the key percent-encoded, in one piece: they take it as `Key`.
"""

from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Path
from pydantic import AfterValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from explorer.prefix import below, root_in

IMAGES = "/images/"
# What may be asked of an image, behind its key.
VERBS = frozenset({"similar", "classes"})
# What the API answers at the root as well, to those who ask for JSON.
ROOTS = (
    "/images",
    "/search",
    "/clusters",
    "/duplicates",
    "/unwanted",
    "/decisions",
    "/status",
    "/works",
    "/failures",
    "/map",
)


def _decoded(key: str) -> str:
    key = unquote(key)
    if not key or "\0" in key:
        raise ValueError("a key is never empty, and holds no NUL")
    return key


Key = Annotated[
    str,
    Path(description="the key of an image, percent-encoded; slashes may stay as they are"),
    AfterValidator(_decoded),
]


class ApiPaths:
    """The middleware. It changes the scope in place, so that those around it see the route."""

    def __init__(self, app: ASGIApp, api: str) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root, path = root_in(scope), below(scope)
            if path.startswith(ROOTS) and _wants_json(scope):
                scope["raw_path"] = f"{root}{self._api}".encode() + _raw(scope, root).encode(
                    "ascii", "replace"
                )
                path = self._api + path
                scope["path"] = root + path
            for prefix in (IMAGES, self._api + IMAGES):
                if path.startswith(prefix):
                    scope["path"] = root + prefix + _fold(_raw(scope, root), prefix)
        await self._app(scope, receive, send)


def _raw(scope: Scope, root: str) -> str:
    """The path below the prefix as it was sent; servers may leave it out."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("ascii", "replace").removeprefix(root)


def _fold(raw: str, prefix: str) -> str:
    """What follows the prefix, with the key in one piece."""
    sent = raw[len(prefix) :] if raw.startswith(prefix) else unquote(raw)[len(prefix) :]
    key, slash, verb = sent.rpartition("/")
    if slash and key and verb in VERBS:
        return f"{quote(unquote(key), safe='')}/{verb}"
    return quote(unquote(sent), safe="")


def _wants_json(scope: Scope) -> bool:
    """Whether JSON is asked for, and no page."""
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return b"json" in accept and b"text/html" not in accept
