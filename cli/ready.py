"""`lookalike ready`: what the health check of a container and a systemd unit ask."""

import socket
import time
from enum import StrEnum
from typing import Annotated

import psycopg
import typer

from cli import output
from lookalike.database import connect, mask
from lookalike.errors import ServiceError
from lookalike.readiness import is_orchestrator_ready, is_worker_ready
from lookalike.services import status, up
from lookalike.settings import Settings, load_settings

POLL_SECONDS = 1.0


class Part(StrEnum):
    """What runs on a host."""

    WORKER = "worker"
    ORCHESTRATOR = "orchestrator"


CHECKS = {Part.WORKER: is_worker_ready, Part.ORCHESTRATOR: is_orchestrator_ready}


def ready(
    part: Annotated[Part, typer.Argument(help="Which one of this host.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for it.")] = 0,
) -> None:
    """Says by its exit code whether the worker or the orchestrator of this host is at work: 0, or 1 and why not."""
    settings = load_settings()
    until = time.monotonic() + wait
    while (fault := find_fault(settings, part)) is not None:
        if time.monotonic() >= until:
            output.errors.print(f"not ready: {fault}", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(1)
        time.sleep(POLL_SECONDS)
    print(f"the {part} of this host is at work")


def find_fault(settings: Settings, part: Part) -> str | None:
    """Why the part is not ready, or None. Starts no server."""
    for service in status(settings):
        if not service.running:
            return f"{service.name}: {service.detail}"
    host = socket.gethostname()
    try:
        with connect(up(settings).database_url, application_name="lookalike ready") as connection:
            if CHECKS[part](connection, host):
                return None
    except (ServiceError, psycopg.Error) as error:
        return mask(" ".join(str(error).split()))
    return f"no {part} of host {host} has been heard of lately"
