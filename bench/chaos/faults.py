"""The faults. Each is a block: it strikes at the beginning, and what it took away is back at the end."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

import redis

from bench.chaos.system import LEASE_SECONDS, System
from lookalike.database import await_connection

# Longer than a lease: what is held by whoever is away, or cannot reach the database, is lost to them.
LONG_SECONDS = 1.5 * LEASE_SECONDS
SHORT_SECONDS = 1.0


@dataclass(frozen=True)
class Fault:
    """A kind of fault: what it is in words, for how many seconds it lasts, and how it is done."""

    words: str
    seconds: float
    strike: Callable[[System], AbstractContextManager[None]]


@contextmanager
def kill_worker(system: System) -> Iterator[None]:
    system.supervisor.send(system.random.choice(system.workers), signal.SIGKILL)
    yield


@contextmanager
def stop_worker(system: System) -> Iterator[None]:
    system.supervisor.send(system.random.choice(system.workers), signal.SIGTERM)
    yield


@contextmanager
def freeze_worker(system: System) -> Iterator[None]:
    name = system.random.choice(system.workers)
    system.supervisor.send(name, signal.SIGSTOP)
    yield
    system.supervisor.send(name, signal.SIGCONT)


@contextmanager
def kill_orchestrator(system: System) -> Iterator[None]:
    system.supervisor.send("orchestrator", signal.SIGKILL)
    yield


@contextmanager
def stop_orchestrator(system: System) -> Iterator[None]:
    system.supervisor.send("orchestrator", signal.SIGTERM)
    yield


@contextmanager
def flush_broker(system: System) -> Iterator[None]:
    with redis.Redis.from_url(system.broker_url) as client:
        client.flushall()
    yield


@contextmanager
def restart_broker(system: System) -> Iterator[None]:
    system.kill_valkey(keep_data=True)
    yield
    system.start_servers()


@contextmanager
def replace_broker(system: System) -> Iterator[None]:
    system.kill_valkey(keep_data=False)
    yield
    system.start_servers()


@contextmanager
def restart_database(system: System) -> Iterator[None]:
    system.stop_postgres()
    yield
    system.start_servers()


@contextmanager
def stop_servers(system: System) -> Iterator[None]:
    system.stop_postgres()
    system.kill_valkey(keep_data=True)
    yield
    system.start_servers()


@contextmanager
def cut_backends(system: System) -> Iterator[None]:
    """About a third of all connections."""
    pids = _backends(system)
    with await_connection(system.database_url, application_name="bench") as connection:
        for pid in system.random.sample(pids, -(-len(pids) // 3)):
            connection.execute("select pg_terminate_backend(%s)", [pid])
    yield


@contextmanager
def crash_backend(system: System) -> Iterator[None]:
    """One server process dies (-9), and Postgres cuts all others and recovers, as it does after a crash of its own."""
    os.kill(system.random.choice(_backends(system)), signal.SIGKILL)
    yield


@contextmanager
def fill_disk(system: System) -> Iterator[None]:
    """Fills the disk of Postgres to its last byte; where that stops it, it is started again when there is room.

    Only for a system whose Postgres has a small file system of its own: not among the faults that are drawn.
    """
    ballast = system.postgres.folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    yield
    ballast.unlink()
    system.start_servers()


def _backends(system: System) -> list[int]:
    with await_connection(system.database_url, application_name="bench") as connection:
        rows = connection.execute(
            "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
            " and application_name like 'lookalike%' order by pid"
        )
        return [pid for (pid,) in rows]


FAULTS = {
    "control": Fault("nothing, to compare with", 0, lambda _: nullcontext()),
    "kill-worker": Fault("kill -9 of a worker", 0, kill_worker),
    "stop-worker": Fault("SIGTERM to a worker", 0, stop_worker),
    "freeze-worker": Fault(
        "SIGSTOP of a worker for longer than its lease, SIGCONT", LONG_SECONDS, freeze_worker
    ),
    "kill-orchestrator": Fault("kill -9 of the orchestrator", 0, kill_orchestrator),
    "stop-orchestrator": Fault("SIGTERM to the orchestrator", 0, stop_orchestrator),
    "flush-broker": Fault("FLUSHALL", 0, flush_broker),
    "restart-broker": Fault("kill -9 and restart of Valkey with its data", SHORT_SECONDS, restart_broker),
    "replace-broker": Fault("kill -9 and restart of Valkey without its data", SHORT_SECONDS, replace_broker),
    "broker-away": Fault("Valkey away for longer than a lease", LONG_SECONDS, restart_broker),
    "restart-database": Fault("restart of Postgres, immediate mode", SHORT_SECONDS, restart_database),
    "database-away": Fault("Postgres away for longer than a lease", LONG_SECONDS, restart_database),
    "cut-backends": Fault("a third of the Postgres backends terminated", 0, cut_backends),
    "crash-backend": Fault("kill -9 of a Postgres backend", 0, crash_backend),
    "servers-away": Fault("Postgres and Valkey away for longer than a lease", LONG_SECONDS, stop_servers),
}
