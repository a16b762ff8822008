"""Downloads over HTTP with libcurl: pooled keep-alive connections, and limits on bytes, time and slowness.

It must never connect where the guard objects, follow a redirect to anything but HTTP, skip the check of a certificate,
or put a password or a signed query into an error.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import pycurl

from lookalike.errors import ImageError
from lookalike.guard import is_same_place
from lookalike.reasons import Reason
from lookalike.settings import Settings
from workers.budget import Reserve
from workers.connections import Handle, Handles

_REDIRECTS = 5
# A transfer below this rate for this long has stalled; it is given up before the whole time limit.
_SLOWEST_BYTES_PER_SECOND = 1024
_SLOW_SECONDS = 20.0
# Room is reserved in steps, whatever length the server tells: lengths lie, and most images need one step.
_RESERVED_BYTES = 256 * 1024
# All that an address may hold as it is (RFC 3986); "%" among it, since addresses come encoded.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ALLOWED = "%:/?#[]@!$&'()*+,;=-._~"

_REASONS = {
    pycurl.E_OPERATION_TIMEDOUT: Reason.TIMEOUT,
    pycurl.E_ABORTED_BY_CALLBACK: Reason.TIMEOUT,  # libcurl is told to break off for no other reason
    pycurl.E_PARTIAL_FILE: Reason.INCOMPLETE,
    pycurl.E_FILESIZE_EXCEEDED: Reason.TOO_LARGE,
    pycurl.E_WRITE_ERROR: Reason.TOO_LARGE,  # the receiver declines bytes for no other reason
    pycurl.E_URL_MALFORMAT: Reason.BAD_ADDRESS,
}


Answered = Callable[[int, float | None], None]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one file may take: so many bytes, until `deadline` on the clock of time.monotonic.

    `reserve` is told of bytes before they are read, and may block; time spent there does not count. `answered` is told
    of each answer: its status, and the seconds after which the host wants to be asked again, where it says so.
    `outside`: the address is not the operator's own.
    """

    limit: int
    deadline: float
    reserve: Reserve
    answered: Answered
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of any status. `retry_after` is in seconds, `headers` are the raw lines of all answers, if wanted."""

    status: int
    body: bytes
    headers: list[bytes]
    retry_after: float | None

    def header(self, name: str) -> str | None:
        """Returns the last value of a header."""
        wanted = name.lower().encode() + b":"
        values = [line for line in self.headers if line[: len(wanted)].lower() == wanted]
        return values[-1][len(wanted) :].strip().decode("latin-1") if values else None


class HttpClient:
    """GET for many threads at once."""

    def __init__(self, settings: Settings) -> None:
        self._handles = Handles(settings)
        self._slow_seconds = max(1.0, min(_SLOW_SECONDS, settings.fetch_timeout / 2))

    def get(
        self,
        url: str,
        allowance: Allowance,
        headers: Mapping[str, str] | None = None,
        redirects: int = _REDIRECTS,
        keep_headers: bool = False,
    ) -> Response:
        """Fetches `url`, as given but for characters that no address may hold, which are percent-encoded.

        Returns answers of any status; see `require`. Their headers are kept only on demand: each is a call from C.
        `headers` are sent to the first host alone. Where a redirect leads is somebody else's word, and so from outside,
        unless a host in a private network redirects to itself.

        Raises ImageError where there is no full answer: UNREACHABLE, TIMEOUT, INCOMPLETE, TOO_LARGE, REJECTED
        (redirects), BAD_ADDRESS, FORBIDDEN_ADDRESS.
        """
        step, outside, address = url, allowance.outside, encode(url)
        for _ in range(redirects + 1):
            with self._handles.take(outside) as handle:
                handle.curl.setopt(pycurl.URL, address)
                lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
                handle.curl.setopt(pycurl.HTTPHEADER, lines)
                response = _perform(handle, step, allowance, [] if keep_headers else None, self._slow_seconds)
                onward: str | None = handle.curl.getinfo(pycurl.REDIRECT_URL)
                is_inside = bool(onward) and not outside and handle.has_inner_peer()
            if not onward or not redirects:
                allowance.answered(response.status, response.retry_after)
                return response
            outside = not (is_inside and is_same_place(step, onward))
            address, step, headers = _follow(step, onward), onward, None
        raise ImageError(Reason.REJECTED, f"more than {redirects} redirects: {describe(url)}")

    def close(self) -> None:
        """Closes all connections; those in use when their transfer ends."""
        self._handles.close()


def require(response: Response, url: str) -> bytes:
    """Returns the body of a successful answer. Raises ImageError with the reason for any other status."""
    status = response.status
    if 200 <= status < 300:
        return response.body
    detail = f"{status} from {describe(url)}"
    if status in (429, 503):
        raise ImageError(Reason.THROTTLED, detail, response.retry_after)
    if status >= 500:
        raise ImageError(Reason.SERVER_ERROR, detail, response.retry_after)
    if status in (404, 410):
        raise ImageError(Reason.NOT_FOUND, detail)
    if status in (401, 403, 407):
        raise ImageError(Reason.FORBIDDEN, detail)
    raise ImageError(Reason.REJECTED, detail)


def describe(url: str) -> str:
    """Returns an address without what may be secret: user, password, query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:500]


