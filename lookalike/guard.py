"""Says which addresses of the network may be connected to, and on whose word.

An address is the operator's *own* when they gave it on the command line, in a setting, or in a table or folder of this
machine. Every other one comes from *outside*: from a document on the web, an event, a search by URL.

It is pure. Whoever opens a connection asks with the address that it really goes to, never with a name, which may lead
elsewhere a moment later.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

PRIVATE = "private"
"""Stands for all networks of organisations and of this machine, in the setting."""


def _networks(words: str) -> tuple[Network, ...]:
    return tuple(ip_network(word) for word in words.split())


_PRIVATE = _networks("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 ::1 fc00::/7")
# Neighbours on the wire, and what clouds answer their machines with: passwords among it. No archive lies there, so they
# are closed to the operator's own addresses as well, whose names an outsider may control.
_SECRET = _networks(
    "169.254.0.0/16 fe80::/10 169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 168.63.129.16"
    " 192.0.0.192 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe"
)
# Neither public nor anybody's: this host, protocol assignments, documentation, benchmarks, relays, multicast, the rest.
_SPECIAL = _networks(
    "0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4"
    " 240.0.0.0/4 2001::/23 2001:db8::/32 3fff::/20"
)
_UNICAST = ip_network("2000::/3")  # all of IPv6 that is public so far
# IPv6 addresses that stand for an address of IPv4, in their last 32 bits: mapped, translated, compatible, NAT64.
_EMBEDDING = _networks("::ffff:0:0/96 ::ffff:0:0:0/96 ::/96 64:ff9b::/96")


def parse_networks(text: str | None) -> tuple[Network, ...]:
    """Reads `10.1.0.0/16,fd00::/8`, or `private` for all. Raises ValueError that says what to write."""
    networks: list[Network] = []
    for word in filter(None, (each.strip() for each in (text or "").split(","))):
        try:
            networks += _PRIVATE if word == PRIVATE else [ip_network(word)]
        except ValueError as error:
            raise ValueError(f"{error}: write networks as in 10.1.0.0/16,fd00::/8, or private") from None
    return tuple(networks)


@dataclass(frozen=True, slots=True)
class Guard:
    """`allowed` are networks that addresses from outside may lead to, beside the public ones."""

    allowed: Sequence[Network] = ()

    def objection(self, address: str, *, outside: bool) -> str | None:
        """Why a connection to this IP address may not be opened, as a sentence for people. None: it may."""
        try:
            parts = list(_unwrap(ip_address(address.partition("%")[0])))
        except ValueError:
            return f"{address[:100]!r} is no address"
        for part in parts:
            secret = [network for network in _SECRET if part in network]
            if any(not self._allows(part, network) for network in secret):
                return f"{address} is link-local or a cloud's own"
            if outside and not (secret or is_public(str(part)) or self._allows(part)):
                return f"{address} is not a public address; LOOKALIKE_ALLOW_NETWORKS can allow its network"
        return None

    def _allows(self, address: Address, within: Network | None = None) -> bool:
        """Whether a network of the operator's has the address; `within`: one that says it in so many words."""
        return any(
            address in network
            and (
                within is None
                or (network.prefixlen >= within.prefixlen and network.version == within.version)
            )
            for network in self.allowed
        )


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, whatever IPv6 wraps it in."""
    return all(
        not any(part in network for network in (*_PRIVATE, *_SECRET, *_SPECIAL))
        and (part.version == 4 or part in _UNICAST)
        for part in _unwrap(ip_address(address.partition("%")[0]))
    )


def is_same_place(first: str, second: str) -> bool:
    """Whether two http(s) addresses have the same host and port, or the second is the first one's over TLS."""
    try:
        one, other = urlsplit(first), urlsplit(second)
        if not one.hostname or one.hostname != other.hostname:
            return False
        upgraded = one.scheme == "http" and other.scheme == "https" and other.port in (None, 443)
        return upgraded or _port(one.scheme, one.port) == _port(other.scheme, other.port)
    except ValueError:
        return False


def _port(scheme: str, port: int | None) -> int | None:
    return port or {"http": 80, "https": 443}.get(scheme)


def _unwrap(address: Address) -> Iterator[Address]:
    """Yields the address, or all those that it stands for: packets to it may arrive at any of them."""
    if isinstance(address, IPv4Address) or int(address) <= 1:  # :: and ::1 are themselves
        yield address
        return
    inner: list[Address] = []
    if any(address in network for network in _EMBEDDING):
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    inner += [address.sixtofour] if address.sixtofour else []
    inner += list(address.teredo or ())
    yield from inner or [address]
