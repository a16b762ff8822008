"""Which addresses may be connected to: outsiders' only in public networks, nobody's at the metadata services."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from lookalike.guard import Guard, is_public, is_same_place, parse_networks
from lookalike.settings import Settings

PUBLIC = [
    "93.184.215.14",
    "8.8.8.8",
    "172.32.0.1",
    "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
    "64:ff9b::808:808",
]
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "127.0.0.1",
    "127.255.0.9",
    "100.64.0.1",
    "::1",
    "fd12::1",
]
SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "fec0::1",
    "4000::1",
    "64:ff9b:1::a00:1",
]
SECRET = [
    "169.254.169.254",
    "169.254.1.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]
WRAPPED = [
    "::ffff:10.1.2.3",
    "::ffff:7f00:1",
    "::10.1.2.3",
    "::ffff:0:127.0.0.1",
    "64:ff9b::10.1.2.3",
    "2002:0a01:0203::1",
    "2001:0:0a01:0203::f5ff:fffe",
    "2001:0:808:808::f5ff:fffe",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address: str) -> None:
    """Nobody needs a permission for the public internet."""
    assert Guard().objection(address, outside=True) is None


@pytest.mark.parametrize("address", PRIVATE + SPECIAL + SECRET + WRAPPED)
def test_outsiders_may_not_reach_anything_else(address: str) -> None:
    """Private, loopback, link-local, metadata and reserved addresses are closed, in whatever form of IPv6 they come."""
    assert Guard().objection(address, outside=True)
    assert not is_public(address)


@pytest.mark.parametrize("address", PRIVATE + WRAPPED)
def test_the_operator_may_reach_his_own_networks(address: str) -> None:
    """An address that the operator gave may be private."""
    assert Guard().objection(address, outside=False) is None


@pytest.mark.parametrize("address", SECRET)
@pytest.mark.parametrize("networks", ["", "private", "0.0.0.0/0,::/0", "fd00::/8"])
def test_metadata_services_are_closed_to_all(address: str, networks: str) -> None:
    """No name that the operator gave, and no large network that he allowed, leads to the passwords of a cloud."""
    guard = Guard(parse_networks(networks))
    assert guard.objection(address, outside=False)
    assert guard.objection(address, outside=True)


def test_what_is_allowed_by_name_may_be_reached() -> None:
    """The setting allows networks to outsiders, `private` all of them; a metadata service only as itself."""
    some = Guard(parse_networks("10.1.0.0/16, fd12::/16"))
    assert [some.objection(each, outside=True) is None for each in ("10.1.2.3", "fd12::1", "::ffff:10.1.2.3")] == [
        True, True, True,
    ]  # fmt: skip
    assert some.objection("10.2.2.3", outside=True)
    everything = Guard(parse_networks("private"))
    assert all(everything.objection(each, outside=True) is None for each in PRIVATE)
    assert everything.objection("0.0.0.0", outside=True)
    wire = Guard(parse_networks("169.254.0.0/16"))
    assert wire.objection("169.254.7.7", outside=True) is None
    assert wire.objection("169.254.169.254", outside=True)
    assert Guard(parse_networks("169.254.169.254")).objection("169.254.169.254", outside=True) is None


@pytest.mark.parametrize("text", ["10.1.2.3/8", "example.org", "10.0.0.0/33", "private;10.0.0.0/8"])
def test_a_setting_that_is_no_network_is_refused(text: str) -> None:
    """The message says what to write, when the settings are read."""
    with pytest.raises(ValidationError, match="write networks as in"):
        Settings(_env_file=None, allow_networks=text)


@given(st.ip_addresses(v=4))
@example(IPv4Address("169.254.169.254"))
def test_ipv6_gives_no_way_round(inner: IPv4Address) -> None:
    """What is closed to outsiders as IPv4 is closed in each form of IPv6 that leads to it; what is open is open."""
    number = int(inner)
    forms = [
        IPv6Address(int(ip_network("::ffff:0:0/96").network_address) | number),
        IPv6Address(int(ip_network("64:ff9b::/96").network_address) | number),
        IPv6Address(0x2002 << 112 | number << 80 | 1),
    ]
    closed = Guard().objection(str(inner), outside=True) is not None
    assert [Guard().objection(str(form), outside=True) is not None for form in forms] == [closed] * 3


@given(st.text(max_size=40))
@example("127.1")
@example("2130706433")
@example("0x7f.1")
@example("127.0.0.1\0")
def test_what_is_no_address_is_not_reached(text: str) -> None:
    """The guard never raises; short, octal or hexadecimal forms, which only a resolver may read, are no addresses."""
    said = Guard().objection(text, outside=True)
    try:
        IPv4Address(text)
    except ValueError:
        assert said is not None or ":" in text


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("http://h/a", "http://h/b", True),
        ("http://h/a", "http://H:80/b", True),
        ("http://h:8000/a", "http://h:8001/a", False),
        ("http://h/a", "https://h/a", True),
        ("http://h:8000/a", "https://h/a", True),
        ("https://h/a", "http://h/a", False),
        ("http://h/a", "http://g/a", False),
        ("http://h/a", "http://user@h/a", True),
        ("http://h/a", "http://h@g/a", False),
        ("http://h/a", "http://h:x/a", False),
        ("/a", "/b", False),
    ],
)
def test_same_place(first: str, second: str, same: bool) -> None:
    """The same host and port, or the step from http to https on the same host."""
    assert is_same_place(first, second) is same
