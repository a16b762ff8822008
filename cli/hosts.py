"""How people see hosts that want to be spared: a table in `lookalike status`, a sentence beside the bar of `run`."""

from collections.abc import Sequence
from datetime import UTC, datetime

import redis

from cli import output
from lookalike.hosts import HostState, list_hosts


def find_hosts(broker_url: str) -> list[HostState]:
    """The hosts that are paused, slowed or being asked; none where the broker is away: the rest is shown without."""
    try:
        return list_hosts(broker_url)
    except (redis.RedisError, ValueError):  # ValueError: a form of its address that only kombu knows
        return []


def print_hosts(hosts: Sequence[HostState]) -> None:
    """Shows them as a table."""
    output.print_table(
        "",
        ("host", "state", "why", "since", "", "requests/s at most", "images being fetched"),
        [
            [host.host, host.state, host.why, _time(host.since), _until(host), host.rate, host.under_way]
            for host in hosts
        ],
    )


def describe_pauses(hosts: Sequence[HostState]) -> str:
    """What there is to wait for, as a few words; empty if no host is paused."""
    paused = [host for host in hosts if host.state == "paused"]
    if not paused:
        return ""
    first = min(paused, key=lambda host: host.until or datetime.now(UTC))
    others = f" and {len(paused) - 1} more" if len(paused) > 1 else ""
    return f"waits for {first.host}{others}, {_until(first)} (it {first.why})"


def _until(host: HostState) -> str:
    if host.state != "paused":
        return ""
    is_over = host.until is None or host.until <= datetime.now(UTC)
    return "about to be tried" if is_over else f"until {_time(host.until)}"


def _time(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone():%H:%M:%S}"
