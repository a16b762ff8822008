"""Limits and pauses of hosts for a worker that cannot reach Valkey: its own part of them, as well as it can be known.

The same steps as lookalike.hosts.SharedHosts, without what workers would have to tell each other: a paused host is not
slowed afterwards.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.hosts import Demand, Grant, Trouble
from lookalike.settings import HostLimit

_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_ASKED = 5.0, 300.0, 3600.0
# Images of a host without a limit of its rate come back at so many a second.
_PACE = 10.0


@dataclass(slots=True)
class _Host:
    """Times are of time.monotonic; `busy_until` is when the host will have been asked no more than its rate allows."""

    workers: int = 1
    busy_until: float = 0.0
    until: float = 0.0
    paused_at: float = 0.0
    pause: float = 0.0
    why: str = ""
    horizon: float = 0.0


class Alone:
    """What a worker may ask of each host while it is alone. For one thread at a time."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def learn(self, host: str, grant: Grant) -> None:
        """Keeps, while Valkey is there, how many workers share the host and whether it is paused."""
        known = self._hosts.setdefault(host, _Host())
        known.workers = grant.workers
        known.until = time.monotonic() + grant.pause if grant.open else 0.0
        known.pause = max(known.pause, _FIRST_PAUSE) if grant.open else 0.0
        known.why = grant.why

    def forget(self, host: str) -> None:
        """Nobody asks for this host any more."""
        self._hosts.pop(host, None)

    def troubles(self) -> list[Trouble]:
        """The pauses that have not ended, for the others to know."""
        now = time.monotonic()
        return [
            Trouble(name, 0.0, host.until - now, host.why)
            for name, host in self._hosts.items()
            if host.until > now
        ]

    def exchange(
        self, recovered: Sequence[str], demands: Sequence[Demand], troubles: Sequence[Trouble]
    ) -> tuple[list[Grant], list[float]]:
        """As SharedHosts.exchange."""
        for host in recovered:
            known = self._hosts.setdefault(host, _Host())
            known.until = known.pause = 0.0
        return [self._grant(demand) for demand in demands], [self._pause(trouble) for trouble in troubles]

    def schedule(
        self, host: str, images: int, cost: int, limit: HostLimit, urgent: bool
    ) -> list[tuple[int, float]]:
        """As SharedHosts.schedule, but in one group."""
        known = self._hosts.setdefault(host, _Host())
        now = time.monotonic()
        free = max(known.until, now + 1)
        if urgent:
            return [(images, free - now)]
        begin = max(free, known.horizon)
        known.horizon = begin + images * cost / (limit.rate / known.workers or _PACE)
        return [(images, begin - now)]

    def _grant(self, demand: Demand) -> Grant:
        known = self._hosts.setdefault(demand.host, _Host())
        now = time.monotonic()
        rate = demand.limit.rate / known.workers
        allowed = None
        if demand.limit.concurrency:
            allowed = max(1, demand.limit.concurrency // known.workers)
        tokens, wait = self._tokens(known, demand, rate, now) if rate else (None, 0.0)
        if not known.until:
            return Grant(allowed, tokens, wait, rate=rate, workers=known.workers)
        pause = max(0.0, known.until - now)
        probe = demand.probing or (pause == 0 and demand.waiting > 0)
        return Grant(0, tokens, wait, pause, True, probe, rate, known.workers, known.why)

    def _tokens(self, known: _Host, demand: Demand, rate: float, now: float) -> tuple[int, float]:
        """Requests that may begin, and the seconds until there are more: as in lua/sync.lua."""
        busy = max(known.busy_until - max(0, demand.unspent) / rate, now) - min(0, demand.unspent) / rate
        burst = max(1.0, demand.least / rate)
        free = math.floor((now + burst - busy) * rate + 1e-6)
        tokens = max(0, min(demand.wanted, free, max(demand.least, math.ceil(rate / 2))))
        if tokens < demand.least or known.until:
            tokens = 0
        known.busy_until = busy + tokens / rate
        return tokens, max(0.0, known.busy_until + demand.least / rate - burst - now)

    def _pause(self, trouble: Trouble) -> float:
        known = self._hosts.setdefault(trouble.host, _Host())
        now = time.monotonic()
        asked = min(trouble.retry_after or 0.0, _LONGEST_ASKED)
        if known.until and now - trouble.age < known.paused_at:
            known.until = max(known.until, now + asked)
        else:
            usual = min(2 * known.pause, _LONGEST_PAUSE) if known.until else 0.0
            known.pause = max(usual, asked) or _FIRST_PAUSE
            known.until, known.paused_at, known.why = now + known.pause, now, trouble.why
        return known.until - now
