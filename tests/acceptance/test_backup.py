"""Backup and restoring as docs/OPERATIONS.md has them, of an archive that a real worker is at work on meanwhile."""

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lookalike import books, ledger, search, services
from lookalike.audit import Wish, audit
from lookalike.database import Connection, connect
from lookalike.errors import LostLeaseError
from lookalike.ledger import Chunk, Lease, RetryPolicy
from lookalike.servers import Postgres
from lookalike.services import Endpoints
from lookalike.vectors import Vectors
from tests.conftest import embedded_settings, remove_with, wait_for
from tests.factories import make_vectors
from tests.pictures import jpeg, photographs
from tests.servers import Lookalike, wait_until

ENCODER = "efficientnet-lite0"
CHUNK = 4
EARLY = [f"early-{number}" for number in range(12)]
LATE = [f"late-{number}" for number in range(12)]
SETTINGS = {
    "LOOKALIKE_CHUNK_SIZE": str(CHUNK),
    "LOOKALIKE_LEASE_SECONDS": "5",
    "LOOKALIKE_CHUNK_THREADS": "2",
}


class HoldingServer(ThreadingHTTPServer):
    """Has a picture for every path that ends in a number; those that begin with `/late` come when it lets go."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HoldingHandler)
        self.pictures = [jpeg(picture) for picture in photographs()[: len(EARLY)]]
        self.let_go = threading.Event()

    def write_table(self, path: Path, names: list[str]) -> str:
        """A table of these pictures."""
        rows = [f"{name},http://127.0.0.1:{self.server_port}/{name}" for name in names]
        path.write_text("\n".join(["key,url", *rows, ""]))
        return str(path)

    def handle_error(self, request: object, client_address: object) -> None:
        """Workers that are killed hang up."""


class HoldingHandler(BaseHTTPRequestHandler):
    server: HoldingServer

    def do_GET(self) -> None:
        if self.path.startswith("/late"):
            self.server.let_go.wait(60)
        number = self.path.rpartition("-")[2]
        found = number.isdecimal()
        body = self.server.pictures[int(number) % len(self.server.pictures)] if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[HoldingServer]:
    server = HoldingServer()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.let_go.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def tool(settings_home: Path) -> Callable[..., None]:
    """Runs one of Postgres' own programs, those that came with the server."""
    programs = Postgres(settings_home).program().parent

    def run(name: str, *words: str) -> None:
        done = subprocess.run([programs / name, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{name}: {done.stderr}"

    return run


@pytest.fixture
def other_server(settings_home: Path) -> Iterator[Endpoints]:
    """Servers that have never heard of this archive."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-tests-"))
    janitor = remove_with(home)
    yield services.up(embedded_settings(home))
    wait_for(janitor)


@pytest.fixture
def new_database(server_url: str, database_url: str) -> Iterator[str]:
    """An empty database on the server of the archive."""
    with connect(server_url, application_name="test") as admin:
        admin.execute("create database restored template template0")
        yield server_url.replace("/lookalike?", "/restored?")
        admin.execute("drop database restored with (force)")


@pytest.mark.slow
def test_a_restored_backup_goes_on(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    database_url: str,
    broker_url: str,
    tool: Callable[..., None],
    new_database: str,
    other_server: Endpoints,
    web: HoldingServer,
    tmp_path: Path,
) -> None:
    """Dumped while a worker holds chunks: beside the old database, and on another server, the books balance, searches
    answer alike, open work is done once, and whoever comes back with a lease of before changes nothing."""
    system = lookalike(**SETTINGS)
    system.run("add", web.write_table(tmp_path / "early.csv", [*EARLY, "missing"]))
    orchestrator, worker = system.start("orchestrate"), system.start("worker")
    wait_until(lambda: books.is_finished(connection, ENCODER), 90, system.logs)
    system.run("index", "build")
    system.run("add", web.write_table(tmp_path / "late.csv", LATE))
    held = "select id, lease from chunks where state = 'running'"
    wait_until(lambda: connection.execute(held).rowcount == 2, 30, system.logs)
    answers = neighbours(connection)

    single, folder, roles = (str(tmp_path / name) for name in ("archive.dump", "archive.dir", "roles.sql"))
    tool("pg_dump", "--format=custom", f"--file={single}", database_url)
    tool("pg_dump", "--format=directory", "--jobs=2", f"--file={folder}", database_url)
    tool("pg_dumpall", "--roles-only", "--no-role-passwords", f"--file={roles}", f"--dbname={database_url}")
    leases = [Lease(int(str(chunk)), lease) for chunk, lease in connection.execute(held).fetchall()]  # type: ignore[arg-type]
    assert len(leases) == 2
    for process in (orchestrator, worker):
        process.kill()

    tool("pg_restore", "--exit-on-error", "--jobs=2", f"--dbname={new_database}", single)
    # The role that the other server was made with is there already.
    tool("psql", "--quiet", f"--dbname={other_server.database_url}", f"--file={roles}")
    tool("pg_restore", "--exit-on-error", "--jobs=2", f"--dbname={other_server.database_url}", folder)
    # The first goes on with the broker as it was left, with messages of before; the second with an empty one.
    restored = [
        Lookalike(make_folder(tmp_path / "beside"), new_database, broker_url, **SETTINGS),
        Lookalike(
            make_folder(tmp_path / "elsewhere"),
            other_server.database_url,
            other_server.broker_url,
            **SETTINGS,
        ),
    ]
    try:
        for one in restored:
            counted = json.loads(one.run("audit", "--full", "--json").stdout)["encoders"][ENCODER]
            assert (counted["done"], counted["failed"], counted["open"]) == (len(EARLY), 1, len(LATE))
            with connect(one.environment["DATABASE_URL"], application_name="test") as there:
                assert neighbours(there) == answers
                assert indexes(there) == indexes(connection) == [True] * 8
                assert rights(there) == rights(connection)
        web.let_go.set()
        for one in restored:
            one.start("orchestrate")
            one.start("worker")
        for one in restored:
            check_end(one, leases, answers)
    finally:
        for one in restored:
            one.stop()


def check_end(restored: Lookalike, leases: list[Lease], answers: list[list[tuple[str, float]]]) -> None:
    """All is done, once; nothing crashed twice for it; the leases of before are good for nothing."""
    with connect(restored.environment["DATABASE_URL"], application_name="test") as connection:
        wait_until(lambda: books.is_finished(connection, ENCODER), 90, restored.logs)
        found = audit(connection, ENCODER, Wish(whole=True), anew=True)
        assert (found.findings, found.balanced) == ([], True)
        assert (found.done, found.failed, found.open) == (len(EARLY) + len(LATE), 1, 0)
        crashes = connection.execute("select max(crashes) from chunks").fetchone()
        assert crashes is not None
        assert crashes[0] <= 1
        for lease in leases:
            late = Chunk(lease, ENCODER, "backfill", 0, [])
            with pytest.raises(LostLeaseError):
                ledger.finish(connection, late, no_vectors(connection), [], RetryPolicy(1, 1))
        assert neighbours(connection) != answers  # the late images are among them


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def neighbours(connection: Connection) -> list[list[tuple[str, float]]]:
    """What searches for some images answer."""
    return [[(one.image, one.distance) for one in search.similar(connection, key, 5)] for key in EARLY[::4]]


def indexes(connection: Connection) -> list[bool]:
    """Which indexes of vectors are sound."""
    query = (
        "select i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid"
        " join pg_am a on a.oid = c.relam where a.amname = 'hnsw'"
    )
    return [bool(valid) for (valid,) in connection.execute(query)]


def rights(connection: Connection) -> list[tuple[object, ...]]:
    """Who owns the objects of the schema and may do what; and what happens when an analyst logs in."""
    objects = connection.execute(
        "select relname, relkind::text, relowner::regrole::text, relacl::text from pg_class"
        " where relnamespace = 'lookalike'::regnamespace and relkind in ('r', 'p', 'v', 'S') order by relname"
    ).fetchall()
    functions = connection.execute(
        "select oid::regprocedure::text, proowner::regrole::text, proacl::text, proconfig::text from pg_proc"
        " where pronamespace = 'lookalike'::regnamespace order by 1"
    ).fetchall()
    triggers = connection.execute("select evtname, evtowner::regrole::text from pg_event_trigger").fetchall()
    return [*objects, *functions, *triggers]


def no_vectors(connection: Connection) -> Vectors:
    return make_vectors([], connection, ENCODER)
