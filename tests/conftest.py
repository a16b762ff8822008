"""What all tests share: one embedded Postgres and one Valkey for the whole run, and a database for each test.

The services live in a folder of this run and end with it, however it ends.
"""

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.conninfo import make_conninfo
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from lookalike import services
from lookalike.database import Connection, connect
from lookalike.migrate import migrate
from lookalike.services import Endpoints
from lookalike.settings import Settings

TEMPLATE = "lookalike_template"
# Waits until the pipe from pytest is closed, which a kill -9 of pytest does as well.
JANITOR = """
import shutil, sys
sys.stdin.read()
from lookalike import services
from lookalike.settings import Settings
services.down(Settings(_env_file=None, home=sys.argv[1]))
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""
_numbers = itertools.count()


class FilesTogether(LoadFileScheduling):
    """Has one process run the tests of a file, and all those in a browser: they share an archive, dear to embed."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/browser" if file.startswith("tests/browser/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """What `--dist loadfile` means here."""
    return FilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None


def embedded_settings(home: Path) -> Settings:
    """Settings that lead to the embedded services, whatever the environment says."""
    return Settings(_env_file=None, home=home, DATABASE_URL=None, BROKER_URL=None)


def remove_with(home: Path) -> subprocess.Popen[bytes]:
    """Starts a process that stops the services in `home` and removes it, when we close its input or die."""
    return subprocess.Popen(
        [sys.executable, "-c", JANITOR, str(home)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(janitor: subprocess.Popen[bytes]) -> None:
    janitor.stdin.close()
    assert janitor.wait(120) == 0


@pytest.fixture(scope="session")
def settings_home() -> Iterator[Path]:
    """The LOOKALIKE_HOME of this run; the janitor takes it away."""
    # Not pytest's own temporary folder: every run of pytest closes that to other users, such as the servers'.
    home = Path(tempfile.mkdtemp(prefix="lookalike-tests-"))
    janitor = remove_with(home)
    yield home
    wait_for(janitor)


@pytest.fixture(scope="session")
def endpoints(settings_home: Path) -> Endpoints:
    """The running services. Postgres does not wait for the disk here: only a test may."""
    found = services.up(embedded_settings(settings_home))
    with psycopg.connect(found.database_url, autocommit=True) as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(sql.SQL("alter system set {} = off").format(sql.Identifier(name)))
        connection.execute("select pg_reload_conf()")
    return found


@pytest.fixture(scope="session")
def server_url(endpoints: Endpoints) -> str:
    """The address of a superuser's database on the server of this run, for CREATE DATABASE and the like."""
    return endpoints.database_url


@pytest.fixture(scope="session")
def template_database(server_url: str) -> str:
    """The name of a migrated database that holds nothing yet."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
        migrate(make_conninfo(server_url, dbname=TEMPLATE))
        connection.execute(
            sql.SQL("alter database {} allow_connections false").format(sql.Identifier(TEMPLATE))
        )
    return TEMPLATE


def new_database(server_url: str, template: str) -> Iterator[str]:
    """Makes a database from a template, yields its address, and drops it."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    # A URL, as DATABASE_URL usually is.
    yield server_url.replace("/lookalike?", f"/{name}?")
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(server_url: str, template_database: str) -> Iterator[str]:
    """The address of a migrated, empty database of this test."""
    yield from new_database(server_url, template_database)


@pytest.fixture
def bare_database_url(server_url: str) -> Iterator[str]:
    """The address of a database of this test that is not migrated."""
    yield from new_database(server_url, "template0")


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to the database of this test, in autocommit mode."""
    with connect(database_url, application_name="test") as opened:
        yield opened


@pytest.fixture
def broker_url(endpoints: Endpoints) -> str:
    """The address of an empty Valkey, as Celery and redis-py take it."""
    with redis.Redis.from_url(endpoints.broker_url) as client:
        client.flushall()
    return endpoints.broker_url
