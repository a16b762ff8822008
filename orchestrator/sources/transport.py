"""GET for `web.py`, one connection at a time checked by the guard before it is opened, and redirects step by step.

It must never use a connection that was opened for the operator's own address for one from outside, nor a proxy: nobody
could say where that connects to.
"""

import socket
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urljoin, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ResponseError,
)
from urllib3.util.connection import allowed_gai_family, create_connection

from lookalike.errors import ForbiddenAddressError
from lookalike.guard import Guard, is_public, is_same_place, parse_networks
from lookalike.settings import Settings

_REDIRECTS = 5
# The tries are counted by the caller and not by urllib3, which would repeat within each of them.
_ONCE = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=False)


class Transport:
    """Connections for one source, whose address the operator has `given`: that one is own, all others are from outside.

    A host in a private network speaks for itself: if the given address leads into one, all addresses of the same host
    and port are own. Where that is asked before the given address was requested, as by a source that goes on from a
    position, a connection to it tells.
    """

    def __init__(self, settings: Settings, headers: Mapping[str, str], given: str | None = None) -> None:
        self._connect_timeout = settings.connect_timeout
        guard = Guard(parse_networks(settings.allow_networks))
        timeout = Timeout(connect=settings.connect_timeout, read=settings.fetch_timeout)
        self._given = given
        self._inner: set[tuple[str, int]] = set()
        self._is_tried = given is None
        self._doors = {outside: _Door(guard, outside, self._inner) for outside in (False, True)}
        self._pools = {
            outside: _make_pools(door, dict(headers), timeout) for outside, door in self._doors.items()
        }

    def is_own(self, url: str) -> bool:
        """Whether the address is as good as given by the operator."""
        if self._given is None:
            return False
        if url == self._given:
            return True
        if not is_same_place(self._given, url):
            return False
        self._try_given()
        return self._is_inner(self._given)

    def request(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Opens the address with these headers and follows redirects; the body is not read.

        Raises ForbiddenAddressError, which names the host, and urllib3's HTTPError.
        """
        own = self.is_own(url)
        self._is_tried |= url == self._given
        for _ in range(_REDIRECTS + 1):
            pools = self._pools[not own]
            response = pools.request(
                "GET", url, headers=headers, preload_content=False, redirect=False, retries=_ONCE
            )
            location = response.get_redirect_location()
            if not location:
                return response
            response.close()
            onward = urljoin(url, location)
            own = own and self._is_inner(url) and is_same_place(url, onward)
            url = onward
        raise ResponseError("too many redirects")

    def close(self) -> None:
        """Closes the connections."""
        for pools in self._pools.values():
            pools.clear()

    def _try_given(self) -> None:
        """Connects to the host of the given address, once, unless it was requested."""
        if self._is_tried or self._given is None:
            return
        self._is_tried = True
        host, port = _place(self._given)
        with suppress(HTTPError, ForbiddenAddressError):
            self._doors[False].open(HTTPConnection(host, port, timeout=self._connect_timeout)).close()

    def _is_inner(self, url: str) -> bool:
        return _place(url) in self._inner


class _Door:
    """Opens sockets where the guard does not object, and remembers which hosts turned out to be in private networks."""

    def __init__(self, guard: Guard, outside: bool, inner: set[tuple[str, int]]) -> None:
        self._guard = guard
        self._outside = outside
        self._inner = inner

    def open(self, connection: HTTPConnection) -> socket.socket:
        host = connection.host.strip("[]")
        objections, failure = [], OSError("no address")
        for address in _resolve(connection, host):
            if objection := self._guard.objection(address, outside=self._outside):
                objections.append(objection)
                continue
            try:
                opened = self._connect(connection, address)
            except OSError as error:
                failure = error
                continue
            if not is_public(address):
                self._inner.add((host.lower(), connection.port))
            return opened
        if objections:
            raise ForbiddenAddressError(f"{host} may not be reached: {objections[0]}")
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(connection, f"no connection to {host} in time") from failure
        raise NewConnectionError(connection, f"no connection: {failure}") from failure

    def _connect(self, connection: HTTPConnection, address: str) -> socket.socket:
        return create_connection(
            (address, connection.port),
            connection.timeout,
            source_address=connection.source_address,
            socket_options=connection.socket_options,
        )


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _resolve(connection: HTTPConnection, host: str) -> list[str]:
    """Returns the addresses of a host, as the system knows them now."""
    try:
        found = socket.getaddrinfo(host, connection.port, allowed_gai_family(), socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
        raise NameResolutionError(host, connection, reason) from error
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def _make_pools(door: _Door, headers: dict[str, str], timeout: Timeout) -> PoolManager:
    """Pools of connections that are opened by this door. What urllib3 calls `_new_conn` is where it opens a socket."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return door.open(self)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return door.open(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    pools = PoolManager(headers=headers, timeout=timeout)
    pools.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return pools
