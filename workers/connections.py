"""The connections of the HTTP client. Each is opened only where the guard does not object, to the address that it has.

It must never use a connection that was opened for the operator's own address for one from outside.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pycurl
from botocore.httpsession import get_cert_path

from lookalike import __version__
from lookalike.guard import Guard, is_public, parse_networks
from lookalike.settings import Settings

# A thread talks to few hosts at a time: files, an image service, and where they redirect to.
_IDLE_CONNECTIONS = 4


class Handle:
    """One handle of libcurl, with its connections, for own addresses or for those from outside."""

    def __init__(self, guard: Guard, outside: bool, options: list[tuple[int, Any]]) -> None:
        self.objection: str | None = None
        """Why a connection of the last transfer was not opened, if one was not."""
        self.outside = outside
        self._guard = guard
        self.curl = pycurl.Curl()
        for option, value in options:
            self.curl.setopt(option, value)
        # libcurl asks with the address that it is about to connect to, after names, redirects and octal notations.
        self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open)
        if outside:
            # Nobody could say where a proxy connects to.
            self.curl.setopt(pycurl.PROXY, "")

    def has_inner_peer(self) -> bool:
        """Whether the last answer came from a private network, as far as can be seen from here."""
        if self.curl.getinfo(pycurl.USED_PROXY):
            return False
        peer = self.curl.getinfo(pycurl.PRIMARY_IP)
        return bool(peer) and not is_public(peer)

    def _open(self, _: int, address: Any) -> socket.socket | int:
        family, kind, protocol, place = address
        objection = (
            self._guard.objection(place[0], outside=self.outside)
            if family in (socket.AF_INET, socket.AF_INET6)
            else "neither IPv4 nor IPv6"
        )
        if objection is not None:
            self.objection = objection
            bad: int = pycurl.SOCKET_BAD
            return bad
        return socket.socket(family, kind, protocol)


class Handles:
    """Handles for many threads at once, reused, the last used first."""

    def __init__(self, settings: Settings) -> None:
        self._guard = Guard(parse_networks(settings.allow_networks))
        self._options: list[tuple[int, Any]] = [
            (pycurl.NOSIGNAL, True),  # signals and threads do not go together
            (pycurl.USERAGENT, f"lookalike/{__version__}"),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.FOLLOWLOCATION, False),  # the client does it, and judges each step
            (pycurl.PATH_AS_IS, True),
            (pycurl.CONNECTTIMEOUT_MS, max(1, int(settings.connect_timeout * 1000))),
            (pycurl.NOPROGRESS, False),  # so that it asks many times a second whether to go on
            (pycurl.TCP_KEEPALIVE, True),
            (pycurl.MAXCONNECTS, _IDLE_CONNECTIONS),
            (pycurl.BUFFERSIZE, 256 * 1024),
            _find_certificates(),
        ]
        self._idle: dict[bool, list[Handle]] = {False: [], True: []}
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def take(self, outside: bool) -> Iterator[Handle]:
        """Lends a handle for the time of the block."""
        with self._lock:
            idle = self._idle[outside]
            handle = idle.pop() if idle else None
        handle = handle or Handle(self._guard, outside, self._options)
        handle.objection = None
        try:
            yield handle
        finally:
            self._give_back(handle)

    def close(self) -> None:
        """Closes all connections; those in use when their transfer ends."""
        with self._lock:
            self._closed = True
            idle = [handle for handles in self._idle.values() for handle in handles]
            self._idle = {False: [], True: []}
        for handle in idle:
            handle.curl.close()

    def _give_back(self, handle: Handle) -> None:
        with self._lock:
            if not self._closed:
                self._idle[handle.outside].append(handle)
                return
        handle.curl.close()


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
