"""How much one address may ask for, and whose word on addresses counts.

Plain ASGI: every request passes here. Counts are of this process: several processes allow several times as much.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from explorer.prefix import below
from explorer.problems import TooManyRequestsError, answer, describe
from lookalike.guard import Network

# Addresses whose last requests are remembered: some 10 MB.
REMEMBERED = 50_000
# What no limit holds for: supervisors ask often, files are cheap, and a wall is of many thumbnails.
FREE = ("/healthz", "/readyz", "/static/", "/thumbnails/")


class Proxies:
    """Takes the client's address and scheme from proxies that are believed, and from nobody else.

    What believed proxies have said is taken out: what is left of it are words of strangers.
    """

    def __init__(self, app: ASGIApp, believed: Sequence[Network]) -> None:
        self._app = app
        self._believed = believed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client") and self._believes(scope["client"][0]):
            said = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
            hops = [_without_port(hop.strip()) for hop in ",".join(said).split(",") if hop.strip()]
            strangers = [hop for hop in reversed(hops) if not self._believes(hop)]
            if hops:
                scope["client"] = (strangers[0] if strangers else hops[0], 0)
            for name, value in scope["headers"]:
                if name == b"x-forwarded-proto" and value in (b"http", b"https"):
                    scope["scheme"] = value.decode()
        await self._app(scope, receive, send)

    def _believes(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._believed)


def _without_port(hop: str) -> str:
    """The address of a hop. Some proxies add the port, which is another with each connection of one client."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


class RateLimit:
    """A bucket of `burst` requests for each address, which fills by `rate` a second (token bucket)."""

    def __init__(self, app: ASGIApp, rate: float, burst: int) -> None:
        self._app = app
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._rate and not below(scope).startswith(FREE):
            wait = self._take(client_of(scope))
            if wait > 0:
                request = Request(scope)
                headers = {"Retry-After": str(int(wait) + 1)}
                await answer(request, describe(TooManyRequestsError()), headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _take(self, client: str) -> float:
        """Takes a request out of a bucket. Returns the seconds until there is one; 0: there was."""
        now = time.monotonic()
        left, since = self._buckets.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        self._buckets[client] = (left - allowed, now)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate


def client_of(scope: Scope) -> str:
    """Whose request it is, for everything that is limited for each client."""
    return _network_of(scope["client"][0] if scope.get("client") else "")


def _network_of(host: str) -> str:
    """What counts as one address: of IPv6 the 64 bits that one customer has all of."""
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        # As a socket for both calls it: below one /64 lies all of IPv4.
        return str(address.ipv4_mapped)
    return str(ip_network(f"{address}/64", strict=False))
