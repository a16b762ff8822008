"""Figures for Prometheus: the endpoint that serves them, and labels that cannot grow without bound.

What a program counts stands in its own module (`orchestrator/metrics.py`, `workers/metrics.py`). Nothing here may ever
stop or slow the work: a port that is taken costs the figures and one line in the log.
"""

import logging
import threading
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from lookalike import __version__
from lookalike.settings import Settings

log = logging.getLogger(__name__)

# Hosts, sources and the like that get a label of their own; the others share OTHER. A document from outside may name as
# many hosts as it likes.
LABELS = 40
OTHER = "other"
Sample = tuple[tuple[str, ...], float]


class Labels:
    """Keeps the values of one label few: the first `most` stay as they are, all further ones become `other`."""

    def __init__(self, most: int = LABELS) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def limit(self, value: str) -> str:
        """The value, or `other` where there are too many already."""
        with self._lock:
            if value not in self._known and len(self._known) < self._most:
                self._known.add(value)
            return value if value in self._known else OTHER


def counter(name: str, meaning: str, labels: Iterable[str], samples: Iterable[Sample]) -> CounterMetricFamily:
    """A counter of which somebody else keeps count; `name` is without `_total`."""
    family = CounterMetricFamily(name, meaning, labels=tuple(labels))
    for values, number in samples:
        family.add_metric(values, number)
    return family


def gauge(name: str, meaning: str, labels: Iterable[str], samples: Iterable[Sample]) -> GaugeMetricFamily:
    """A figure that goes up and down."""
    family = GaugeMetricFamily(name, meaning, labels=tuple(labels))
    for values, number in samples:
        family.add_metric(values, number)
    return family


def new_registry() -> CollectorRegistry:
    """A registry with the memory, processor time and open files of this process, and its version."""
    # When a counter was made: nobody asks, and it doubles what is sent.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Build())
    return registry


class _Build:
    def collect(self) -> Iterable[GaugeMetricFamily]:
        yield gauge(
            "lookalike_build", "Always 1; its label is the version.", ["version"], [((__version__,), 1)]
        )


def serve(settings: Settings, registry: CollectorRegistry) -> int | None:
    """Serves the figures at `/metrics` in a thread, if a port is set. Returns the port; None: nothing is served."""
    if settings.metrics_port is None:
        return None
    address = settings.metrics_address
    try:
        server, _ = start_http_server(settings.metrics_port, addr=address, registry=registry)
    except OSError as error:
        log.warning(
            "no metrics: %s port %d: %s; set another LOOKALIKE_METRICS_PORT, one for each process of a host",
            *(address, settings.metrics_port, error.strerror or error),
        )
        return None
    port = int(server.server_port)
    log.info("metrics are at http://%s:%d/metrics", address, port)
    return port
