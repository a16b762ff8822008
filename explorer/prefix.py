"""Where the explorer lies on its website: at the root of a host, or below a path of a larger site.

That path is a setting and never a header: what a visitor can write would otherwise stand in links that caches keep for
others. Whether the proxy takes it off before it asks us, or leaves it on, does not matter.
"""

import re
from urllib.parse import quote, urlsplit

from fastapi import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lookalike.errors import ConfigurationError

# What lies at the root of the explorer: a site below such a path could not be told from it.
OWN = frozenset(
    {"api", "clusters", "compare", "decisions", "duplicates", "failures", "healthz", "image", "images", "map"}
    | {"metrics", "numbers", "picture", "readyz", "search", "static", "status", "thumbnails", "unwanted"}
    | {"works", "zoom"}
)


def parse_prefix(words: str | None) -> str:
    """The path of a setting, as `/lookalike`, or nothing. Raises ConfigurationError for what is none."""
    root = (words or "").strip().rstrip("/")
    if root and not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", root):
        raise ConfigurationError(f"LOOKALIKE_EXPLORER_ROOT_PATH: write a path as /lookalike, not {words!r}")
    first = root.split("/")[1] if root else ""
    if first in OWN:
        raise ConfigurationError(
            f"LOOKALIKE_EXPLORER_ROOT_PATH: /{first} is a page of the explorer; choose a path such as /lookalike"
        )
    return root


def root_in(scope: Scope) -> str:
    """The path that the explorer lies under; mostly empty. What is mounted below has a root of its own, not meant."""
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    return root.rstrip("/")


def root_of(request: Request) -> str:
    """As `root_in`, of a request."""
    return root_in(request.scope)


def below(scope: Scope) -> str:
    """The path of a request as it is written in routes: what follows the prefix."""
    path: str = scope["path"]
    return _without(path, root_in(scope))


def _without(path: str, root: str) -> str:
    return path[len(root) :] if root and (path == root or path.startswith(f"{root}/")) else path


class Prefix:
    """The middleware: has every path begin with the prefix, as ASGI wants it, and redirects stay on the site."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._root:
            path = _without(scope["path"], self._root)
            raw = (scope.get("raw_path") or quote(scope["path"]).encode()).partition(b"?")[0]
            raw = _without(raw.decode("latin-1"), self._root).encode("latin-1")
            if not path:
                await RedirectResponse(f"{self._root}/", 308)(scope, receive, send)
                return
            scope["root_path"] = self._root
            scope["path"] = self._root + path
            scope["raw_path"] = self._root.encode() + raw

        async def staying(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [_stay(scope, *one) for one in message["headers"]]}
            await send(message)

        await self._app(scope, receive, staying)


def _stay(scope: Scope, name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A redirect to where we were asked names no host: what a proxy calls us may be nobody else's name for us."""
    if name.lower() != b"location":
        return name, value
    host = next((said for known, said in scope["headers"] if known == b"host"), b"").decode("latin-1")
    parts = urlsplit(value.decode("latin-1"))
    if not parts.netloc or parts.netloc != host or parts.path.startswith("//"):
        return name, value
    return name, parts._replace(scheme="", netloc="").geturl().encode("latin-1")
