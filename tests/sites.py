"""A web server for tests of sources: pages that refer to it, errors on demand, ranges, and a list of what was asked."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = Any


@dataclass
class Site:
    """`pages` by path, with its query; a list is answered one after the other, SITE in JSON is our address.

    `files` have ETags and give ranges; after `cut` bytes of one the connection is closed. `asked` holds the
    paths, `headers` the headers of each request.
    """

    url: str = ""
    pages: dict[str, Json] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int | None = None
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """The status, headers and body for a path."""
        self.asked.append(path)
        page = self.pages.get(path, (404, {}, b"none"))
        if isinstance(page, list):
            page = page.pop(0) if len(page) > 1 else page[0]
        if isinstance(page, tuple):
            return page
        if isinstance(page, bytes):
            return 200, {}, page
        return 200, {}, json.dumps(page).replace("SITE", self.url).encode()

    def file(self, path: str, asked: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """The answer for a file: all of it, what follows the start of a range, or that it has not changed."""
        self.asked.append(path)
        body = self.files[path]
        etag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
        if asked.get("If-None-Match") == etag:
            return 304, {"ETag": etag}, b""
        start = int(asked.get("Range", "bytes=0-")[6:-1])
        if start and asked.get("If-Range") == etag:
            if start >= len(body):
                return 416, {}, b""
            given = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            return 206, {"ETag": etag, **given}, body[start:]
        return 200, {"ETag": etag}, body


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of these tests."""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serves the site at the address that it gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = dict(self.headers)
            site.headers.append(headers)
            is_file = self.path in site.files
            status, given, body = site.file(self.path, headers) if is_file else site.answer(self.path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **given}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: site.cut] if is_file else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
