"""Migrations on a real server: applied once, by one process at a time, and refused clearly."""

import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lookalike import migrate as module
from lookalike.errors import ServiceError
from lookalike.migrate import migrate, migrations_folder, pending
from tests.servers import wait_until

CHECKOUT = Path(__file__).parents[2]
FILES = {
    "0001_first.sql": "-- migrate:up\ncreate schema lookalike; create table lookalike.first ();\n-- migrate:down\n",
    "0002_second.sql": (
        "-- migrate:up transaction:false\ncreate index concurrently on lookalike.first ((1));\n-- migrate:down\n"
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two small migrations; the second cannot run inside a transaction."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_are_applied_once(bare_database_url: str, folder: Path) -> None:
    """The first call applies what is missing and says so, the second finds nothing, a new file is found."""
    assert pending(bare_database_url, folder) == list(FILES)
    assert migrate(bare_database_url, folder) == list(FILES)
    assert migrate(bare_database_url, folder) == []
    (folder / "0003_third.sql").write_text(
        "-- migrate:up\ncreate table lookalike.third ();\n-- migrate:down\n"
    )
    assert pending(bare_database_url, folder) == ["0003_third.sql"]
    assert migrate(bare_database_url, folder) == ["0003_third.sql"]
    assert pending(bare_database_url, folder) == []


def test_several_processes_at_once(bare_database_url: str, folder: Path) -> None:
    """Of many that migrate at once one applies each file, the others wait; nobody fails or locks up."""
    with ThreadPoolExecutor(5) as pool:
        applied = list(pool.map(lambda _: migrate(bare_database_url, folder), range(5)))
    assert sorted(applied, key=len) == [[], [], [], [], list(FILES)]


def test_one_that_was_killed_is_waited_for(bare_database_url: str, folder: Path) -> None:
    """What it had begun goes on without it: the next call waits, says so, and applies no file twice."""
    (folder / "0003_slow.sql").write_text(
        "-- migrate:up\nselect pg_sleep(3); create table lookalike.slow ();\n-- migrate:down\n"
    )
    words = "import sys, pathlib, lookalike.migrate as m; m.migrate(sys.argv[1], pathlib.Path(sys.argv[2]))"
    killed = subprocess.Popen([sys.executable, "-c", words, bare_database_url, str(folder)], cwd=CHECKOUT)
    with psycopg.connect(bare_database_url, autocommit=True) as connection:
        asked = "select from pg_stat_activity where application_name = %s and query like '%%pg_sleep(3)%%'"
        wait_until(lambda: connection.execute(asked, [module.DBMATE]).fetchone() is not None, 30)
    killed.kill()
    killed.wait()
    told: list[str] = []
    assert migrate(bare_database_url, folder, on_wait=told.append) == []
    assert (pending(bare_database_url, folder), len(told)) == ([], 1)


def test_files_of_this_version(bare_database_url: str) -> None:
    """The shipped migrations build the schema from nothing."""
    names = [file.name for file in sorted(migrations_folder().glob("*.sql"))]
    assert migrate(bare_database_url) == names
    with psycopg.connect(bare_database_url) as connection:
        assert connection.execute("select to_regclass('lookalike.images') is not null").fetchone() == (True,)
        assert connection.execute("select count(*) from public.schema_migrations").fetchone() == (len(names),)


def test_user_named_like_the_schema(bare_database_url: str, folder: Path) -> None:
    """Where the schema `lookalike` comes first in the search_path, the books of migrations stay where they are."""
    migrate(bare_database_url, folder)
    with psycopg.connect(bare_database_url) as connection:
        assert connection.execute("select current_schema()").fetchone() == ("lookalike",)
        tables = connection.execute("select schemaname from pg_tables where tablename = 'schema_migrations'")
        assert tables.fetchall() == [("public",)]
    assert migrate(bare_database_url, folder) == []


def test_failing_file_is_named_and_leaves_nothing(bare_database_url: str, folder: Path) -> None:
    """The error names the file and the reason without any password; the files before it stay applied."""
    password = str(conninfo_to_dict(bare_database_url)["password"])
    bad = f"-- migrate:up\ncreate table lookalike.half ();\nselect '{password}'::integer;\n-- migrate:down\n"
    (folder / "0003_bad.sql").write_text(bad)
    with pytest.raises(
        ServiceError, match=r"0003_bad\.sql failed.*invalid input syntax for type integer"
    ) as caught:
        migrate(bare_database_url, folder)
    assert password not in str(caught.value)
    assert pending(bare_database_url, folder) == ["0003_bad.sql"]
    with psycopg.connect(bare_database_url) as connection:
        assert connection.execute("select to_regclass('lookalike.half')").fetchone() == (None,)


def test_odd_names_and_key_value_addresses(server_url: str, folder: Path) -> None:
    """A database, a user and a password full of punctuation reach dbmate unharmed, from a key=value string too."""
    odd, password = "ödd name/%:@?&'", "p@ss:w/rd%?&# '\\"
    with psycopg.connect(server_url, autocommit=True) as connection:
        role = sql.SQL("create role {} superuser login password {}")
        connection.execute(role.format(sql.Identifier(odd), sql.Literal(password)))
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(odd)))
        try:
            address = make_conninfo(server_url, user=odd, password=password, dbname=odd)
            assert migrate(address, folder) == list(FILES)
            assert migrate(address, folder) == []
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(odd)))
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(odd)))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("/run/postgresql", "postgres://me:a%2Fb@/d%20b?sslmode=disable&host=%2Frun%2Fpostgresql&port=5433"),
        ("::1", "postgres://me:a%2Fb@[::1]:5433/d%20b?sslmode=disable"),
        ("db.example", "postgres://me:a%2Fb@db.example:5433/d%20b?sslmode=disable"),
    ],
)
def test_address_for_the_go_driver(host: str, expected: str) -> None:
    """Sockets, IPv6 and names become the URL that the Go driver takes."""

    class Info:
        user, password, dbname, port, hostaddr = "me", "a/b", "d b", 5433, ""

        def get_parameters(self) -> dict[str, str]:
            return {"sslmode": "prefer"}

    class Opened:
        info, pgconn = Info(), type("Handle", (), {"ssl_in_use": False})

    Info.host = host
    assert module._dbmate_url(Opened()) == f"{expected}&application_name=lookalike+dbmate"


