"""Reads JSON documents and streams of bytes over HTTP, politely: with limits, a few tries, `Retry-After` obeyed.

Only http and https are followed, also by redirects, where the guard does not object. Its messages never show
credentials.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    LocationValueError,
    MaxRetryError,
    ResponseError,
    SSLError,
)

from lookalike import __version__
from lookalike.errors import SourceError
from lookalike.images import Image, Notice
from lookalike.settings import Settings
from orchestrator.sources.records import without_secrets
from orchestrator.sources.transport import Transport

AnyNotice = TypeVar("AnyNotice", bound=Notice)

MAX_DOCUMENT = 64 * 2**20
"""Largest manifest or collection in bytes, unpacked; Python takes about ten times as much to hold it."""

_MAX_FAILURES = 20  # in a row: then it is the host or the network that fails, not single documents
# A page that leads to all that follows is worth more tries than a document of many: with doubling pauses, some minutes.
_MORE_TRIES = 4
_MAX_ERROR_PAGE = 2**16
_LONGEST_WAIT = 120.0  # seconds; a host that asks for more is counted as not answering
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_WANTED = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_MODIFIED})
_LASTING = (
    LocationValueError,
    ResponseError,
    SSLError,
    ValueError,
)  # bad address, redirects in a circle, certificate
_HEADERS = {
    "User-Agent": f"lookalike/{__version__}",
    "Accept": "application/ld+json, application/json;q=0.9, */*;q=0.5",
    "Accept-Encoding": "gzip",
}


class AnswerError(SourceError):
    """The host answered, but not with the document.

    `status` is that of HTTP, `page` the beginning of what came instead.
    """

    def __init__(self, message: str, status: int, page: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.page = page


class PassingError(SourceError):
    """The host did not answer properly, which may pass."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutageError(SourceError):
    """So many documents in a row could not be had that going on would only lose more of them."""


class Web:
    """A pool of connections with the limits of the settings. For one thread, and for `with`.

    `given` is the address of the source, where the operator has given one; all others come from outside, see Transport.
    With `once` each host is asked once: the caller has pauses of its own.
    """

    def __init__(self, settings: Settings, given: str | None = None, *, once: bool = False) -> None:
        self._settings = settings
        self._transport = Transport(settings, _HEADERS, given)
        self._retrying = self._trying(1 if once else settings.tries)
        self._insisting = self._trying(1 if once else settings.tries + _MORE_TRIES)
        self._failures = 0

    def _trying(self, tries: int) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(PassingError),
            stop=stop_after_attempt(tries),
            wait=self._pause,
            reraise=True,
        )

    def __enter__(self) -> "Web":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def json(self, url: str, *, patiently: bool = False) -> object:
        """Returns the parsed JSON at the address; `patiently`: a host that fails is asked again for some minutes.

        Raises SourceError that says why there is none: an AnswerError, when the host refused it; an
        OutageError, when for the twentieth time in a row it was refused (403, by which some hosts say that
        they are asked too much) or failed in a way that passes.
        """
        try:
            text = (self._insisting if patiently else self._retrying)(self._download, url)
        except SourceError as error:
            self._count(error)
            raise
        self._failures = 0
        return parse_json(text, without_secrets(url))

    def open(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Opens the address with these headers as well; the answer is 200, 206 or 304, its body unread.

        Raises SourceError: an AnswerError, when the host refused it.
        """
        return self._retrying(self._open, url, headers)

    def is_own(self, url: str) -> bool:
        """Whether an address is as good as one that the operator has given: it lies on the host of his."""
        return self._transport.is_own(url)

    def vouch(self, notices: Iterable[AnyNotice]) -> Iterator[AnyNotice]:
        """Yields what was announced; images at addresses that are as good as the operator's own are marked so.

        Asked after the documents that announce them were read, as the sources do.
        """
        for notice in notices:
            if isinstance(notice, Image) and notice.outside and self.is_own(notice.url):
                yield replace(notice, outside=False)
            else:
                yield notice

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def _count(self, error: SourceError) -> None:
        """Counts failures that are likely to hit the next document as well. Raises OutageError for the last one."""
        refused = isinstance(error, AnswerError) and error.status == HTTPStatus.FORBIDDEN
        if not refused and not isinstance(error, PassingError):
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise OutageError(
                f"{_MAX_FAILURES} documents in a row could not be read, the last because {error}; "
                "read the source again later, it goes on from here"
            ) from error

    def _open(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        name = without_secrets(url)
        try:
            response = self._transport.request(url, {**_HEADERS, **headers})
        except (HTTPError, ValueError) as error:  # ValueError: http.client refuses a malformed host so
            cause = error.reason if isinstance(error, MaxRetryError) else error
            kind = SourceError if isinstance(cause, _LASTING) else PassingError
            raise kind(f"{name} cannot be reached: {_said(cause)}") from error
        wanted = _WANTED if headers else {HTTPStatus.OK}
        if response.status in wanted:
            return response
        status, wait = response.status, _retry_after(response)
        page = _beginning(response)
        if status in _PASSING:
            raise PassingError(f"{name} answered {status} {_phrase(status)}; try again later", wait)
        raise AnswerError(f"{name} answered {status} {_phrase(status)}; check the address", status, page)

    def _download(self, url: str) -> bytes:
        deadline = time.monotonic() + self._settings.fetch_timeout
        response = self._open(url, {})
        name, body = without_secrets(url), bytearray()
        try:
            for part in response.stream(2**16, decode_content=True):
                body += part
                if len(body) > MAX_DOCUMENT:
                    raise SourceError(f"{name} is larger than {MAX_DOCUMENT >> 20} MiB")
                if time.monotonic() > deadline:
                    raise PassingError(f"{name} did not arrive within {self._settings.fetch_timeout:g} s")
        except HTTPError as error:
            raise PassingError(f"{name} broke off: {_said(error)}") from error
        finally:
            response.close()
        return bytes(body)

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, PassingError) else None
        usual = self._settings.retry_seconds * 2.0 ** (state.attempt_number - 1)
        return min(max(usual, asked or 0.0), _LONGEST_WAIT)


def parse_json(text: bytes, name: str) -> object:
    """Returns the parsed document. Raises SourceError, with `name` in its message, when it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        page = " but an HTML page" if text.lstrip()[:1] == b"<" else f": {error}"
        raise SourceError(f"{name} is not JSON{page}") from error


def fingerprint(text: str) -> str:
    """Returns 16 digits that stand for a text in positions: they keep no secrets and stay short."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _retry_after(response: BaseHTTPResponse) -> float | None:
    header = response.headers.get("Retry-After")
    try:
        return Retry().parse_retry_after(header) if header else None
    except InvalidHeader:
        return None


def _beginning(response: BaseHTTPResponse) -> bytes:
    """Returns the beginning of an error page, as far as it comes, and closes the response."""
    try:
        with suppress(HTTPError, OSError):
            return response.read(_MAX_ERROR_PAGE, decode_content=True)
    finally:
        response.close()
    return b""


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""


def _said(error: BaseException | None) -> str:
    """Says what happened, without the address that urllib3 repeats in front of the last colon."""
    text = str(error).rpartition(": ")[2]
    return type(error).__name__ if isinstance(error, LocationValueError) or not text else text
