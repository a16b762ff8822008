"""`lookalike serve`: the explorer, pages and HTTP API, until it is told to stop."""

import logging
import signal
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.session import Session, log_to_terminal, open_session
from lookalike import metrics
from lookalike.errors import AwayError, ConfigurationError
from lookalike.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")]


RootPath = Annotated[
    str | None,
    typer.Option(
        help="Path of the website that the explorer lies under, as /lookalike; else LOOKALIKE_EXPLORER_ROOT_PATH."
    ),
]


def serve(host: Host = "127.0.0.1", port: Port = 8080, root_path: RootPath = None) -> None:
    """Serves the explorer: pages, and the API below /api. Ends on SIGTERM or Ctrl-C.

    A database that is away is waited for.
    """
    log_to_terminal(logging.INFO)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        session = open_session(stop)
    except AwayError:
        if stop.is_set():
            return
        raise
    if root_path is not None:
        session = replace(
            session, settings=session.settings.model_copy(update={"explorer_root_path": root_path})
        )
    run_server(session, host, port, stop)


def run_server(session: Session, host: str, port: int, stop: threading.Event | None = None) -> None:
    """Serves until SIGTERM or Ctrl-C, unless `stop` is set before it can.

    Raises ConfigurationError when the address is taken, or packages lack.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise _lacks(error) from None
    app = prepare(session.settings, session.endpoints.database_url)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        # Whose word on the client's address counts is a setting of ours.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    try:
        listening = config.bind_socket()
    except SystemExit:
        raise ConfigurationError(f"{host}:{port} cannot be listened at: choose another --port") from None
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"

    class Server(uvicorn.Server):
        """Says where it is as soon as it answers there."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            output.console.print(f"the explorer is at {address}", highlight=False, soft_wrap=True)

    # Uvicorn ends in order on these, and then raises them again, for whoever was there before it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        if stop is None or not stop.is_set():
            Server(config).run([listening])
    finally:
        listening.close()


def prepare(settings: Settings, database_url: str) -> "FastAPI":
    """The application, and its figures where LOOKALIKE_METRICS_PORT is set. Raises ConfigurationError."""
    try:
        from explorer.app import create_app
    except ImportError as error:
        raise _lacks(error) from None
    app = create_app(settings, database_url)
    # For Prometheus, behind the website's back: what the site itself answers at /metrics is for operators.
    metrics.serve(settings, app.state.metrics.registry)
    return app


def _lacks(error: ImportError) -> ConfigurationError:
    return ConfigurationError(f"{error}: pip install 'lookalike[explorer]'")