def encode(url: str) -> str:
    """Returns an http(s) address in ASCII, nothing encoded twice. Raises ImageError(BAD_ADDRESS)."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not _CONTROL.search(url)
        if not parts.netloc.isascii():
            user, at, host = parts.netloc.rpartition("@")
            url = url.replace(parts.netloc, user + at + host.encode("idna").decode(), 1)
        address = quote(url, safe=_ALLOWED)
    except ValueError:  # UnicodeError is one
        usable, address = False, ""
    if not usable:
        raise ImageError(Reason.BAD_ADDRESS, describe(url))
    return address


def _follow(url: str, onward: str) -> str:
    """Returns where a redirect leads, encoded. Raises ImageError(REJECTED) for what is no http(s) address."""
    try:
        return encode(onward)
    except ImageError:
        detail = f"a redirect that may not be followed, from {describe(url)}"
        raise ImageError(Reason.REJECTED, detail) from None


def _perform(
    handle: Handle, url: str, allowance: Allowance, lines: list[bytes] | None, slow_seconds: float
) -> Response:
    curl = handle.curl
    if allowance.deadline <= time.monotonic():
        raise ImageError(Reason.TIMEOUT, describe(url))
    download = _Download(allowance, slow_seconds)
    curl.setopt(pycurl.XFERINFOFUNCTION, download.is_late)
    curl.setopt(pycurl.MAXFILESIZE_LARGE, allowance.limit)  # refuses by Content-Length, before the first byte
    curl.setopt(pycurl.WRITEFUNCTION, download.receive)
    if lines is None:
        curl.unsetopt(pycurl.HEADERFUNCTION)
    else:
        curl.setopt(pycurl.HEADERFUNCTION, lines.append)
    failure = None
    try:
        curl.perform()
    except pycurl.error as error:
        failure = error
    body = b"".join(download.chunks)
    download.chunks.clear()  # the handle keeps the download, and so the list, until its next use
    status = curl.getinfo(pycurl.RESPONSE_CODE)
    # An error page that breaks off, or is too long, is still the answer that the status gives.
    if failure is not None and status < 400:
        raise _explain(failure, handle.objection, url)
    return Response(status, body, lines or [], curl.getinfo(pycurl.RETRY_AFTER) or None)


class _Download:
    """Takes in a body within its allowance. Time in which it waits for room is no fault of the host's."""

    def __init__(self, allowance: Allowance, slow_seconds: float) -> None:
        self.chunks: list[bytes] = []
        self._allowance = allowance
        self._slow_seconds = slow_seconds
        self._received = self._reserved = 0
        self._waited = 0.0
        # When, and with how many bytes, the host was last seen to be quick enough.
        self._seen = time.monotonic(), 0

    def receive(self, chunk: bytes) -> int | None:
        """Keeps a part; declines what goes beyond the allowed bytes."""
        self._received += len(chunk)
        if self._received > self._allowance.limit:
            return 0  # not the length of the chunk: libcurl breaks off
        if self._received > self._reserved:
            step = max(_RESERVED_BYTES, self._received - self._reserved)
            began = time.monotonic()
            self._allowance.reserve(step)
            self._waited += time.monotonic() - began
            self._reserved += step
        self.chunks.append(chunk)
        return None

    def is_late(self, *_: int) -> bool:
        """Whether to break off: the time is over, or hardly anything comes."""
        now = time.monotonic() - self._waited
        since, bytes_then = self._seen
        if now - since >= self._slow_seconds:
            if self._received - bytes_then < self._slow_seconds * _SLOWEST_BYTES_PER_SECOND:
                return True
            self._seen = now, self._received
        return now > self._allowance.deadline


def _explain(error: pycurl.error, objection: str | None, url: str) -> ImageError:
    code, words = error.args
    if code == pycurl.E_ABORTED_BY_CALLBACK:
        words = "too slow, or not in full within the time limit"
    if objection is not None and code == pycurl.E_COULDNT_CONNECT:
        return ImageError(Reason.FORBIDDEN_ADDRESS, f"{describe(url)}: {objection}")
    return ImageError(_REASONS.get(code, Reason.UNREACHABLE), f"{words or 'no answer'}: {describe(url)}")
