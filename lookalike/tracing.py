"""Traces of chunks: one from lease to finish, across orchestrator and worker, sent to an OpenTelemetry collector.

The trace of a chunk follows from its lease, which both sides know: messages carry nothing for it and stay of constant
size. Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set; the library is imported only then. A collector that is away costs
spans and never work.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from lookalike import __version__
from lookalike.ledger import Lease
from lookalike.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanContext

log = logging.getLogger(__name__)


class ChunkTrace(Protocol):
    """The trace of one chunk in a worker."""

    def stage(self, name: str, began: float, ended: float, **facts: object) -> None:
        """Adds a part that went from `began` to `ended`, on the clock of time.monotonic."""

    def say(self, **facts: object) -> None:
        """Adds what is known of the whole chunk."""


class Tracing(Protocol):
    """What orchestrator and workers say of the chunks that pass through them."""

    @property
    def is_on(self) -> bool:
        """Whether anybody listens: otherwise nothing has to be measured."""

    def dispatched(self, claims: Sequence[Lease], began: float, **facts: object) -> None:
        """Begins the trace of each chunk: it was leased and published from `began` (time.monotonic) until now."""

    @contextmanager
    def working(self, claim: Lease) -> Iterator[ChunkTrace]:
        """The worker's part of a chunk, as long as the block. What is raised in it is noted and raised on."""

    def close(self) -> None:
        """Sends what is left; waits for a few seconds at most."""


class _Nobody:
    """In place of a tracing that is off."""

    is_on = False

    def stage(self, name: str, began: float, ended: float, **facts: object) -> None: ...

    def say(self, **facts: object) -> None: ...

    def dispatched(self, claims: Sequence[Lease], began: float, **facts: object) -> None: ...

    @contextmanager
    def working(self, claim: Lease) -> Iterator[ChunkTrace]:  # noqa: ARG002 - what Tracing asks for
        yield self

    def close(self) -> None: ...


OFF: Tracing = _Nobody()


def start_tracing(settings: Settings, service: str) -> Tracing:
    """Tracing to the collector of the settings; OFF without one, or without the library, which the log says."""
    if settings.otlp_endpoint is None:
        return OFF
    # Many platforms set the address for every program, and some of them bring a part of the library.
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("no traces: OTEL_EXPORTER_OTLP_ENDPOINT needs pip install 'lookalike[tracing]'")
        return OFF

    resource = Resource.create(
        {"service.name": service, "service.namespace": "lookalike", "service.version": __version__}
    )
    ids = chosen_ids()
    provider = TracerProvider(resource=resource, id_generator=ids)
    address = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, timeout=5)))
    log.info("traces go to %s", address)
    return OpenTelemetry(provider, ids)


def trace_id(lease: UUID) -> int:
    """The trace of a lease, 128 bits. Hashed, so that nobody learns from a trace what gives a right to a chunk."""
    return int.from_bytes(hashlib.sha256(b"lookalike trace" + lease.bytes).digest()[:16])


def root_id(lease: UUID) -> int:
    """The first span of that trace, the orchestrator's, 64 bits."""
    return int.from_bytes(hashlib.sha256(b"lookalike span" + lease.bytes).digest()[:8])


def chosen_ids() -> Any:
    """A generator of ids that takes those of a lease where its `lease` says so, and random ones otherwise."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class ChosenIds(RandomIdGenerator):
        def __init__(self) -> None:
            # Of a thread, since spans are begun in several.
            self.chosen = threading.local()

        def generate_trace_id(self) -> int:
            lease: UUID | None = getattr(self.chosen, "lease", None)
            return trace_id(lease) if lease else super().generate_trace_id()

        def generate_span_id(self) -> int:
            lease: UUID | None = getattr(self.chosen, "lease", None)
            return root_id(lease) if lease else super().generate_span_id()

    return ChosenIds()


class OpenTelemetry:
    """Tracing with the OpenTelemetry SDK."""

    is_on = True

    def __init__(self, provider: "TracerProvider", ids: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("lookalike")
        self._ids = ids

    def dispatched(self, claims: Sequence[Lease], began: float, **facts: object) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        for claim in claims:
            self._ids.chosen.lease = claim.lease
            try:
                span = self._tracer.start_span(
                    "lease and publish",
                    context=Context(),
                    kind=SpanKind.PRODUCER,
                    attributes=_attributes(chunk=claim.chunk, **facts),
                    start_time=_wall(began),
                )
            finally:
                self._ids.chosen.lease = None
            span.end()

    @contextmanager
    def working(self, claim: Lease) -> Iterator[ChunkTrace]:
        from opentelemetry.trace import NonRecordingSpan, SpanKind, set_span_in_context

        parent = set_span_in_context(NonRecordingSpan(self._root(claim.lease)))
        facts = _attributes(chunk=claim.chunk)
        with self._tracer.start_as_current_span("chunk", parent, SpanKind.CONSUMER, facts) as span:
            yield _Chunk(self._tracer, span)

    def close(self) -> None:
        self._provider.shutdown()

    def _root(self, lease: UUID) -> "SpanContext":
        """The orchestrator's span of a lease, sampled as the orchestrator has decided by the id of the trace."""
        from opentelemetry.sdk.trace.sampling import Decision
        from opentelemetry.trace import SpanContext, TraceFlags

        trace = trace_id(lease)
        decision = self._provider.sampler.should_sample(None, trace, "lease and publish").decision
        is_sampled = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
        return SpanContext(trace, root_id(lease), is_remote=True, trace_flags=flags)


class _Chunk:
    def __init__(self, tracer: Any, span: Any) -> None:
        self._tracer = tracer
        self._span = span

    def stage(self, name: str, began: float, ended: float, **facts: object) -> None:
        from opentelemetry.trace import set_span_in_context

        part = self._tracer.start_span(
            name,
            set_span_in_context(self._span),
            attributes=_attributes(**facts),
            start_time=_wall(began),
        )
        part.end(_wall(ended))

    def say(self, **facts: object) -> None:
        self._span.set_attributes(_attributes(**facts))


def _attributes(**facts: object) -> dict[str, Any]:
    return {f"lookalike.{name}": value for name, value in facts.items()}


def _wall(monotonic: float) -> int:
    """A moment of time.monotonic in nanoseconds since 1970."""
    return time.time_ns() - int((time.monotonic() - monotonic) * 1e9)
