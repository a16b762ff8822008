"""Databases of every earlier version, with data in them, become databases of this one: nothing is lost on the way.

tests/versions/NUMBER.sql is the data that became possible with the migration of that number. A migration that adds a
table or a column gets such a file.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from lookalike import search
from lookalike.audit import Wish, audit
from lookalike.contract import check_contract
from lookalike.database import connect
from lookalike.migrate import migrate, migrations_folder, pending

DATA = Path(__file__).parents[1] / "versions"
MIGRATIONS = sorted(migrations_folder().glob("*.sql"))
EARLIER = [file.name[:4] for file in MIGRATIONS[:-1]]


@pytest.fixture(scope="module")
def past(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Past"]:
    made = Past(server_url, tmp_path_factory.mktemp("migrations"))
    yield made
    made.close()


class Past:
    """A database that grows from version to version; `copy` gives it to a test as it was at one of them."""

    def __init__(self, server_url: str, folder: Path) -> None:
        self._admin = psycopg.connect(server_url, autocommit=True)
        self._url = server_url
        self._folder = folder
        self._ahead = list(MIGRATIONS)
        self._copies = 0
        self._admin.execute("create database past")

    def address(self, name: str) -> str:
        return self._url.replace("/lookalike?", f"/{name}?")

    def grow(self, version: str) -> None:
        """Brings the database to this version, and with each version on the way its data."""
        while self._ahead and self._ahead[0].name[:4] <= version:
            file = self._ahead.pop(0)
            shutil.copy(file, self._folder)
            migrate(self.address("past"), self._folder)
            if (data := DATA / f"{file.name[:4]}.sql").exists():
                with connect(self.address("past"), application_name="test") as connection:
                    connection.execute(data.read_bytes())

    def copy(self, version: str) -> str:
        self.grow(version)
        self._copies += 1
        name = f"past_{self._copies}"
        self._admin.execute(
            sql.SQL("create database {} template past strategy file_copy").format(sql.Identifier(name))
        )
        return self.address(name)

    def close(self) -> None:
        names = ["past", *(f"past_{number + 1}" for number in range(self._copies))]
        for name in names:
            self._admin.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )
        self._admin.close()


@pytest.mark.parametrize("version", EARLIER)
def test_every_earlier_version_becomes_this_one(past: Past, version: str) -> None:
    """With data in it: the audit is clean, whoever was done, failed or open still is, and searches answer."""
    url = past.copy(version)
    behind = [file.name for file in MIGRATIONS if file.name[:4] > version]
    assert pending(url) == behind
    assert migrate(url) == behind
    with connect(url, application_name="test") as connection:
        check_contract(connection)
        done = audit(connection, "tiny", Wish(whole=True), anew=True)
        assert (done.findings, done.balanced) == ([], True)
        assert (done.registered, done.done, done.failed, done.open, done.compared) == (6, 3, 1, 2, 3)
        accepted = connection.execute("select count(*) from unwanted_images").fetchone()
        expected = ["image/2"] if accepted == (1,) else ["image/2", "image/3"]
        assert [one.image for one in search.similar(connection, "image/1", 5)] == expected
        assert connection.execute("select reason from failed_images").fetchall() == [("not_found",)]
        owners = connection.execute(
            "select distinct relowner::regrole::text from pg_class"
            " where relnamespace = 'lookalike'::regnamespace and relkind in ('r', 'p', 'v')"
        ).fetchall()
        assert owners == [("lookalike_owner",)]


def test_versions_that_have_data_exist() -> None:
    """Each file of data belongs to a migration."""
    numbers = {file.name[:4] for file in MIGRATIONS}
    assert {file.stem for file in DATA.glob("*.sql")} <= numbers
