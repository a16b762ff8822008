"""`lookalike demo`, `run`, `add`, `plan`, `orchestrate` and `worker`: what gets images embedded."""

import logging
import signal
import socket
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import Json, Sources
from cli.serve import Host, Port
from cli.session import Session, ensure_encoder, log_to_terminal, open_session
from cli.state import as_dict, print_books
from lookalike import books
from lookalike.database import wait_out
from lookalike.errors import AwayError
from lookalike.readiness import orchestrator_name
from lookalike.settings import load_settings


def add(
    sources: Sources = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Register nothing; list what would be.")] = False,
    anew: Annotated[
        bool,
        typer.Option("--anew", help="Begin at the beginning, also where an earlier reading was stopped."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Registers the images of one or more sources. Stopped at any moment, it goes on where it was when repeated."""
    from cli.add import dry_run as list_sources
    from cli.add import register_sources

    if not sources:
        raise typer.BadParameter("name at least one source")
    if dry_run:
        list_sources(sources, load_settings(), as_json)
    else:
        register_sources(open_session(), sources, as_json, anew)


def plan(
    sources: Sources = None,
    sample: Annotated[int, typer.Option(min=1, max=10_000, help="Images to measure on.")] = 500,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many there are in all: then only the sample is read, the first images."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measures on a sample what a backfill would take: time, bytes, memory, and what limits it. Registers nothing."""
    from cli.worker import ignore_pillow, take_environment

    if not sources:
        raise typer.BadParameter("name at least one source")
    take_environment()
    from cli.plan import plan_sources

    log_to_terminal(logging.ERROR)
    ignore_pillow()
    plan_sources(open_session(), sources, sample, images, as_json)


def orchestrate(sources: Sources = None) -> None:
    """Runs the orchestrator: reads its sources, leases chunks, hands them to the workers, sweeps.

    Backfills are read to their end once; a restart goes on where they were. Streams are followed for ever, and so are
    queues of events (sqs:NAME). A database or broker that is away is waited for. Ends on SIGTERM or Ctrl-C.
    """
    from lookalike.metrics import serve
    from lookalike.queue import Broker, make_app
    from lookalike.tracing import start_tracing
    from orchestrator import dispatch, metrics
    from orchestrator.reading import reading
    from orchestrator.upkeep import keeping_up
    from orchestrator.watch import Watch, watching

    log_to_terminal()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        session = open_session(stop)
        wait_out(partial(_add_encoder, session), stop)
    except AwayError:
        if stop.is_set():
            return
        raise
    connect = partial(session.connect, orchestrator_name(socket.gethostname()))
    broker = Broker(session.endpoints.broker_url)
    app = make_app(session.endpoints.broker_url, session.settings.encoder)
    traces = start_tracing(session.settings, "orchestrator")
    with ExitStack() as stack:
        if serve(session.settings, metrics.REGISTRY) is not None:
            watch = Watch(session.settings, broker, session.endpoints.broker_url)
            stack.enter_context(watching(watch, metrics.REGISTRY, session.connect))
        stack.enter_context(keeping_up(session.settings, session.connect))
        stack.enter_context(reading(session.settings, session.connect, sources or []))
        dispatch.run(session.settings, connect, app, broker, stop, traces)
    traces.close()
    broker.close()


def _add_encoder(session: Session) -> None:
    with session.connect() as connection:
        ensure_encoder(session, connection)


def worker(
    leash: Annotated[bool, typer.Option(hidden=True, help="End when standard input closes.")] = False,
) -> None:
    """Runs a Celery worker with the right pool and options. SIGTERM lets it finish what it holds."""
    from cli.worker import run_worker

    run_worker(leash)


def run(
    sources: Sources = None,
    as_json: Json = False,
) -> None:
    """Does the whole job on one machine: services, add, orchestrator and worker, until nothing is left to do.

    Ctrl-C is safe; a second run resumes, with or without the sources.
    """
    from cli import run as running

    log_to_terminal(30)
    session = open_session()
    result, intake = running.run(session, sources or [], quiet=as_json)
    with session.connect() as connection:
        reasons = books.count_reasons(connection, session.settings.encoder)
    if as_json:
        output.print_json({**as_dict(result), "failures": reasons, "refused": dict(intake.refused)})
    else:
        print_books(session.settings.encoder, result, reasons)
    raise typer.Exit(0 if result.complete else 1)


def demo(
    images: Annotated[Path | None, typer.Option(help="Another folder of photographs.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="End with the explorer, to look at them.")] = False,
    host: Host = "127.0.0.1",
    port: Port = 8080,
) -> None:
    """Does the main job end to end on bundled photographs, and writes a contact sheet picture."""
    from cli.demo import run_demo

    run_demo(open_session(), images, (host, port) if serve else None)
