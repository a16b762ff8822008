"""Workers, orchestrators and explorers that start while database or broker are away: they wait, and say so once."""

import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lookalike import services
from lookalike.database import connect, wait_out
from lookalike.errors import AwayError, ServiceError
from lookalike.migrate import migrate
from lookalike.services import Endpoints
from lookalike.settings import Settings
from tests.conftest import remove_with, wait_for
from tests.servers import Lookalike, free_port, wait_until

WAITING = "waiting until it is back"
COMMANDS = {
    "worker": ["worker"],
    "orchestrate": ["orchestrate"],
    "serve": ["serve", "--port", "0"],
}
# A worker takes seconds to load its encoder.
SLOW_WORKER = pytest.param("worker", marks=pytest.mark.slow)
ALL = [SLOW_WORKER, "orchestrate", "serve"]
AT_WORK = {"worker": " on cpu", "orchestrate": "metrics are at", "serve": "the explorer is at"}


class Server:
    """A Postgres of these tests alone, which they stop and start."""

    def __init__(self, home: Path, broker_url: str) -> None:
        self._settings = Settings(_env_file=None, home=home, DATABASE_URL=None, BROKER_URL=broker_url)
        self.url = self.start()

    def start(self) -> str:
        return services.up(self._settings).database_url

    def stop(self) -> None:
        services.down(self._settings)


@pytest.fixture(scope="module")
def own_server(endpoints: Endpoints) -> Iterator[Server]:
    # Not pytest's own temporary folder: see `settings_home`.
    home = Path(tempfile.mkdtemp(prefix="lookalike-tests-"))
    janitor = remove_with(home)
    server = Server(home, endpoints.broker_url)
    migrate(server.url)
    yield server
    server.stop()
    wait_for(janitor)


@pytest.fixture
def server(own_server: Server) -> Iterator[Server]:
    own_server.start()
    yield own_server
    own_server.start()


@pytest.fixture
def lookalike(tmp_path: Path, server: Server, broker_url: str) -> Iterator[Callable[..., Lookalike]]:
    systems: list[Lookalike] = []

    def make(**settings: str) -> Lookalike:
        given = {"database_url": server.url, "broker_url": broker_url, **settings}
        database, broker = given.pop("database_url"), given.pop("broker_url")
        port = str(free_port())
        systems.append(Lookalike(tmp_path, database, broker, LOOKALIKE_METRICS_PORT=port, **given))
        return systems[-1]

    yield make
    for system in systems:
        system.stop()


def end(process: "subprocess.Popen[bytes]", system: Lookalike) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, system.logs()


@pytest.mark.parametrize("command", ALL)
def test_a_database_that_is_away_is_waited_for(
    server: Server, lookalike: Callable[..., Lookalike], command: str
) -> None:
    """It is said once, and once that it is back; then the process does its work, and SIGTERM ends it with code 0."""
    server.stop()
    system = lookalike()
    process = system.start(*COMMANDS[command])
    wait_until(lambda: WAITING in system.logs(), 60, system.logs)
    time.sleep(1)
    assert process.poll() is None, system.logs()
    assert AT_WORK[command] not in system.logs()
    server.start()
    wait_until(lambda: AT_WORK[command] in system.logs(), 60, system.logs)
    assert system.logs().count(WAITING) == 1, system.logs()
    assert system.logs().count("the database is back") == 1, system.logs()
    end(process, system)


@pytest.mark.parametrize("command", ALL)
def test_sigterm_ends_the_waiting(server: Server, lookalike: Callable[..., Lookalike], command: str) -> None:
    """Whoever waits for the database holds nothing, and ends at once with code 0."""
    server.stop()
    system = lookalike()
    process = system.start(*COMMANDS[command])
    wait_until(lambda: WAITING in system.logs(), 60, system.logs)
    end(process, system)


@pytest.mark.parametrize("command", ALL[:2])
def test_a_broker_that_is_away_is_waited_for(lookalike: Callable[..., Lookalike], command: str) -> None:
    """Neither leaves for want of it, and SIGTERM ends them with code 0 all the same."""
    system = lookalike(broker_url=f"redis://127.0.0.1:{free_port()}/0")
    process = system.start(*COMMANDS[command])
    said = "Cannot connect to redis" if command == "worker" else "trying again in"
    wait_until(lambda: said in system.logs(), 60, system.logs)
    time.sleep(1)
    assert process.poll() is None, system.logs()
    if command == "worker":
        ready = system.run("ready", "worker", check=False)
        assert (ready.returncode, "not ready" in ready.stderr) == (1, True), ready
    end(process, system)


@pytest.mark.parametrize(
    ("command", "wrong", "said"),
    [
        ("orchestrate", {"password": "hunter2"}, "password authentication failed"),
        ("serve", {"dbname": "nowhere"}, "does not exist"),
        pytest.param("worker", {"password": "x"}, "password authentication failed", marks=pytest.mark.slow),
    ],
)
def test_what_waiting_does_not_help_ends_at_once(
    server: Server, lookalike: Callable[..., Lookalike], command: str, wrong: dict[str, str], said: str
) -> None:
    """A wrong password and a missing database are said, and the process ends with code 1."""
    system = lookalike(database_url=make_conninfo(server.url, **wrong))
    process = system.start(*COMMANDS[command])
    assert process.wait(60) == 1, system.logs()
    assert said in system.logs()
    assert WAITING not in system.logs()
    assert "hunter2" not in system.logs()


def test_a_server_that_stops_and_starts_is_away_all_the_while(server: Server) -> None:
    """Refused, shutting down, starting up, cut off: whatever a client meets meanwhile counts as away."""
    met: list[str] = []
    is_over = threading.Event()

    def knock() -> None:
        while not is_over.is_set():
            try:
                with connect(server.url, application_name="knocks") as connection:
                    connection.execute("select pg_sleep(0.01)")
            except AwayError as error:
                met.append(str(error))
            except ServiceError as error:
                met.append(f"LASTING {error}")
            except psycopg.OperationalError as error:
                met.append(str(error))

    knocking = [threading.Thread(target=knock) for _ in range(4)]
    for thread in knocking:
        thread.start()
    for _ in range(2):
        time.sleep(0.3)
        server.stop()
        time.sleep(0.3)
        server.start()
    is_over.set()
    for thread in knocking:
        thread.join(10)
    assert met
    assert not [each for each in met if each.startswith("LASTING")]


def test_a_step_that_loses_its_connection_is_taken_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """From its beginning, on a new connection; any other error of the database is raised at once."""
    steps: list[int] = []

    def step() -> int:
        with connect(server.url, application_name="step") as connection:
            steps.append(connection.info.backend_pid)
            if len(steps) < 3:
                connection.execute("select pg_terminate_backend(pg_backend_pid())")
            return connection.info.backend_pid

    with caplog.at_level("INFO", logger="lookalike.database"):
        assert wait_out(step) == steps[-1]
    assert len(set(steps)) == 3
    assert [WAITING in each.getMessage() for each in caplog.records] == [True, False]

    def wrong() -> None:
        with connect(server.url, application_name="step") as connection:
            connection.execute("select * from nothing_like_it")

    with pytest.raises(psycopg.errors.UndefinedTable):
        wait_out(wrong)
