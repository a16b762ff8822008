"""The gate that every image passes on its way to a host: no host gets more than it bears, from all workers together.

Images wait in a line for each host while the threads that fetch go on with others; who would wait long is turned away,
back to the ledger. One thread of its own talks to Valkey, whatever it takes; no other thread ever waits for that.
"""

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lookalike.hosts import SharedHosts, Trouble
from lookalike.images import Protocol
from lookalike.ledger import ChunkImage, Postponement
from lookalike.settings import HostLimit, Settings
from workers.agreement import Agreement
from workers.line import FULL_SECONDS, RUN, SHORT_PAUSE_SECONDS, Crowd, Line, Run, Waiting

log = logging.getLogger(__name__)
Item = TypeVar("Item")

# Wishes that come so soon after another are asked for together.
_GATHER_SECONDS = 0.003
# A host that nobody wanted anything of for so long is forgotten.
_FORGET_SECONDS = 600.0
# Until the workers have agreed on a pause, this one keeps so long away.
_PAUSE_SECONDS = 5.0
_NO_LIMIT = HostLimit()
# So many of the threads that fetch are kept free for urgent images, where there are eight or more for each.
_RESERVED = 2


@dataclass(frozen=True, slots=True)
class Host:
    """Where an image is fetched from: host or host:port, empty for files. `limited`: the limits of all hosts hold."""

    name: str
    limited: bool


NO_HOST = Host("", limited=False)


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """An image that is to be fetched later: its host is paused, or (not `paused`) others come first."""

    image: ChunkImage
    host: Host
    paused: bool
    detail: str


def requests_for(protocol: Protocol) -> int:
    """How many requests an image usually takes: an image service is asked for its info.json first."""
    return 2 if protocol == "iiif" else 1


class Visit:
    """One image that was let in. Whoever holds it must call `leave` in the end; `answered` is for each answer."""

    def __init__(self, gate: "Gate[Any]", line: Line[Any], cost: int, is_probe: bool) -> None:
        self._gate, self._line = gate, line
        self._cost = cost
        self._is_probe = is_probe
        self._began = time.monotonic()
        self._answers = self._last = 0
        self._refused = self._is_over = False
        self.run: Run | None = None
        """The run of refusals that this image is part of, if it was refused with 403, or 503 without a time to wait."""

    def answered(self, status: int, retry_after: float | None) -> None:
        """Learns from an answer of the host: its status, and the seconds that it asked to wait."""
        self._answers += 1
        self._last = status
        line = self._line
        if not line.host:
            return
        if self._answers > self._cost:
            self._gate.count_request(line)
        if status == 429 or (status == 503 and retry_after is not None):
            self._refuse(retry_after, f"answered {status}")
        elif status in (403, 503):
            # It may be about this image alone: a proxy says so of a file that breaks the server behind it.
            self.run = self._gate.count_refusal(line)
            if self.run.count == RUN or (self._is_probe and self.run.blocked):
                self._refuse(retry_after, f"answered {status} to all requests")
        elif line.run.count:
            line.run = Run()

    def leave(self) -> None:
        """Makes room for the next image. The one that tried a paused host tells whether the pause is over."""
        if self._is_probe and not self._refused:
            if 0 < self._last < 500:
                self._gate.recover(self._line)
            else:
                self._refuse(None, f"answered {self._last}" if self._last else "did not answer")
        self._is_over = True
        self._gate.leave(self._line, self._is_probe)

    def withdraw(self) -> None:
        """Makes room without having asked for anything; nothing, if it is over."""
        if not self._is_over:
            self._is_over = True
            self._gate.leave(self._line, self._is_probe)

    def _refuse(self, retry_after: float | None, why: str) -> None:
        self._refused = True
        age = time.monotonic() - self._began
        self._gate.pause(self._line, Trouble(self._line.host, age, retry_after, why))


