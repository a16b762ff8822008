"""Traces of chunks: one from lease to finish, sent to a collector that is a real HTTP server here."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lookalike.ledger import Lease
from lookalike.settings import Settings
from lookalike.tracing import OFF, start_tracing, trace_id
from tests.conftest import embedded_settings
from workers.timeline import Timeline


class Collector(list[tuple[str, Span]]):
    """The spans that came, with the name of the service that sent each."""

    url = ""

    def of(self, lease: UUID) -> dict[str, Span]:
        """The spans of a lease's trace by name."""
        return {span.name: span for _, span in self if int.from_bytes(span.trace_id) == trace_id(lease)}


@contextmanager
def collector() -> Iterator[Collector]:
    """An OpenTelemetry collector, as far as it takes traces over HTTP."""
    spans = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                facts = {one.key: one.value.string_value for one in each.resource.attributes}
                spans.extend(
                    (facts["service.name"], span) for scope in each.scope_spans for span in scope.spans
                )
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    spans.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield spans
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return embedded_settings(tmp_path)


def told(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"otlp_endpoint": url})


def test_both_sides_make_one_trace_of_a_lease(settings: Settings) -> None:
    """The worker's spans hang under the orchestrator's, though nothing passed between them but the lease."""
    claims = [Lease(1, uuid4()), Lease(2, uuid4())]
    with collector() as spans:
        orchestrator = start_tracing(told(settings, spans.url), "orchestrator")
        worker = start_tracing(told(settings, spans.url + "/"), "worker")
        began = time.monotonic()
        orchestrator.dispatched(claims, began, encoder="tiny", lane="events")
        with worker.working(claims[1]) as trace:
            trace.stage("fetch", began, began + 2, busy_seconds=3.5)
            trace.say(outcome="done")
        orchestrator.close()
        worker.close()
    assert {name for name, _ in spans} == {"orchestrator", "worker"}
    found = spans.of(claims[1].lease)
    assert set(found) == {"lease and publish", "chunk", "fetch"}
    assert found["chunk"].parent_span_id == found["lease and publish"].span_id
    assert found["fetch"].parent_span_id == found["chunk"].span_id
    assert not found["lease and publish"].parent_span_id
    fetch = found["fetch"]
    assert fetch.end_time_unix_nano - fetch.start_time_unix_nano == pytest.approx(2e9, rel=0.01)
    assert {one.key for one in found["chunk"].attributes} == {"lookalike.chunk", "lookalike.outcome"}
    assert set(spans.of(claims[0].lease)) == {"lease and publish"}


def test_a_trace_does_not_tell_the_lease() -> None:
    """Whoever sees a trace cannot settle its chunk."""
    lease = uuid4()
    assert f"{trace_id(lease):032x}" != lease.hex


def test_sampling_is_decided_alike_on_both_sides(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ratio, a trace is whole or not there at all."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    claims = [Lease(number, uuid4()) for number in range(64)]
    with collector() as spans:
        orchestrator, worker = (start_tracing(told(settings, spans.url), name) for name in "ow")
        orchestrator.dispatched(claims, time.monotonic())
        for claim in claims:
            with worker.working(claim):
                pass
        orchestrator.close()
        worker.close()
    sizes = {len(spans.of(claim.lease)) for claim in claims}
    assert sizes == {0, 2}


def test_off_by_default(settings: Settings) -> None:
    """Without the setting nothing is traced, measured or imported."""
    assert start_tracing(settings, "worker") is OFF
    with OFF.working(Lease(1, uuid4())) as trace:
        trace.stage("fetch", 0, 1)
    assert not OFF.is_on


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.exporter.otlp"])
def test_without_the_library_the_log_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    """The program works on, without traces, whether all of the library or a part of it is missing."""
    for name in [name for name in sys.modules if name.startswith(missing)]:
        monkeypatch.delitem(sys.modules, name)
    # Python's own word for a module that cannot be found.
    monkeypatch.setitem(sys.modules, missing, None)
    assert start_tracing(told(settings, "http://127.0.0.1:1"), "worker") is OFF
    assert "lookalike[tracing]" in caplog.text


def test_a_collector_that_is_away_costs_no_work(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Spans are dropped in the background; whoever works does not notice."""
    caplog.set_level(logging.CRITICAL)
    traces = start_tracing(told(settings, "http://127.0.0.1:1"), "worker")
    began = time.monotonic()
    for number in range(100):
        with traces.working(Lease(number, uuid4())):
            pass
    assert time.monotonic() - began < 5


def test_a_failing_chunk_keeps_its_trace(settings: Settings) -> None:
    """What was raised is in it, and raised on."""
    claim = Lease(1, uuid4())
    with collector() as spans:
        traces = start_tracing(told(settings, spans.url), "worker")
        with pytest.raises(ValueError, match="broken"), traces.working(claim):
            raise ValueError("broken")
        traces.close()
    assert spans.of(claim.lease)["chunk"].status.code == 2


def test_a_timeline_goes_from_the_first_beginning_to_the_last_end() -> None:
    """With the seconds of work in between, of all threads together."""
    timeline = Timeline()
    timeline.note("fetch", 5.0, 6.0)
    timeline.note("fetch", 4.0, 5.5)
    timeline.note("decode", 6.0, 6.25)
    fetch = timeline.parts()["fetch"]
    assert (fetch.began, fetch.ended, fetch.busy, fetch.times) == (4.0, 6.0, 2.5, 2)
