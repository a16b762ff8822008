"""Keeps the lanes filled: leases chunks, publishes them, sweeps what was lost. It holds no state of its own.

Any number of dispatchers may run; the ledger's row locks keep them apart.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import redis
from celery import Celery
from kombu.exceptions import OperationalError as BrokerError

from lookalike import books, index, ledger, sweeping
from lookalike.contract import check_contract
from lookalike.errors import ServiceError
from lookalike.queue import Broker, publish
from lookalike.settings import Settings
from lookalike.tracing import OFF, Tracing
from orchestrator import metrics

log = logging.getLogger(__name__)

# A message leaves its queue a moment before its chunk is started; what was queued earlier and has none has lost it.
GRACE_SECONDS = 10.0
# A single message that was lost, while others wait in its queue, is missed after so long.
QUEUED_SECONDS = 600.0
SWEEP_SECONDS = 1.0
IDLE_SECONDS = 0.1
SEARCHABLE_SECONDS = 5.0
# What a database or broker that is away raises; InternalError: after a failover, a server that is read-only still.
AWAY = (
    ServiceError,
    psycopg.OperationalError,
    psycopg.InternalError,
    redis.RedisError,
    BrokerError,
    OSError,
)


@dataclass
class Dispatcher:
    """One pass after another over every encoder's lanes; see `run`."""

    settings: Settings
    connection: ledger.Connection
    app: Celery
    broker: Broker
    traces: Tracing = OFF

    def __post_init__(self) -> None:
        self._next_sweep = 0.0
        self._searchable: dict[str, tuple[bool, float]] = {}
        # After an outage, or when we are new, leases look expired: the heartbeats get a moment to renew theirs first.
        self._leases_count_from = time.monotonic() + sweeping.grace(self.settings.lease_seconds)

    def step(self) -> int:
        """One pass: sweep when it is time, then lease and publish. Returns the chunks published."""
        began = time.monotonic()
        if time.monotonic() >= self._next_sweep:
            self.sweep()
            self._next_sweep = time.monotonic() + SWEEP_SECONDS
        published = sum(
            self._fill(encoder, lane)
            for encoder in books.encoder_names(self.connection)
            for lane in ledger.LANES
        )
        metrics.PASSES.inc()
        metrics.PASS_SECONDS.inc(time.monotonic() - began)
        metrics.PASSED.set_to_current_time()
        return published

    def _fill(self, encoder: str, lane: ledger.Lane) -> int:
        if lane == "analysis" and not self._is_searchable(encoder):
            return 0
        began = time.monotonic()
        claims = ledger.lease(self.connection, encoder, lane, self.settings.window, QUEUED_SECONDS)
        if claims:
            publish(self.app, encoder, lane, claims)
            metrics.PUBLISHED.labels(encoder, lane).inc(len(claims))
            self.traces.dispatched(claims, began, encoder=encoder, lane=lane)
        return len(claims)

    def _is_searchable(self, encoder: str) -> bool:
        """Analyses wait for the index of a large archive: each of their searches would read all of it.

        Where no index is built by itself, they do not.
        """
        if not self.settings.index_rows:
            return True
        now = time.monotonic()
        answer, until = self._searchable.get(encoder, (False, 0.0))
        if now >= until:
            answer = index.is_searchable(self.connection, encoder, self.settings.index_rows)
            self._searchable[encoder] = (answer, now + SEARCHABLE_SECONDS)
        return answer

    def sweep(self) -> None:
        """Gives back what crashed workers held and what the broker lost.

        Raises ContractError when the database has been migrated for another version meanwhile.
        """
        check_contract(self.connection)
        if self.broker.was_wiped():
            lost = sweeping.give_back_queued(self.connection, None, None, QUEUED_SECONDS)
            metrics.WIPES.inc()
            metrics.LOST.inc(lost)
            if lost:
                log.warning("the broker was wiped: %d chunks are published again", lost)
        else:
            for encoder in books.encoder_names(self.connection):
                for lane in ledger.LANES:
                    self._compare(encoder, lane)
        if time.monotonic() >= self._leases_count_from:
            self._sweep_leases()

    def _compare(self, encoder: str, lane: ledger.Lane) -> None:
        """Compares the queued chunks of a lane with the messages that wait for it."""
        waiting = self.broker.waiting(encoder, lane)
        if waiting:
            sweeping.prolong_queued(self.connection, encoder, lane, waiting, QUEUED_SECONDS)
            return
        lost = sweeping.give_back_queued(self.connection, encoder, lane, QUEUED_SECONDS - GRACE_SECONDS)
        metrics.LOST.inc(lost)
        if lost:
            log.warning("%d messages of lane %s were lost: published again", lost, lane)

    def _sweep_leases(self) -> None:
        swept = sweeping.sweep(self.connection)
        metrics.EXPIRED.labels("running").inc(swept.crashed)
        metrics.EXPIRED.labels("queued").inc(swept.expired)
        metrics.DEAD.inc(len(swept.dead))
        if swept.crashed:
            log.warning("%d chunks came back from workers that fell silent", swept.crashed)
        for image in swept.dead:
            log.error("image %d crashed %d workers and is given up", image, sweeping.CRASHES_BEFORE_DEATH)


def run(
    settings: Settings,
    connect: Callable[[], ledger.Connection],
    app: Celery,
    broker: Broker,
    stop: threading.Event,
    traces: Tracing = OFF,
) -> None:
    """Dispatches until `stop` is set. Waits out a database or broker that is away, with growing pauses."""
    pause = IDLE_SECONDS
    while not stop.is_set():
        try:
            with connect() as connection:
                dispatcher = Dispatcher(settings, connection, app, broker, traces)
                while not stop.is_set():
                    if dispatcher.step() == 0:
                        stop.wait(IDLE_SECONDS)
                    pause = IDLE_SECONDS
        except AWAY as error:
            metrics.INTERRUPTIONS.inc()
            pause = min(pause * 2, 10)
            log.warning("%s; trying again in %.1f s", _first_line(error), pause)
            stop.wait(pause)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