class Gate(Generic[Item]):
    """The lines of one worker process. Safe for many threads.

    `turn_away` is called, in the gate's own thread, with images that are to come back later; it must not block. Without
    `shared` the limits hold for this process alone.
    """

    def __init__(
        self,
        settings: Settings,
        shared: SharedHosts | None = None,
        turn_away: Callable[[Item, Host, bool, str], None] = lambda *_: None,
    ) -> None:
        self._settings = settings
        self._agreement = Agreement(shared)
        self._turn_away = turn_away
        self._usual = HostLimit(rate=settings.host_rate, concurrency=settings.host_concurrency)
        self._lines: dict[str, Line[Item]] = {}
        # Those in which somebody waits; few, where there are many.
        self._crowded: dict[str, tuple[Host, Line[Item]]] = {}
        self._troubles: list[tuple[Line[Item], Trouble]] = []
        self._recovered: list[Line[Item]] = []
        self._order = itertools.count()
        self._idle = 0
        self._reserved = min(_RESERVED, settings.fetch_threads // 8)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Whom `enter` keeps waiting: a thread that fetches must not miss its call for one of these.
        self._called = threading.Condition(self._lock)
        self._wake = threading.Event()
        threading.Thread(target=self._ask_forever, name="gate", daemon=True).start()

    # For threads that fetch -------------------------------------------------------------------------------------------

    def put(self, items: Iterable[tuple[Item, Host, int]], urgent: bool = False) -> None:
        """Lets images wait, each for its host and with the number of requests that it needs; urgent ones in front."""
        now = time.monotonic()
        with self._changed:
            ready = 0
            for item, host, cost in items:
                line = self._line(host)
                if host.name not in self._crowded:
                    line.check_age(now)
                    self._crowded[host.name] = host, line
                line.join(Waiting(item, cost, now, next(self._order)), urgent)
                ready += line.may_enter(cost, now)
            self._changed.notify(ready)
            if any(not line.may_enter(line.head.cost, now) for _, line in self._crowded.values()):
                self._wake.set()

    def take(self) -> tuple[Item, Visit]:
        """Waits until some image may be fetched, and lets it in: an urgent one, else the first whose host is ready."""
        with self._changed:
            self._idle += 1
            try:
                while (line := self._first_ready()) is None:
                    self._changed.wait()
            finally:
                self._idle -= 1
            waiting = line.pop()
            if not line:
                del self._crowded[line.host]
            return waiting.item, self._let_in(line, waiting.cost)

    def enter(self, host: Host, cost: int, seconds: float) -> Visit | None:
        """Waits in the thread of the caller until one image may be fetched. None: not within so many seconds."""
        until = time.monotonic() + seconds
        with self._changed:
            line = self._line(host)
            line.check_age(time.monotonic())
            line.callers += 1
            try:
                while not line.may_enter(cost, now := time.monotonic()):
                    if now >= until or line.paused_until - now > SHORT_PAUSE_SECONDS:
                        return None
                    self._wake.set()
                    self._called.wait(FULL_SECONDS)
                return self._let_in(line, cost)
            finally:
                line.callers -= 1

    def schedule(self, turned_away: Sequence[TurnedAway], urgent: bool) -> list[Postponement]:
        """Says when images are to come back, those of each host one after the other."""
        groups: dict[tuple[Host, bool], list[TurnedAway]] = {}
        for one in turned_away:
            groups.setdefault((one.host, one.paused), []).append(one)
        made = []
        for (host, paused), members in groups.items():
            at = 0
            for count, seconds in self._plan(host, members, urgent):
                group = members[at : at + count]
                at += count
                images = [one.image for one in group]
                made.append(Postponement(images, seconds, paused, group[0].detail))
        return made

    def _plan(self, host: Host, members: Sequence[TurnedAway], urgent: bool) -> list[tuple[int, float]]:
        cost = max(requests_for(one.image.protocol) for one in members)
        return self._agreement.schedule(host.name, len(members), cost, self._limit(host), urgent)

    def look(self) -> Crowd:
        """Who waits now. Anybody may ask."""
        with self._lock:
            return Crowd.of(self._lines.values())

    # For visits -------------------------------------------------------------------------------------------------------

    def count_request(self, line: Line[Item]) -> None:
        """One more request than was expected."""
        with self._changed:
            line.begin(1)

    def count_refusal(self, line: Line[Item]) -> Run:
        """One more 403; returns the run that it is part of."""
        with self._changed:
            line.run.count += 1
            return line.run

    def pause(self, line: Line[Item], trouble: Trouble) -> None:
        """Tells all workers of a host's trouble; this one heeds it at once."""
        with self._changed:
            if not line.is_open:
                log.warning("host %s is paused: it %s", line.host, trouble.why)
            seconds = _PAUSE_SECONDS if trouble.retry_after is None else trouble.retry_after
            line.pause(max(line.paused_until, time.monotonic() + seconds), trouble.why)
            self._troubles.append((line, trouble))
        self._wake.set()

    def recover(self, line: Line[Item]) -> None:
        """Tells all workers that a host answers again."""
        log.info("host %s answers again", line.host)
        with self._changed:
            line.reopen()
            self._recovered.append(line)
        self._wake.set()

    def leave(self, line: Line[Item], is_probe: bool) -> None:
        """One image less is being fetched."""
        with self._changed:
            line.leave()
            if is_probe:
                line.is_probing = False
            if line and line.may_enter(line.head.cost, time.monotonic()):
                self._changed.notify()

    # Within -----------------------------------------------------------------------------------------------------------

    def _limit(self, host: Host) -> HostLimit:
        return self._settings.hosts.get(host.name) or (self._usual if host.limited else _NO_LIMIT)

    def _line(self, host: Host) -> Line[Item]:
        line = self._lines.get(host.name)
        if line is None:
            line = self._lines[host.name] = Line(host.name, self._limit(host))
        elif host.limited and line.limit is _NO_LIMIT:
            line.limit = self._limit(host)
        return line

    def _first_ready(self) -> Line[Item] | None:
        now = time.monotonic()
        ready = [line for _, line in self._crowded.values() if line.may_enter(line.head.cost, now)]
        first = min(ready, key=lambda line: line.rank, default=None)
        # However many threads wait for hosts that do not answer, some are left for what cannot wait.
        return first if self._idle > self._reserved or (first and first.is_urgent) else None

    def _let_in(self, line: Line[Item], cost: int) -> Visit:
        return Visit(self, line, cost, line.enter(cost, time.monotonic()))

    # The thread that asks ---------------------------------------------------------------------------------------------

    def _ask_forever(self) -> None:
        pause: float | None = None
        while True:
            self._wake.wait(pause)
            time.sleep(_GATHER_SECONDS)
            self._wake.clear()
            try:
                pause = self._pass()
            except Exception:
                # Without this thread nothing would be fetched any more, and nobody would know why.
                log.exception("the gate")
                pause = 1.0

    def _pass(self) -> float | None:
        """Asks about all hosts that are due, once. Returns the seconds until the next is, None: nobody waits."""
        with self._lock:
            now = time.monotonic()
            recovered, self._recovered = self._recovered, []
            troubles, self._troubles = self._troubles, []
            told = {line.host for line in recovered} | {line.host for line, _ in troubles}
            lines = [line for line in self._lines.values() if line.due(now) <= now or line.host in told]
            epochs = {line.host: line.epoch for line in lines}
            demands = [line.demand(self._settings.fetch_threads) for line in lines]
        grants, pauses = self._agreement.exchange(
            [line.host for line in recovered], demands, [trouble for _, trouble in troubles]
        )
        with self._lock:
            now = time.monotonic()
            for line, grant in zip(lines, grants, strict=True):
                line.apply(grant, epochs[line.host], now)
            for (line, trouble), pause in zip(troubles, pauses, strict=True):
                line.pause(now + pause, trouble.why)
            turned_away = self._empty(now)
            self._call(now)
            due = self._next_due(now)
        for item, host, paused, detail in turned_away:
            self._turn_away(item, host, paused, detail)
        return due

    def _empty(self, now: float) -> list[tuple[Item, Host, bool, str]]:
        """Takes out of all lines those who would wait too long."""
        turned_away = []
        for host, line in list(self._crowded.values()):
            for waiting, paused in line.turn_away(now, self._idle > 0):
                turned_away.append((waiting.item, host, paused, line.excuse(paused)))
            if not line:
                del self._crowded[host.name]
        return turned_away

    def _call(self, now: float) -> None:
        """Wakes as many threads as there may be work for."""
        ready = (line for _, line in self._crowded.values() if line.may_enter(line.head.cost, now))
        self._changed.notify(min(self._idle, sum(map(len, ready))))
        self._called.notify_all()

    def _next_due(self, now: float) -> float | None:
        """Seconds until the next question; hosts that nobody has asked for a long time are forgotten."""
        for line in list(self._lines.values()):
            if line.due(now) == math.inf and now - line.used_at > _FORGET_SECONDS:
                del self._lines[line.host]
                self._agreement.forget(line.host)
        due = min((line.due(now) for line in self._lines.values()), default=math.inf)
        return None if due == math.inf else max(0.0, due - now)
