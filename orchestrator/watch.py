"""What the orchestrator sees of archive, broker and hosts, for Prometheus: a few looks, each again and again.

No look may weigh on the archive: it rests for PART times as long as it took. What costs milliseconds is seconds old,
and the exact count of the books, a minute's work in 40 million images, an hour. Figures of a database that is away are
not shown at all, but for the books, which say of when they are.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import redis
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from psycopg.rows import dict_row

from lookalike import awaited, books, index, ledger
from lookalike.errors import LookalikeError
from lookalike.hosts import list_hosts
from lookalike.ledger import Connection
from lookalike.metrics import LABELS, Sample, gauge
from lookalike.queries import load_queries
from lookalike.queue import Broker
from lookalike.settings import Settings
from orchestrator.progress import list_sources
from orchestrator.refusals import Refusals, with_zeros

log = logging.getLogger(__name__)
QUERIES = load_queries("watch")

# A look costs one part of the time in so many.
PART = 50
STEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """One look: its name, how it is done, and the least seconds from one to the next. `needs`: what it asks. What is
    `dated` says itself of when it is, and is shown until it is seen anew.
    """

    name: str
    needs: str
    seconds: float
    see: Callable[["Watch", Any], Iterable[Metric]]
    dated: bool = False


class Watch:
    """Takes the looks in turn and shows what they saw last. `collect` may be called from any thread."""

    def __init__(self, settings: Settings, broker: Broker, broker_url: str) -> None:
        self.settings = settings
        self.broker = broker
        self.broker_url = broker_url
        self._lock = threading.Lock()
        self._seen: dict[str, list[Metric]] = {}
        self._costs: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._up = {"database": False, "broker": False}
        self.refusals = Refusals()

    def collect(self) -> Iterator[Metric]:
        """What was seen last, whether there was anybody to see, and what the looks cost."""
        with self._lock:
            seen = [metric for metrics in self._seen.values() for metric in metrics]
            up, costs = dict(self._up), dict(self._costs)
        yield gauge(
            "lookalike_up",
            "1 when the orchestrator reaches it, 0 when not: database, broker.",
            ["service"],
            [((name,), float(is_up)) for name, is_up in up.items()],
        )
        yield gauge(
            "lookalike_look_seconds",
            f"Seconds that the last look took; it is repeated after {PART} times as long, if not sooner due.",
            ["look"],
            [((name,), seconds) for name, seconds in costs.items()],
        )
        yield from seen

    def step(self, connection: Connection) -> None:
        """Takes the looks that are due. Raises what the database raises; a broker that is away is noted."""
        for look in LOOKS:
            began = time.monotonic()
            if began < self._due.get(look.name, 0):
                continue
            try:
                found = list(look.see(self, connection))
            except (redis.RedisError, OSError):
                if look.needs != "broker":
                    raise
                self._forget("broker")
                self._due[look.name] = began + look.seconds
                continue
            except psycopg.errors.QueryCanceled as error:
                # The limit of this login (statement_timeout): it has cost as much, and the other looks go on.
                log.warning("no figures of the %s: %s", look.name, " ".join(str(error).split()))
                with self._lock:
                    if not look.dated:
                        self._seen.pop(look.name, None)
                self._rest(look, began)
                continue
            with self._lock:
                self._seen[look.name], self._costs[look.name] = found, time.monotonic() - began
                self._up[look.needs] = True
            self._rest(look, began)

    def _rest(self, look: Look, began: float) -> None:
        now = time.monotonic()
        self._due[look.name] = now + max(look.seconds, PART * (now - began))

    def miss_database(self) -> None:
        """The database is away: what was seen in it no longer holds, unless it is dated."""
        self._forget("database")

    def _forget(self, service: str) -> None:
        with self._lock:
            self._up[service] = False
            for look in LOOKS:
                if look.needs == service and not look.dated:
                    self._seen.pop(look.name, None)


@contextmanager
def watching(watch: Watch, registry: CollectorRegistry, connect: Callable[[], Connection]) -> Iterator[None]:
    """Looks, in a thread with a connection of its own, for the time of the block."""
    registry.register(watch)
    stop = threading.Event()
    thread = threading.Thread(target=_keep_looking, args=(watch, connect, stop), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)
        registry.unregister(watch)


def _keep_looking(watch: Watch, connect: Callable[[], Connection], stop: threading.Event) -> None:
    while not stop.wait(STEP_SECONDS):
        try:
            with connect() as connection:
                while not stop.is_set():
                    watch.step(connection)
                    stop.wait(STEP_SECONDS)
        except (LookalikeError, psycopg.Error) as error:
            watch.miss_database()
            log.debug("watch: %s", error)  # the dispatcher says it
            stop.wait(5 * STEP_SECONDS)
        except Exception:
            # Nobody would notice that this thread has ended.
            log.exception("watch")
            stop.wait(60)


# The looks ------------------------------------------------------------------------------------------------------------


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES[query], {}).fetchall()


def _see_chunks(_: Watch, connection: Connection) -> Iterator[Metric]:
    rows = _rows(connection, "chunks")
    labels = ["encoder", "lane", "state"]
    keys = [(row["encoder"], row["lane"], row["state"]) for row in rows]
    meaning = "Unfinished chunks: pending, put_off (their time has not come), queued, running."
    yield gauge("lookalike_chunks", meaning, labels, _zip(keys, rows, "chunks"))
    yield gauge("lookalike_open_images", "Images in those chunks.", labels, _zip(keys, rows, "images"))
    meaning = "Seconds since the oldest of those chunks could be worked on."
    yield gauge("lookalike_oldest_chunk_seconds", meaning, labels, _zip(keys, rows, "age"))
    names = books.encoder_names(connection)
    yield gauge(
        "lookalike_images_per_second",
        "Images in chunks that were finished within the last minute, by second.",
        ["encoder"],
        [((name,), books.count_last_minute(connection, name) / 60) for name in names],
    )
    counted = {row["encoder"]: row for row in _rows(connection, "workers")}
    yield gauge(
        "lookalike_workers",
        "Workers that were heard of within the last hour: alive, or silent for three heartbeats.",
        ["encoder", "state"],
        [
            ((name, state), counted.get(name, {}).get(state, 0))
            for name in names
            for state in ("alive", "silent")
        ],
    )


def _zip(keys: Sequence[tuple[str, ...]], rows: Sequence[dict[str, Any]], column: str) -> list[Sample]:
    return [(key, float(row[column])) for key, row in zip(keys, rows, strict=True)]


def _see_failures(_: Watch, connection: Connection) -> Iterator[Metric]:
    yield gauge(
        "lookalike_failed_images",
        "Images that have failed for good, by reason.",
        ["encoder", "reason"],
        [
            ((name, reason), count)
            for name in books.encoder_names(connection)
            for reason, count in books.count_reasons(connection, name).items()
        ],
    )


def _see_books(_: Watch, connection: Connection) -> Iterator[Metric]:
    counted = {name: books.count_books(connection, name) for name in books.encoder_names(connection)}
    states = ("done", "failed", "open", "lost")
    yield gauge(
        "lookalike_registered_images", "Registered images, counted exactly.", [],
        [((), books.count_images(connection))],
    )  # fmt: skip
    yield gauge(
        "lookalike_images",
        "Registered images by what has become of them, counted exactly. None may be lost.",
        ["encoder", "state"],
        [((name, state), getattr(one, state)) for name, one in counted.items() for state in states],
    )
    yield gauge(
        "lookalike_books_balanced",
        "1 when registered = done + failed + open and nothing else is known to be wrong.",
        ["encoder"],
        [((name,), float(one.balanced)) for name, one in counted.items()],
    )
    yield gauge(
        "lookalike_books_timestamp_seconds",
        "When the books were counted, in seconds since 1970.",
        [],
        [((), time.time())],
    )
    audits = _rows(connection, "audits")
    yield gauge(
        "lookalike_audit_timestamp_seconds",
        "When the latest audit ended, in seconds since 1970.",
        ["encoder"],
        [((row["encoder"],), row["ended_at"]) for row in audits],
    )
    yield gauge(
        "lookalike_audit_faults",
        "What the latest audit found wrong and nobody has repaired.",
        ["encoder"],
        [((row["encoder"],), float(row["faults"])) for row in audits],
    )


def _see_index(watch: Watch, connection: Connection) -> Iterator[Metric]:
    names = books.encoder_names(connection)
    yield gauge(
        "lookalike_recall_floor",
        "The recall that searches are to reach: LOOKALIKE_RECALL_FLOOR.",
        [],
        [((), watch.settings.recall_floor)],
    )
    checks = {name: check for name in names if (check := index.last_check(connection, name))}
    yield gauge(
        "lookalike_index_recall_ratio",
        "Share of the true nearest k that searches found in the latest check.",
        ["encoder", "k"],
        [
            ((name, k), getattr(check, f"recall_{k}"))
            for name, check in checks.items()
            for k in ("1", "10", "100")
        ],
    )
    yield gauge(
        "lookalike_index_check_search_seconds",
        "Time of a search in the latest check.",
        ["encoder", "quantile"],
        [((n, q), ms / 1000) for n, c in checks.items() for q, ms in (("0.5", c.p50_ms), ("0.95", c.p95_ms))],
    )
    yield gauge(
        "lookalike_index_check_timestamp_seconds",
        "When that check was, in seconds since 1970.",
        ["encoder"],
        [((name,), check.checked_at.timestamp()) for name, check in checks.items()],
    )
    parts = {name: index.list_partitions(connection, name) for name in names}
    yield gauge(
        "lookalike_index_partitions",
        "Partitions of the vectors: indexed, and all.",
        ["encoder", "state"],
        [
            ((name, state), number)
            for name, all_parts in parts.items()
            for state, number in (("indexed", sum(bool(p.valid) for p in all_parts)), ("all", len(all_parts)))
        ],
    )
    yield gauge(
        "lookalike_index_build_ratio",
        "Share 0..1 of the partition whose index is being built; nothing when none is.",
        ["encoder"],
        [((row["encoder"],), row["share"]) for row in _rows(connection, "builds")],
    )


def _see_sources(watch: Watch, connection: Connection) -> Iterator[Metric]:
    sources = sorted(list_sources(connection), key=lambda one: one["read_at"], reverse=True)[:LABELS]
    newcomers = watch.refusals.see({one["name"] for one in sources})
    outcomes = ("new", "changed", "unchanged", "gone", "deleted")
    yield gauge(
        "lookalike_source_images",
        "What a source has announced since it was begun last; the sources that were read last.",
        ["source", "outcome"],
        [((one["name"], outcome), one[outcome]) for one in sources for outcome in outcomes],
    )
    yield gauge(
        "lookalike_source_refused",
        "Records and messages of a source that were refused, by reason.",
        ["source", "reason"],
        [
            ((one["name"], reason), n)
            for one in sources
            for reason, n in with_zeros(one["refused"], is_new=one["name"] in newcomers).items()
        ],
    )
    yield gauge(
        "lookalike_source_timestamp_seconds",
        "When something was read from a source last, in seconds since 1970.",
        ["source"],
        [((one["name"],), one["read_at"].timestamp()) for one in sources],
    )
    yield gauge(
        "lookalike_source_broken",
        "1 when a source broke off and has not been read since.",
        ["source"],
        [((one["name"],), float(one["error"] is not None)) for one in sources],
    )
    yield gauge(
        "lookalike_manifests",
        "Manifests that were promised, or whose hosts failed: awaited, or failed to appear.",
        ["state"],
        [((state,), number) for state, number in awaited.count_awaited(connection).items()],
    )


def _see_broker(watch: Watch, connection: Connection) -> Iterator[Metric]:
    names = books.encoder_names(connection)
    yield gauge(
        "lookalike_waiting_messages",
        "Messages that wait in the broker.",
        ["encoder", "lane"],
        [((name, lane), watch.broker.waiting(name, lane)) for name in names for lane in ledger.LANES],
    )
    try:
        hosts = list_hosts(watch.broker_url)[:LABELS]
    except ValueError:  # a form of its address that only kombu knows
        return
    states = ("paused", "slowed", "asked")
    yield gauge(
        "lookalike_hosts",
        "Hosts that are paused, slowed, or asked without a limit of their own making.",
        ["state"],
        [((state,), sum(one.state == state for one in hosts)) for state in states],
    )
    yield gauge(
        "lookalike_host_paused",
        "1 for a host that is left in peace, since it refused requests.",
        ["host"],
        [((one.host,), float(one.state == "paused")) for one in hosts],
    )
    yield gauge(
        "lookalike_host_rate_limit",
        "Requests a second that a host is slowed to.",
        ["host"],
        [((one.host,), one.rate) for one in hosts if one.rate is not None],
    )
    yield gauge(
        "lookalike_host_fetching_images",
        "Images that are being fetched from a host, by all workers.",
        ["host"],
        [((one.host,), one.under_way) for one in hosts],
    )


LOOKS = (
    Look("chunks", "database", 10, _see_chunks),
    Look("broker", "broker", 10, _see_broker),
    Look("failures", "database", 30, _see_failures),
    Look("sources", "database", 30, _see_sources),
    Look("index", "database", 30, _see_index),
    Look("books", "database", 60, _see_books, dated=True),
)
