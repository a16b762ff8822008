"""Downloads a large file to disk before it is read, because reading it takes hours and connections do not last.

What was downloaded is never downloaded again: it goes on where it broke off, as long as the file is the same there.
"""

import fcntl
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from lookalike.errors import SourceError
from lookalike.settings import Settings
from orchestrator.sources.records import without_secrets
from orchestrator.sources.web import AnswerError, PassingError, Web, fingerprint

log = logging.getLogger(__name__)


class DamagedError(SourceError):
    """The file cannot be unpacked to its end."""


@dataclass(frozen=True)
class Download:
    """A file on disk, and the version that its host gave it."""

    path: Path
    version: str


@dataclass
class _State:
    """What is known of a download that was begun; kept beside it."""

    etag: str = ""
    modified: str = ""
    size: int = -1  # of the whole file in bytes; below 0: not known

    @property
    def version(self) -> str:
        return self.etag or f"{self.modified} {self.size}"

    @property
    def validator(self) -> str:
        """What tells the host which file a part is of; a weak ETag may not."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified


@contextmanager
def downloaded(web: Web, url: str, settings: Settings, version: object = None) -> Iterator[Download]:
    """Downloads the file into `$LOOKALIKE_HOME/downloads`, and removes it when the block has ended well.

    When the block raises, the file stays for the next time. The version that is wanted is taken from disk
    without asking whether there is a newer one. Raises SourceError when the file cannot be had, or another
    process is at it.
    """
    folder = settings.home / "downloads"
    fetch = _Fetch(web, url, settings, folder / fingerprint(url))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = fetch.path.with_suffix(".lock").open("w")
    except OSError as error:
        raise SourceError(f"{folder} cannot be written: {error.strerror}; set LOOKALIKE_HOME") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SourceError(
                f"{without_secrets(url)} is being read by another process: let it, or stop that first"
            ) from error
        try:
            yield Download(fetch.path, fetch.run(version))
        except DamagedError:
            fetch.remove()
            raise
        fetch.remove()


class _Fetch:
    """The download of one file; `path` is where it goes, its state lies beside it."""

    def __init__(self, web: Web, url: str, settings: Settings, path: Path) -> None:
        self.path = path
        self._web = web
        self._url = url
        self._name = without_secrets(url)
        self._settings = settings
        self._state_path = path.with_suffix(".state")
        self._state = self._load()

    def run(self, version: object) -> str:
        """Brings the whole file to disk and returns its version."""
        if self._is_complete() and self._state.version == version:
            return self._state.version
        failures = 0
        while True:
            before = self._size()
            try:
                self._go_on()
            except OSError as error:
                raise SourceError(
                    f"{self._name} cannot be kept in {self.path.parent}: {error.strerror}; "
                    "make room, or set LOOKALIKE_HOME to where there is some"
                ) from error
            except HTTPError as error:
                failures = 1 if self._size() > before else failures + 1
                if failures >= self._settings.tries:
                    raise PassingError(
                        f"{self._name} broke off after {self._size():,} bytes ({type(error).__name__}); "
                        "read it again, it goes on from there"
                    ) from error
                time.sleep(self._settings.retry_seconds * 2.0 ** (failures - 1))
            else:
                return self._state.version

    def remove(self) -> None:
        """Removes the file and what is known of it."""
        for path in (self.path, self._state_path):
            path.unlink(missing_ok=True)

    def _go_on(self) -> None:
        """Downloads what is missing, all of it when the file has changed."""
        response = self._answer()
        try:
            if response.status != HTTPStatus.NOT_MODIFIED:
                self._receive(response)
        finally:
            response.close()

    def _answer(self) -> BaseHTTPResponse:
        """Opens the rest of the file, or all of it when what we have is no part of it any more."""
        try:
            response = self._web.open(self._url, self._headers())
            if response.status != HTTPStatus.PARTIAL_CONTENT or self._continues(response):
                return response
            response.close()
        except AnswerError as error:
            if error.status != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
        self._state = _State()
        response = self._web.open(self._url, self._headers())
        if response.status == HTTPStatus.OK:
            return response
        response.close()
        raise SourceError(f"{self._name} gave a part of the file when all of it was asked for")

    def _continues(self, response: BaseHTTPResponse) -> bool:
        """Whether the part that comes begins where ours ends, of the same file. Not every host heeds If-Range."""
        given = response.headers
        starts = given.get("Content-Range", "").startswith(f"bytes {self._size()}-")
        return starts and given.get("ETag", self._state.etag) == self._state.etag

    def _headers(self) -> dict[str, str]:
        state, size = self._state, self._size()
        headers = {"Accept-Encoding": "identity"}
        if self._is_complete():
            if state.etag:
                headers["If-None-Match"] = state.etag
            elif state.modified:
                headers["If-Modified-Since"] = state.modified
        elif size and state.validator:
            headers |= {"Range": f"bytes={size}-", "If-Range": state.validator}
        return headers

    def _receive(self, response: BaseHTTPResponse) -> None:
        start = self._size() if response.status == HTTPStatus.PARTIAL_CONTENT else 0
        if not start:
            length = response.headers.get("Content-Length", "")
            self._state = _State(
                response.headers.get("ETag", ""),
                response.headers.get("Last-Modified", ""),
                int(length) if length.isdecimal() else -1,
            )
            self._save()
        log.info("%s: downloading from byte %d of %d", self._name, start, self._state.size)
        with self.path.open("ab" if start else "wb") as file:
            for part in response.stream(2**16, decode_content=False):
                file.write(part)
        if self._state.size < 0:
            self._state.size = self._size()
            self._save()

    def _is_complete(self) -> bool:
        return 0 <= self._state.size == self._size()

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _load(self) -> _State:
        try:
            return _State(**json.loads(self._state_path.read_bytes()))
        except (OSError, ValueError, TypeError):  # there is none, or it was cut short
            return _State()

    def _save(self) -> None:
        self._state_path.write_text(json.dumps(vars(self._state)), encoding="utf-8")