def test_old_pgvector_is_refused(
    bare_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with an older pgvector or Postgres than lookalike needs is refused before anything changes."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "PGVECTOR", (99, 0, 0))
        with pytest.raises(ServiceError, match=r"has pgvector 0\.8\.5; lookalike needs 99\.0\.0 or newer"):
            migrate(bare_database_url, folder)
    with monkeypatch.context() as patch:
        patch.setattr(module, "POSTGRES", 99)
        with pytest.raises(ServiceError, match=r"is PostgreSQL 18\.\d+; lookalike needs 99 or newer"):
            migrate(bare_database_url, folder)
    assert pending(bare_database_url, folder) == list(FILES)


def test_password_is_no_argument_of_dbmate(
    bare_database_url: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password goes to dbmate in its environment, where other users of the machine cannot read it."""
    seen = tmp_path / "seen"
    spy = tmp_path / "dbmate"
    spy.write_text(f'#!/bin/sh\necho "$@" >{seen}\necho "$DATABASE_URL" >>{seen}\n')
    spy.chmod(0o755)
    monkeypatch.setattr(module, "_dbmate", lambda: str(spy))
    migrate(bare_database_url, folder)
    arguments, environment = seen.read_text().splitlines()
    password = str(conninfo_to_dict(bare_database_url)["password"])
    assert (password in arguments, password in environment) == (False, True)


def test_server_that_is_away(folder: Path) -> None:
    """A database that cannot be reached is an error with its address, without its password."""
    with pytest.raises(ServiceError, match=r"postgresql://me:\*\*\*@127\.0\.0\.1:1/x") as caught:
        migrate("postgresql://me:secret@127.0.0.1:1/x", folder)
    assert "secret" not in str(caught.value)


def test_wheel_ships_the_migrations(tmp_path: Path) -> None:
    """The build puts the folder where `migrations_folder` looks first."""
    wheel = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert wheel["force-include"] == {"migrations": "lookalike/migrations"}
    package = tmp_path / "lookalike"
    package.mkdir()
    (package / "sql").mkdir()
    modules = (
        "__init__.py",
        "migrate.py",
        "concurrently.py",
        "database.py",
        "errors.py",
        "reasons.py",
        "rights.py",
        "queries.py",
    )
    for name in (*modules, "sql/rights.sql", "sql/concurrently.sql"):
        shutil.copy(CHECKOUT / "lookalike" / name, package / name)
    (package / "migrations").mkdir()
    found = subprocess.run(
        [sys.executable, "-P", "-c", "from lookalike.migrate import *; print(migrations_folder())"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()) == package / "migrations"
