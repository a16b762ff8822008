"""One worker process: takes chunks by message, keeps their leases alive, settles each in one transaction."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal, NoReturn, TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg_pool import ConnectionPool

from lookalike import analyses, ledger, limits, logs, sweeping, tracing
from lookalike.calibration import Calibration
from lookalike.contract import check_contract
from lookalike.database import connect, make_pool, wait_out
from lookalike.encoders import find_encoder
from lookalike.envelope import refusals
from lookalike.errors import ContractError, LostLeaseError
from lookalike.hosts import SharedHosts
from lookalike.kinds import KINDS
from lookalike.ledger import Chunk, Lease
from lookalike.metrics import serve
from lookalike.services import Endpoints
from lookalike.settings import Settings
from lookalike.thumbnails import open_cache
from workers import metrics
from workers.entry import enter
from workers.fetch import Fetcher
from workers.gate import TurnedAway
from workers.keeping import Keeper
from workers.network import load_encoder
from workers.patience import in_database
from workers.pipeline import Pipeline
from workers.thumbnail import missed
from workers.timeline import Timeline
from workers.turned import TurnedEmbedder
from workers.turns import Turns
from workers.work import Work

log = logging.getLogger(__name__)
Result = TypeVar("Result")
Outcome = Literal["done", "lost", "given_back"]

# A chunk that takes so long hangs: the process leaves, the lease expires, the chunk counts as crashed.
WATCHDOG_SECONDS = 1800.0
EXIT_HUNG = 70
# The database was migrated for another version: the process gives back what it holds, within so long, and leaves.
EXIT_CONTRACT = 76
GIVE_BACK_SECONDS = 10.0
# A heartbeat that did not come through is tried again so soon.
HEARTBEAT_RETRY_SECONDS = 5.0
# A worker that has done all takes so long at most to say that it leaves.
LEAVE_SECONDS = 2.0


@dataclass
class Held:
    """A chunk that this process works on."""

    claim: Lease
    work: Work
    since: float = field(default_factory=time.monotonic)
    lost: bool = False


def start_embedder(settings: Settings, endpoints: Endpoints) -> "Embedder":
    """Loads the encoder, checks it, and takes back what a crashed predecessor of the same name held.

    Waits for a database that is away. Raises EncoderError, which says what to do: FingerprintError when the encoder
    gives other vectors than those that the archive was made with. Raises ContractError when the database is of another
    version.
    """
    database_url = endpoints.database_url
    spec = find_encoder(settings.encoder)
    cache = open_cache(settings)
    encoder = load_encoder(spec.name, settings)
    # From its beginning, wherever the database goes away: each part of it may be done twice.
    lifeline, name, calibration = wait_out(lambda: enter(settings, spec, encoder, database_url))
    log.info("worker %s: %s on %s, batches of %d", name, spec.name, encoder.device, encoder.batch_size)
    pool = make_pool(database_url, application_name=f"lookalike worker {name}", max_size=8)
    pool.open()
    fetcher = Fetcher(settings)
    pipeline = Pipeline(settings, fetcher, encoder, _share_hosts(endpoints.broker_url, name))
    turned = TurnedEmbedder(settings, fetcher, pipeline.gate, encoder, calibration)
    traces = tracing.start_tracing(settings, "worker")
    embedder = Embedder(settings, name, pool, pipeline, calibration, turned, Keeper(cache, pool), traces)
    metrics.REGISTRY.register(metrics.PipelineFigures(pipeline, spec.name, name))
    serve(settings, metrics.REGISTRY)
    threading.Thread(
        target=embedder.heartbeat, args=(lifeline, database_url), name="heartbeat", daemon=True
    ).start()
    return embedder


def _share_hosts(broker_url: str, name: str) -> SharedHosts | None:
    """What this worker may ask of hosts beside the others; None where their Valkey cannot be addressed."""
    try:
        # Unlike a name in the ledger, one among those that hold something of a host has no successor.
        return SharedHosts(broker_url, f"{name}:{uuid4().hex}")
    except ValueError:
        log.warning("limits of hosts hold for each worker alone: BROKER_URL is no address of a single Valkey")
        return None


class Embedder:
    """What a worker process does with a message. `embed` is called from several threads."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        pool: ConnectionPool[ledger.Connection],
        pipeline: Pipeline,
        calibration: Calibration,
        turned: TurnedEmbedder,
        keeper: Keeper | None = None,
        traces: tracing.Tracing = tracing.OFF,
    ) -> None:
        self._traces = traces
        self._settings = settings
        self._keeper = keeper or Keeper(None, pool)
        self._turned = turned
        self.name = name
        self._pool = pool
        self._pipeline = pipeline
        self._calibration = calibration
        self._started_at = datetime.now(UTC)
        self._policy = ledger.RetryPolicy(
            settings.tries, settings.retry_seconds, settings.patience_hours * 3600
        )
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()
        self._turns = Turns()
        self._stopping = threading.Event()
        self._left = threading.Event()
        self._news = threading.Event()
        self._listening = False

    def embed(self, chunk_id: int, token: UUID, alone: bool = False) -> None:
        """Works on one chunk from start to finish; with `alone`, on no other meanwhile.

        A stale message is nothing; a lost lease changes nothing.
        """
        # Before the start: a chunk that only waits must not be blamed when the process dies of another.
        claim = Lease(chunk_id, token)
        facts: dict[str, object] = {"chunk": chunk_id}
        if self._traces.is_on:
            facts["trace"] = f"{tracing.trace_id(token):032x}"
        with self._turns.take(alone), logs.about(**facts), self._traces.working(claim) as trace:
            self._embed(claim, trace)

    def _embed(self, claim: Lease, trace: tracing.ChunkTrace) -> None:
        began = time.monotonic()
        chunk = self._in_database(
            lambda connection: ledger.start(connection, claim, self.name, self._settings.lease_seconds)
        )
        trace.stage("start", began, time.monotonic())
        if chunk is None:
            log.debug("chunk %d: stale message", claim.chunk)
            metrics.CHUNKS.labels(self._settings.encoder, "", "stale").inc()
            trace.say(outcome="stale")
            return
        with metrics.HELD.track_inprogress():
            outcome = self._work(chunk, trace)
        metrics.CHUNKS.labels(chunk.encoder, chunk.lane, outcome).inc()
        metrics.SECONDS.labels(chunk.encoder, chunk.lane).observe(time.monotonic() - began)
        trace.say(outcome=outcome, encoder=chunk.encoder, lane=chunk.lane, images=len(chunk.images))

    def _work(self, chunk: Chunk, trace: tracing.ChunkTrace) -> Outcome:
        """Works on a chunk that is ours; returns what became of it."""
        claim = chunk.lease
        timeline = Timeline() if self._traces.is_on else None
        # An analysis has vectors already: there is nothing to wait for.
        work = (
            self._pipeline.submit(
                chunk.images,
                chunk.lane == "events",
                pictured=self._keeper.wanted(chunk.images),
                chunk=claim.chunk,
                timeline=timeline,
            )
            if chunk.analysis is None
            else Work([])
        )
        held = Held(claim, work)
        with self._lock:
            self._held[claim.chunk] = held
            # Too late to be among those that `stop` gave up.
            if self._stopping.is_set():
                held.work.cancel()
        try:
            held.work.wait()
            for stage, part in (timeline.parts() if timeline else {}).items():
                trace.stage(stage, part.began, part.ended, busy_seconds=part.busy, times=part.times)
            return self._conclude(chunk, held, trace)
        except LostLeaseError:
            log.warning("chunk %d: somebody else holds or has finished it", claim.chunk)
            return "lost"
        finally:
            with self._lock:
                self._held.pop(claim.chunk, None)

    def _conclude(self, chunk: Chunk, held: Held, trace: tracing.ChunkTrace) -> Outcome:
        """Stores what has become of a chunk, unless it was given up. Raises LostLeaseError."""
        if self._is_given_up(held):
            return "lost" if held.lost else "given_back"
        began = time.monotonic()
        if chunk.analysis is None:
            self._settle(chunk, held)
        elif not self._analyse(chunk, chunk.analysis, held):
            return "lost" if held.lost else "given_back"
        trace.stage("store" if chunk.analysis is None else "analyse", began, time.monotonic())
        return "done"

    def _analyse(self, chunk: Chunk, number: int, held: Held) -> bool:
        """Does a chunk of an analysis; False when it was given up on the way."""
        analysis = self._in_database(lambda connection: analyses.find(connection, number))
        kind = KINDS[analysis.kind]
        missed: list[ledger.Failure] = []
        turned_away: list[TurnedAway] = []

        def find(connection: ledger.Connection) -> object:
            missed.clear()
            turned_away.clear()
            turned = partial(self._turned, missed=missed, turned_away=turned_away)
            return kind.find(connection, analysis, chunk.images, turned)

        found = self._in_database(find)
        if self._is_given_up(held):
            return False
        postponed = self._schedule(chunk, turned_away)

        def store(connection: ledger.Connection, chunk: Chunk) -> None:
            kind.store(connection, analysis, chunk.images, found)

        self._in_database(
            lambda connection: ledger.finish_analysis(
                connection, chunk, store, missed, self._policy, postponed
            )
        )
        return True

    def _schedule(self, chunk: Chunk, turned_away: list[TurnedAway]) -> list[ledger.Postponement]:
        """When images come back that their hosts could not be asked for."""
        return self._pipeline.gate.schedule(turned_away, chunk.lane == "events") if turned_away else []

    def _is_given_up(self, held: Held) -> bool:
        """Whether the work on a chunk is in vain; what is still ours is given back."""
        if held.lost:
            log.warning("chunk %d: the lease is lost, its work is dropped", held.claim.chunk)
        elif held.work.cancelled.is_set():
            self._in_database(lambda connection: ledger.give_back(connection, held.claim))
            log.info("chunk %d is given back", held.claim.chunk)
        return held.lost or held.work.cancelled.is_set()

    def _settle(self, chunk: Chunk, held: Held) -> None:
        vectors, failures = held.work.vectors(self._calibration), held.work.failures
        postponed = self._schedule(chunk, held.work.turned_away)
        with self._pipeline.gauges.busy("store"):
            self._in_database(
                lambda connection: ledger.finish(
                    connection, chunk, vectors, failures, self._policy, postponed
                )
            )
            self._keeper.keep(held.work.thumbnails)
        hosts = held.work.failed_hosts
        metrics.count_images(chunk, len(vectors), failures, hosts, postponed, self._policy)
        for failure in failures:
            key = failure.image.key
            log.info("image %s: %s: %s", key, failure.reason, failure.detail, extra={"image": key})
        for one in postponed:
            log.info("%d images come back in %.0f s: %s", len(one.images), one.seconds, one.detail)

    def _in_database(self, step: Callable[[ledger.Connection], Result]) -> Result:
        """Runs one step of the ledger, on a connection of the pool; see `patience`."""
        return in_database(self._pool, step, 10 * self._settings.lease_seconds, self._stopping)

    # Heartbeat and stop -----------------------------------------------------------------------------------------------

    def heartbeat(self, lifeline: ledger.Connection, database_url: str) -> None:
        """Beats at once, then three times within the life of a lease. Runs in a thread, until the end.

        `lifeline` is the connection that holds the lock on the worker's name.
        """
        pause = 0.0
        while not self._is_over(pause):
            try:
                lifeline = self.beat(lifeline, database_url)
                pause = self._settings.lease_seconds / 3
            except ContractError as error:
                self._leave(error)
            except Exception as error:
                metrics.MISSED.inc()
                # Whatever it was: without this thread the worker would lose every chunk, and never know.
                log.warning("no heartbeat: %s: %s", type(error).__name__, " ".join(str(error).split()))
                pause = min(HEARTBEAT_RETRY_SECONDS, self._settings.lease_seconds / 3)

    def _is_over(self, pause: float) -> bool:
        """Waits until the next heartbeat is due, or something has changed that is to be said at once."""
        self._news.wait(pause)
        self._news.clear()
        return self._left.is_set()

    def listen(self, is_listening: bool) -> None:
        """Told by Celery's consumer: whether it has its connection to the broker."""
        self._listening = is_listening
        self._news.set()

    def beat(self, lifeline: ledger.Connection, database_url: str) -> ledger.Connection:
        """Renews every lease, and cancels the work of those that are lost. Returns the lifeline, or one in its place.

        Through the lifeline and not the pool, whose connections may all be busy, and come back late after an outage.
        """
        with self._lock:
            held = list(self._held.values())
        if lifeline.closed:
            lifeline = connect(database_url, application_name="lookalike worker")
            self.name = sweeping.claim_worker_name(lifeline, socket.gethostname(), self.name)
            # While the database was away no chunk could be finished: that is no hanging.
            for one in held:
                one.since = time.monotonic()
        if any(time.monotonic() - one.since > WATCHDOG_SECONDS for one in held):
            log.critical("a chunk hangs since %d minutes: this process leaves", WATCHDOG_SECONDS // 60)
            os._exit(EXIT_HUNG)
        check_contract(lifeline)
        ours = ledger.renew(lifeline, [one.claim for one in held], self._settings.lease_seconds)
        with self._lock:
            for one in held:
                if one.claim.chunk not in ours and self._held.get(one.claim.chunk) is one:
                    one.lost = True
                    one.work.cancel()
        self._say_how_busy(lifeline)
        metrics.BEAT.set_to_current_time()
        return lifeline

    def _say_how_busy(self, connection: ledger.Connection) -> None:
        """Keeps, for `lookalike status`, the share of time that each stage worked since the last heartbeat."""
        reading = self._pipeline.gauges.read()
        limits.record_beat(
            connection,
            limits.Beat(
                name=self.name,
                encoder=self._settings.encoder,
                device=self._pipeline.device,
                batch_size=self._pipeline.batch_size,
                started_at=self._started_at,
                period=self._settings.lease_seconds / 3,
                images=reading.images,
                seconds=reading.seconds,
                batch_fill=reading.batch_fill,
                refused=refusals.count,
                thumbnails_missed=missed.count,
                listening=self._listening,
                **{f"{stage}_busy": share for stage, share in reading.shares.items()},
            ),
        )

    def _leave(self, error: ContractError) -> NoReturn:
        """Ends the process, whose work the database could not take: first, what it holds is given back."""
        log.critical("%s; this worker leaves", error)
        self._give_up()
        until = time.monotonic() + GIVE_BACK_SECONDS
        while self._held and time.monotonic() < until:
            time.sleep(0.1)
        logging.shutdown()
        os._exit(EXIT_CONTRACT)

    def _give_up(self) -> None:
        """Cancels all work, so that its chunks are given back."""
        # First, so that whatever is not yet in the list sees it.
        self._stopping.set()
        with self._lock:
            held = list(self._held.values())
        for one in held:
            one.work.cancel()

    def leave(self) -> None:
        """The end of a stop in order, when nothing is under way: nobody shall wait for its heartbeats any longer."""
        self._left.set()
        self._news.set()
        # A database that is away hears nothing of it: then the worker seems to have fallen silent, and that passes.
        with suppress(psycopg.Error), self._pool.connection(LEAVE_SECONDS) as connection:
            limits.forget_worker(connection, self.name)

    def stop(self) -> None:
        """Lets chunks under way finish for `stop_seconds`; what is left then is given back. Returns at once."""
        timer = threading.Timer(self._settings.stop_seconds, self._give_up)
        timer.daemon = True
        timer.start()
