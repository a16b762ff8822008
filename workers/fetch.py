"""Fetches the bytes of images from files, HTTP, S3 and IIIF image services.

Every failure is an ImageError with its reason. It must never block on a device, or read more than the size
limit.
"""

import errno
import hashlib
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lookalike.errors import ImageError
from lookalike.hosts import host_of
from lookalike.images import Protocol
from lookalike.reasons import Reason
from lookalike.settings import Settings
from workers.budget import Reserve
from workers.gate import Host
from workers.http import Allowance, Answered, HttpClient, describe, require
from workers.iiif import choose_sizes, read_service
from workers.s3 import S3Reader

_LARGEST_INFO = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of an image file and their SHA-256 (32 bytes)."""

    data: bytes
    checksum: bytes


def _reserve_nothing(_: int) -> None:
    """For callers that fetch one image at a time."""


def _tell_nobody(_: int, __: float | None) -> None:
    """For callers that fetch so few images that no host minds."""


class Fetcher:
    """Fetches for many threads of one process at once. Connections are kept and reused until `close`."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_bytes
        self._seconds = settings.fetch_timeout
        self._http = HttpClient(settings)
        self._s3 = S3Reader(self._http)

    def host(self, url: str) -> Host:
        """Where an image is fetched from. Requests that a redirect leads elsewhere count for the first host."""
        if url[:5].lower() == "s3://":
            return Host(host_of(self._s3.locate(url)), limited=False)
        name = host_of(url)
        return Host(name, limited=bool(name))

    def fetch(
        self,
        url: str,
        protocol: Protocol,
        shorter_side: int,
        reserve: Reserve = _reserve_nothing,
        answered: Answered = _tell_nobody,
        *,
        outside: bool = False,
    ) -> Fetched:
        """Fetches one image.

        With protocol "file", `url` is a `file://`, `http(s)://` or `s3://bucket/key` address, or an absolute
        path. With "iiif", it is the base of an image service, which is asked for the smallest picture whose
        shorter side has at least `shorter_side` pixels, if the original has so many. `reserve` is called with numbers
        of bytes before they are read, and may block until there is room for them; `answered` with each answer of the
        host: its status, and the seconds after which it wants to be asked again. An address that is not the operator's
        own comes from `outside`: it may name no file, and leads only where the guard allows.

        Raises ImageError with one of the reasons of fetching; THROTTLED carries the seconds the host asked to
        wait.
        """
        allowance = Allowance(self._limit, time.monotonic() + self._seconds, reserve, answered, outside)
        if outside and url.partition("://")[0].lower() not in ("http", "https", "s3"):
            raise ImageError(Reason.FORBIDDEN_ADDRESS, "an address from outside names a file of this machine")
        if protocol == "iiif":
            data = self._fetch_iiif(url, shorter_side, allowance)
        else:
            data = self._fetch_file(url, allowance)
        return Fetched(data, hashlib.sha256(data).digest())

    def close(self) -> None:
        """Closes all connections."""
        self._http.close()

    def _fetch_file(self, url: str, allowance: Allowance) -> bytes:
        scheme = url.partition("://")[0].lower()
        if url.startswith("/"):
            return _read_file(url, allowance)
        if scheme == "file":
            return _read_file(_path(url), allowance)
        if scheme in ("http", "https"):
            return require(self._http.get(url, allowance), url)
        if scheme == "s3":
            return self._s3.read(url, allowance)
        raise ImageError(Reason.BAD_ADDRESS, "neither file://, http(s)://, s3:// nor an absolute path")

    def _fetch_iiif(self, url: str, shorter_side: int, allowance: Allowance) -> bytes:
        """Reads info.json, then asks for the picture; one time limit for both.

        The base is used as it was announced: the `id` that a service behind a proxy gives itself is often
        wrong.
        """
        base = url.removesuffix("/info.json").removesuffix("/")
        address = base + "/info.json"
        try:
            info = require(self._http.get(address, replace(allowance, limit=_LARGEST_INFO)), address)
        except ImageError as error:
            if error.reason is Reason.TOO_LARGE:
                raise ImageError(Reason.UNREADABLE_SERVICE, error.detail) from None
            raise
        *tries, last = choose_sizes(read_service(info), shorter_side)
        for end in tries:
            response = self._http.get(base + end, allowance)
            if response.status not in (400, 404, 501):
                return require(response, base + end)
        return require(self._http.get(base + last, allowance), base + last)


def _path(url: str) -> str:
    """Returns the path of a file:// address (RFC 8089). Raises ImageError(BAD_ADDRESS)."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.netloc.lower() in ("", "localhost") and parts.path.startswith("/"):
            # A "?" or "#" in a name should come encoded, but often does not, and means nothing else here.
            return unquote(url[url.index(parts.path, len("file://")) :])
    raise ImageError(Reason.BAD_ADDRESS, f"{describe(url)} is no absolute file:// address")


def _read_file(path: str, allowance: Allowance) -> bytes:
    """Reads a regular file within its allowance. Raises ImageError."""
    try:
        return _read_regular(path, allowance)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(Reason.NOT_FOUND, path) from None
    except PermissionError:
        raise ImageError(Reason.FORBIDDEN, path) from None
    except TimeoutError as error:
        raise ImageError(Reason.TIMEOUT, f"{error.strerror}: {path}") from None
    except ValueError:  # a zero byte
        raise ImageError(Reason.BAD_ADDRESS, repr(path)) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise ImageError(Reason.BAD_ADDRESS, f"{error.strerror}: {path[:500]}") from None
        # Network file systems fail as networks do.
        raise ImageError(Reason.UNREACHABLE, f"{error.strerror}: {path}") from None


def _read_regular(path: str, allowance: Allowance) -> bytes:
    if not stat.S_ISREG(Path(path).stat().st_mode):  # before opening: a FIFO blocks, a tape rewinds
        raise ImageError(Reason.BAD_ADDRESS, f"not a regular file: {path}")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(Reason.BAD_ADDRESS, f"not a regular file: {path}")
        if status.st_size > allowance.limit:
            raise ImageError(Reason.TOO_LARGE, f"{status.st_size} bytes: {path}")
        allowance.reserve(status.st_size)
        data = file.read(status.st_size) if status.st_size else b""
    if len(data) < status.st_size:
        raise ImageError(Reason.INCOMPLETE, f"{len(data)} of {status.st_size} bytes: {path}")
    return data
