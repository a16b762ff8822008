"""What workers agree on about hosts: all of them through Valkey, and each by itself while that is away.

Who asks need not know which of the two it is. What others could not be told meanwhile they hear when Valkey is back.
"""

import logging
import threading
import time
from collections.abc import Sequence

import redis

from lookalike.hosts import Demand, Grant, SharedHosts, Trouble
from lookalike.settings import HostLimit
from workers.alone import Alone

log = logging.getLogger(__name__)

# A Valkey that is away is tried again so soon.
_AWAY_SECONDS = 2.0


class Agreement:
    """The limits that hold for one worker process. Safe for many threads. Without `shared` it is always by itself."""

    def __init__(self, shared: SharedHosts | None) -> None:
        self._shared = shared
        self._alone = Alone()
        self._using_alone = threading.Lock()
        self._away_until = 0.0

    def exchange(
        self, recovered: Sequence[str], demands: Sequence[Demand], troubles: Sequence[Trouble]
    ) -> tuple[list[Grant], list[float]]:
        """Tells which hosts answer again and which are in trouble; returns a grant for each demand, and for each
        trouble the seconds of its pause."""
        if (shared := self._reachable()) is not None:
            missed = self._missed()
            try:
                grants, pauses = shared.exchange(recovered, demands, [*missed, *troubles])
            except redis.RedisError as error:
                self._miss_valkey(error)
            else:
                self._heed(demands, grants)
                return grants, pauses[len(missed) :]
        with self._using_alone:
            return self._alone.exchange(recovered, demands, troubles)

    def schedule(
        self, host: str, images: int, cost: int, limit: HostLimit, urgent: bool
    ) -> list[tuple[int, float]]:
        """When images that were turned away come back: how many of them, and after how many seconds."""
        if (shared := self._reachable()) is not None:
            try:
                return shared.schedule(host, images, cost, limit, urgent)
            except redis.RedisError as error:
                self._miss_valkey(error)
        with self._using_alone:
            return self._alone.schedule(host, images, cost, limit, urgent)

    def forget(self, host: str) -> None:
        """Nobody has wanted anything of a host for long."""
        with self._using_alone:
            self._alone.forget(host)

    def _reachable(self) -> SharedHosts | None:
        """Valkey, unless it was away a moment ago."""
        return self._shared if time.monotonic() >= self._away_until else None

    def _missed(self) -> list[Trouble]:
        """What the others could not be told while Valkey was away."""
        if not self._away_until:
            return []
        with self._using_alone:
            return self._alone.troubles()

    def _heed(self, demands: Sequence[Demand], grants: Sequence[Grant]) -> None:
        if self._away_until:
            log.info("Valkey is back: limits of hosts are shared again")
            self._away_until = 0.0
        with self._using_alone:
            for demand, grant in zip(demands, grants, strict=True):
                self._alone.learn(demand.host, grant)

    def _miss_valkey(self, error: redis.RedisError) -> None:
        if not self._away_until:
            log.warning(
                "Valkey is away (%s): this worker keeps limits of hosts by itself", type(error).__name__
            )
        self._away_until = time.monotonic() + _AWAY_SECONDS
