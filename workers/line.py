"""The line in front of one host in one worker: who waits there, who is inside, and what it was granted last.

Nothing here locks or blocks: the gate does.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lookalike.hosts import Demand, Grant
from lookalike.settings import HostLimit

Item = TypeVar("Item")

# Hosts that are busy are asked about so often, those without limits less often.
PERIOD_SECONDS = 0.25
FREE_PERIOD_SECONDS = 1.0
# What was heard of a host that long ago no longer holds.
STALE_SECONDS = 1.0
# Where all requests under way are others', one may end at any moment.
FULL_SECONDS = 0.1
# The least time between two questions about tokens; they come in blocks at high rates.
TOKEN_SECONDS = 0.02
# Images wait for a pause, or for their turn at the rate of the host, so long at most; and so long for whatever it is.
SHORT_PAUSE_SECONDS = 1.0
TURN_SECONDS = 2.0
PARKED_SECONDS = 10.0
# So many refusals (403, 503) in a row, without another answer, are no longer about single images.
RUN = 10


@dataclass(slots=True)
class Run:
    """Refusals (403, 503) of a host in a row, in this process; a new one begins with every other answer."""

    count: int = 0

    @property
    def blocked(self) -> bool:
        """Whether the host seems to refuse us rather than single images."""
        return self.count >= RUN


@dataclass(slots=True)
class Waiting(Generic[Item]):
    """An image in the line. `cost` is the number of requests that it needs, `order` its place among all lines."""

    item: Item
    cost: int
    since: float
    order: int


class Line(Generic[Item]):
    """One host. Times are of time.monotonic. `tokens` are requests that may begin; below 0, too many have begun."""

    def __init__(self, host: str, limit: HostLimit) -> None:
        self.host = host
        self.limit = limit
        self.under_way = 0
        self.callers = 0
        self.asked_at = -math.inf
        self.used_at = 0.0
        self.paused_until = 0.0
        self.is_open = False
        self.probe = False
        self.is_probing = False
        self.run = Run()
        # Counts what we learn by ourselves: a grant from before that does not hold.
        self.epoch = 0
        self._urgent: deque[Waiting[Item]] = deque()
        self._others: deque[Waiting[Item]] = deque()
        self._known = not host
        self._allowed: int | None = None
        self._tokens: int | None = None
        self._begun = 0
        self._requests_waiting = 0
        self._grant = Grant()
        self._why = ""

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    @property
    def head(self) -> Waiting[Item]:
        """Who is next."""
        return self._urgent[0] if self._urgent else self._others[0]

    @property
    def is_urgent(self) -> bool:
        """Whether the next one is."""
        return bool(self._urgent)

    @property
    def rank(self) -> tuple[bool, int]:
        """Its place among the lines: where the next one is urgent first, then as they came."""
        return not self._urgent, self.head.order

    def join(self, waiting: Waiting[Item], urgent: bool) -> None:
        (self._urgent if urgent else self._others).append(waiting)
        self._requests_waiting += waiting.cost

    def pop(self) -> Waiting[Item]:
        """Takes who is next out of the line."""
        return self._remove(self._urgent or self._others, 0)

    def may_enter(self, cost: int, now: float) -> bool:
        """Whether an image that needs so many requests may be fetched now."""
        if not self._known or now < self.paused_until:
            return False
        if self.is_open:
            return self.probe
        return (self._allowed is None or self.under_way < self._allowed) and (
            self._tokens is None or self._tokens >= cost
        )

    def enter(self, cost: int, now: float) -> bool:
        """Counts an image in. Returns whether it is the one that tries a paused host."""
        self.under_way += 1
        self.used_at = now
        self.begin(cost)
        probe, self.probe = self.probe, False
        self.is_probing = self.is_probing or probe
        return probe

    def begin(self, requests: int) -> None:
        """Counts requests."""
        self._begun += requests
        if self._tokens is not None:
            self._tokens -= requests

    def leave(self) -> None:
        """Counts an image out."""
        self.under_way -= 1

    def pause(self, until: float, why: str) -> None:
        """Lets nobody in until then, and then only one."""
        self.is_open, self.paused_until, self.probe, self._why = True, until, False, why
        self.epoch += 1

    def reopen(self) -> None:
        """The host has answered: what holds now is asked for at once."""
        self.is_open, self.paused_until = False, 0.0
        self.epoch += 1
        self._forget()

    def _forget(self) -> None:
        self._known = not self.host
        self.asked_at = -math.inf

    def check_age(self, now: float) -> None:
        """Forgets what was heard too long ago, as of a host that nobody wanted anything of meanwhile."""
        if now - self.asked_at > STALE_SECONDS:
            self._forget()

    # Asking -----------------------------------------------------------------------------------------------------------

    def due(self, now: float) -> float:
        """When to ask about this host again."""
        if not self.host:
            return math.inf
        if (self or self.callers) and not self.may_enter(self.head.cost if self else 1, now):
            return self.asked_at + self._pause_between(now)
        holds = bool(self._allowed or (self._tokens or 0) > 0 or self.probe)
        if self or self.callers or self.under_way or self._begun or holds:
            free = self._allowed is None and self._tokens is None and not self.is_open
            return self.asked_at + (FREE_PERIOD_SECONDS if free else PERIOD_SECONDS)
        return math.inf

    def _pause_between(self, now: float) -> float:
        if now < self.paused_until:
            return min(self.paused_until - now + 0.001, PERIOD_SECONDS)
        if self._grant.wait:
            return min(max(self._grant.wait, TOKEN_SECONDS), PERIOD_SECONDS)
        return FULL_SECONDS

    def demand(self, threads: int) -> Demand:
        """What to ask for. Until the answer is there, nobody enters but in place of somebody who leaves."""
        waiting = len(self) + self.callers
        made = Demand(
            self.host,
            self.limit,
            self.under_way,
            min(waiting, max(0, threads - self.under_way)),
            self._requests_waiting + self.callers,
            self.head.cost if self else 1,
            self._tokens or 0,
            self._begun,
            self.is_probing or (self.probe and waiting > 0),
        )
        self._begun = 0
        if self._tokens is not None:
            self._tokens = 0
        if self._allowed is not None:
            self._allowed = min(self._allowed, self.under_way)
        self.probe = False
        return made

    def apply(self, grant: Grant, epoch: int, now: float) -> None:
        """Takes the answer. `epoch` is the one that was asked in."""
        self.asked_at = now
        self._grant = grant
        self._allowed = grant.allowed
        # Requests that began meanwhile without a token are owed.
        owed = min(0, self._tokens or 0)
        self._tokens = None if grant.tokens is None else grant.tokens + owed
        if epoch != self.epoch:
            self.asked_at = -math.inf
            return
        self._known = True
        self.is_open, self._why = grant.open, grant.why
        self.paused_until = now + grant.pause if grant.open else 0.0
        self.probe = grant.probe and not self.is_probing

    def excuse(self, paused: bool) -> str:
        """Why an image has to come back later, for people."""
        if paused:
            return f"{self.host} {self._why}"
        return f"{self.host} is asked no faster than its limit allows"

    # Turning away -----------------------------------------------------------------------------------------------------

    def turn_away(self, now: float, is_idle: bool) -> Iterator[tuple[Waiting[Item], bool]]:
        """Takes out of the line who would wait too long; with each, whether it is for a pause.

        `is_idle` says that there are threads for more: otherwise it is not the host that images wait for.
        """
        if not self or not self._known:
            return
        if self.paused_until - now > SHORT_PAUSE_SECONDS:
            while self:
                yield self.pop(), True
            return
        while len(self._others) > self._places():
            yield self._remove(self._others, -1), self.is_open
        for queue in (self._urgent, self._others):
            while is_idle and queue and now - queue[0].since > PARKED_SECONDS:
                if self.may_enter(queue[0].cost, now):
                    break
                yield self._remove(queue, 0), self.is_open

    def _remove(self, queue: deque[Waiting[Item]], place: int) -> Waiting[Item]:
        waiting = queue[place]
        del queue[place]
        self._requests_waiting -= waiting.cost
        return waiting

    def _places(self) -> float:
        """How many images have their turn soon, at the rate of the host."""
        if not self._grant.rate:
            return math.inf
        cost = self._others[0].cost if self._others else 1
        soon = (TURN_SECONDS - self._grant.wait) * self._grant.rate / self._grant.workers + (
            self._tokens or 0
        )
        return max(1, int(soon / cost))


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many images wait for their hosts, and how many hosts are paused, as one worker sees it."""

    waiting: int
    paused: int

    @classmethod
    def of(cls, lines: Iterable[Line[Any]]) -> "Crowd":
        """Those of these lines."""
        counted = [(len(line), line.is_open) for line in lines]
        return cls(sum(waiting for waiting, _ in counted), sum(is_open for _, is_open in counted))
