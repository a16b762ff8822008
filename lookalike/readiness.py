"""Whether the worker or orchestrator of a host is at work, for supervisors and containers. It changes nothing."""

from lookalike.database import Connection
from lookalike.queries import load_queries

QUERIES = load_queries("readiness")

# A pass of the orchestrator takes milliseconds, and a broker that hangs holds it up for ten seconds.
SILENT_SECONDS = 30.0


def orchestrator_name(host: str) -> str:
    """The application name of the connection that an orchestrator works with: by it others see it at work."""
    return f"lookalike orchestrator {host}"


def is_worker_ready(connection: Connection, host: str) -> bool:
    """Whether heartbeats of a worker of this host come, which say that it takes chunks: it has loaded its encoder, and
    reaches database and broker."""
    return _answer(connection, "worker", {"host": host})


def is_orchestrator_ready(connection: Connection, host: str) -> bool:
    """Whether an orchestrator of this host makes its passes, which need database and broker."""
    return _answer(connection, "orchestrator", {"name": orchestrator_name(host), "seconds": SILENT_SECONDS})


def _answer(connection: Connection, query: str, parameters: dict[str, object]) -> bool:
    row = connection.execute(QUERIES[query], parameters).fetchone()
    assert row is not None
    return bool(row[0])
