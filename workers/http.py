"""Downloads over HTTP with libcurl: pooled keep-alive connections, and limits on bytes, time and slowness.

It must never follow a redirect to anything but HTTP, skip the check of a certificate, or put a password or a
signed query into an error.
"""

import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pycurl
from botocore.httpsession import get_cert_path

from lookalike import __version__
from lookalike.errors import ImageError
from lookalike.reasons import Reason
from lookalike.settings import Settings
from workers.budget import Reserve

_REDIRECTS = 5
# A transfer below this rate for this long has stalled; it is given up before the whole time limit.
_SLOWEST_BYTES_PER_SECOND = 1024
_SLOW_SECONDS = 20
# A thread talks to few hosts at a time: files, an image service, and where they redirect to.
_IDLE_CONNECTIONS = 4
# Room is reserved in steps, whatever length the server tells: lengths lie, and most images need one step.
_RESERVED_BYTES = 256 * 1024
# All that an address may hold as it is (RFC 3986); "%" among it, since addresses come encoded.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ALLOWED = "%:/?#[]@!$&'()*+,;=-._~"

_REASONS = {
    pycurl.E_OPERATION_TIMEDOUT: Reason.TIMEOUT,
    pycurl.E_PARTIAL_FILE: Reason.INCOMPLETE,
    pycurl.E_TOO_MANY_REDIRECTS: Reason.REJECTED,
    pycurl.E_FILESIZE_EXCEEDED: Reason.TOO_LARGE,
    pycurl.E_WRITE_ERROR: Reason.TOO_LARGE,  # the receiver declines bytes for no other reason
    pycurl.E_URL_MALFORMAT: Reason.BAD_ADDRESS,
}


Answered = Callable[[int, float | None], None]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one file may take: so many bytes, until `deadline` on the clock of time.monotonic.

    `reserve` is told of bytes before they are read, and may block; time spent there counts. `answered` is told of each
    answer: its status, and the seconds after which the host wants to be asked again, where it says so.
    """

    limit: int
    deadline: float
    reserve: Reserve
    answered: Answered


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
    """GET for many threads at once. Handles, with their connections, are reused, the last used first."""

    def __init__(self, settings: Settings) -> None:
        self._connect_timeout = settings.connect_timeout
        self._slow_seconds = max(1, min(_SLOW_SECONDS, int(settings.fetch_timeout / 2)))
        self._certificates = _find_certificates()
        self._idle: list[pycurl.Curl] = []
        self._lock = threading.Lock()
        self._closed = False

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
        Raises ImageError where there is no full answer: UNREACHABLE, TIMEOUT, INCOMPLETE, TOO_LARGE, REJECTED
        (redirects), BAD_ADDRESS.
        """
        address = encode(url)
        curl = self._take()
        lines: list[bytes] | None = [] if keep_headers else None
        try:
            curl.setopt(pycurl.URL, address)
            curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in (headers or {}).items()])
            curl.setopt(pycurl.FOLLOWLOCATION, redirects > 0)
            curl.setopt(pycurl.MAXREDIRS, redirects)
            response = _perform(curl, url, allowance, lines)
        finally:
            self._give_back(curl)
        allowance.answered(response.status, response.retry_after)
        return response

    def close(self) -> None:
        """Closes all connections; those in use when their transfer ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for curl in idle:
            curl.close()

    def _take(self) -> pycurl.Curl:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        curl = pycurl.Curl()
        for option, value in (
            (pycurl.NOSIGNAL, True),  # signals and threads do not go together
            (pycurl.USERAGENT, f"lookalike/{__version__}"),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.PATH_AS_IS, True),
            (pycurl.CONNECTTIMEOUT_MS, max(1, int(self._connect_timeout * 1000))),
            (pycurl.LOW_SPEED_LIMIT, _SLOWEST_BYTES_PER_SECOND),
            (pycurl.LOW_SPEED_TIME, self._slow_seconds),
            (pycurl.TCP_KEEPALIVE, True),
            (pycurl.MAXCONNECTS, _IDLE_CONNECTIONS),
            (pycurl.BUFFERSIZE, 256 * 1024),
            self._certificates,
        ):
            curl.setopt(option, value)
        return curl

    def _give_back(self, curl: pycurl.Curl) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(curl)
                return
        curl.close()


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


def _perform(curl: pycurl.Curl, url: str, allowance: Allowance, lines: list[bytes] | None) -> Response:
    seconds = allowance.deadline - time.monotonic()
    if seconds <= 0:
        raise ImageError(Reason.TIMEOUT, describe(url))
    chunks, receive = _receiver(allowance)
    curl.setopt(pycurl.TIMEOUT_MS, max(1, int(seconds * 1000)))
    curl.setopt(pycurl.MAXFILESIZE_LARGE, allowance.limit)  # refuses by Content-Length, before the first byte
    curl.setopt(pycurl.WRITEFUNCTION, receive)
    if lines is None:
        curl.unsetopt(pycurl.HEADERFUNCTION)
    else:
        curl.setopt(pycurl.HEADERFUNCTION, lines.append)
    failure = None
    try:
        curl.perform()
    except pycurl.error as error:
        failure = error
    body = b"".join(chunks)
    chunks.clear()  # the handle keeps its receiver, and so the list, until its next use
    status = curl.getinfo(pycurl.RESPONSE_CODE)
    # An error page that breaks off, or is too long, is still the answer that the status gives.
    if failure is not None and status < 400:
        raise _explain(failure, status, url)
    return Response(status, body, lines or [], curl.getinfo(pycurl.RETRY_AFTER) or None)


def _receiver(allowance: Allowance) -> tuple[list[bytes], Callable[[bytes], int | None]]:
    """Returns a list and the function that fills it, which declines what goes beyond the allowed bytes."""
    chunks: list[bytes] = []
    received = reserved = 0

    def receive(chunk: bytes) -> int | None:
        nonlocal received, reserved
        received += len(chunk)
        if received > allowance.limit:
            return 0  # not the length of the chunk: libcurl breaks off
        if received > reserved:
            step = max(_RESERVED_BYTES, received - reserved)
            allowance.reserve(step)
            reserved += step
        chunks.append(chunk)
        return None

    return chunks, receive


def _explain(error: pycurl.error, status: int, url: str) -> ImageError:
    code, words = error.args
    if 300 <= status < 400 and code in (pycurl.E_UNSUPPORTED_PROTOCOL, pycurl.E_URL_MALFORMAT):
        return ImageError(Reason.REJECTED, f"a redirect that may not be followed, from {describe(url)}")
    return ImageError(_REASONS.get(code, Reason.UNREACHABLE), f"{words or 'no answer'}: {describe(url)}")


def _find_certificates() -> tuple[int, str]:
    """Returns libcurl's option for trusted certificates: those of this machine, else those that come with
    botocore.

    What is compiled into a libcurl from a wheel is where some other system keeps them.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile and Path(paths.cafile).is_file():
        return pycurl.CAINFO, paths.cafile
    if paths.capath and any(Path(paths.capath).iterdir()):
        return pycurl.CAPATH, paths.capath
    return pycurl.CAINFO, str(get_cert_path(True))
