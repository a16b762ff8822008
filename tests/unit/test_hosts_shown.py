"""How `status` and `run` speak of hosts."""

from datetime import UTC, datetime, timedelta

import pytest

from cli.hosts import describe_pauses, find_hosts, print_hosts
from lookalike.hosts import HostState
from tests.servers import free_port

NOW = datetime.now(UTC)  # of the import: slow tests may come before these


def paused(host: str, seconds: float) -> HostState:
    return HostState(host, "paused", NOW, NOW + timedelta(seconds=seconds), "answered 429", 2.0, 0)


SLOWED = HostState("slow.example.org", "slowed", NOW, None, "answered 503", 4.5, 3)


def test_a_run_says_what_it_waits_for() -> None:
    """The host whose pause ends first, and how many others there are; nothing where none is paused."""
    assert describe_pauses([SLOWED]) == ""
    until = f"{(NOW + timedelta(seconds=6000)).astimezone():%H:%M:%S}"
    assert describe_pauses([paused("b", 9000), paused("a", 6000), SLOWED]) == (
        f"waits for a and 1 more, until {until} (it answered 429)"
    )
    assert "about to be tried" in describe_pauses([paused("a", -5)])


def test_a_table_shows_what_hosts_are_spared(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with why, since and until when, how fast it may be asked, and what is under way."""
    print_hosts([paused("a", 6000), SLOWED])
    shown = capsys.readouterr().out
    for word in ("paused", "answered 429", "until", "slow.example.org", "4.500", "3"):
        assert word in shown


def test_a_broker_that_is_away_shows_no_hosts() -> None:
    """`status` is about the ledger; it does not fail for this."""
    assert find_hosts(f"redis://127.0.0.1:{free_port()}/0") == []
    assert find_hosts("sentinel://127.0.0.1:1") == []
