"""`lookalike migrate --logins` as on a managed Postgres: by an administrator who is no superuser."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import InsufficientPrivilege
from pydantic import SecretStr

from lookalike import logins
from lookalike.database import Connection, connect
from lookalike.errors import ConfigurationError, ServiceError
from lookalike.logins import Login, chosen_passwords, give_logins
from lookalike.migrate import migrate
from lookalike.settings import Settings

ROOT = Path(__file__).parents[2]
PASSWORDS = {
    "orchestrator": SecretStr("o' \"@:/"),
    "worker": SecretStr("w"),
    "explorer": SecretStr("e"),
    "analysts": SecretStr("a"),
}
_numbers = itertools.count()


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch, server_url: str) -> Iterator[dict[str, str]]:
    """Logins are of the whole server: those of this test have names of their own, and go with it."""
    number = next(_numbers)
    names = {login.name: f"{login.name}_{os.getpid()}_{number}" for login in logins.LOGINS}
    mine = [Login(names[login.name], login.setting, login.statements) for login in logins.LOGINS]
    monkeypatch.setattr(logins, "LOGINS", mine)
    yield names
    with psycopg.connect(server_url, autocommit=True) as admin:
        for name in names.values():
            admin.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))


@pytest.fixture
def given(connection: Connection, own_names: dict[str, str]) -> dict[str, SecretStr]:
    """The passwords of the logins, which have been given."""
    passwords = {own_names[name]: password for name, password in PASSWORDS.items()}
    assert give_logins(connection, passwords) == list(passwords)
    return passwords


def enter(database_url: str, name: str, passwords: dict[str, SecretStr]) -> Connection:
    url = make_conninfo(database_url, user=name, password=passwords[name].get_secret_value())
    return connect(url, application_name="test")


def test_each_login_has_its_password_and_its_rights(
    database_url: str, own_names: dict[str, str], given: dict[str, SecretStr]
) -> None:
    """Programs write rows, the orchestrator may become the owner and the others not, analysts read within a minute."""
    for name in ("orchestrator", "worker", "explorer"):
        with enter(database_url, own_names[name], given) as connection:
            connection.execute("delete from images")
            if name == "orchestrator":
                connection.execute("set role lookalike_owner")
            else:
                with pytest.raises(InsufficientPrivilege):
                    connection.execute("set role lookalike_owner")
    with enter(database_url, own_names["analysts"], given) as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("1min",)
        connection.execute("select from images")
        with pytest.raises(InsufficientPrivilege):
            connection.execute("delete from images")


def test_repetition_changes_the_passwords(
    database_url: str, connection: Connection, own_names: dict[str, str], given: dict[str, SecretStr]
) -> None:
    """A second time is no error; the login has the new password and no longer the old one, others are left alone."""
    changed = {own_names["worker"]: SecretStr("new")}
    assert give_logins(connection, changed) == [own_names["worker"]]
    enter(database_url, own_names["worker"], changed).close()
    enter(database_url, own_names["explorer"], given).close()
    stored = connection.execute(
        "select rolpassword from pg_authid where rolname = %s", [own_names["worker"]]
    ).fetchone()
    assert stored is not None
    assert stored[0].startswith("SCRAM-SHA-256$4096:")


def test_an_administrator_without_superuser_can_do_it(
    server_url: str, template_database: str, bare_database_url: str, own_names: dict[str, str]
) -> None:
    """As on RDS: a login with CREATEROLE that owns the database migrates it and gives logins; another may not."""
    database = conninfo_to_dict(bare_database_url)["dbname"]
    name = f"admin_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login createrole password 'x'").format(sql.Identifier(name)))
        for role in ("lookalike_owner", "lookalike_app", "analyst"):
            # The one who makes a role has these; here another test may have made it before.
            admin.execute(
                sql.SQL("grant {} to {} with admin option").format(sql.Identifier(role), sql.Identifier(name))
            )
        admin.execute(
            sql.SQL("alter database {} owner to {}").format(sql.Identifier(database), sql.Identifier(name))
        )
    with psycopg.connect(bare_database_url, autocommit=True) as admin:
        admin.execute("create extension vector")  # which RDS lets its administrators do
    url = make_conninfo(bare_database_url, user=name, password="x")
    passwords = {own_names[key]: password for key, password in PASSWORDS.items()}
    try:
        assert migrate(url, advise=pytest.fail) != []
        with connect(url, application_name="test") as connection:
            assert give_logins(connection, passwords) == list(passwords)
        with psycopg.connect(server_url, autocommit=True) as admin:
            for login in own_names.values():
                admin.execute(sql.SQL("drop role {}").format(sql.Identifier(login)))
            admin.execute(sql.SQL("alter role {} nocreaterole").format(sql.Identifier(name)))
        with (
            connect(url, application_name="test") as connection,
            pytest.raises(ServiceError, match="it takes an administrator with CREATEROLE"),
        ):
            give_logins(connection, passwords)
    finally:
        with psycopg.connect(make_conninfo(server_url, dbname=database), autocommit=True) as admin:
            admin.execute(sql.SQL("reassign owned by {} to current_user").format(sql.Identifier(name)))
            admin.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_the_command_says_what_it_gave(server_url: str, database_url: str, tmp_path: Path) -> None:
    """`migrate --logins --json` names the logins that it gave, and no password."""
    command = [sys.executable, "-m", "cli.main", "migrate", "--logins", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")}
    environment |= {
        "DATABASE_URL": database_url,
        "BROKER_URL": "redis://127.0.0.1:1",
        "PYTHONPATH": str(ROOT),
    }
    with psycopg.connect(server_url, autocommit=True) as admin:
        known = admin.execute("select to_regrole('explorer') is not null").fetchone() == (True,)
        try:
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env=environment | {"LOOKALIKE_EXPLORER_PASSWORD": "not to be said"},
                capture_output=True,
                text=True,
                check=True,
            )
            assert json.loads(done.stdout) == {
                "applied": [],
                "built": [],
                "advice": [],
                "logins": ["explorer"],
            }
            assert "not to be said" not in done.stdout + done.stderr
        finally:
            if not known:
                admin.execute("drop role if exists explorer")


def test_no_password_is_an_error() -> None:
    """Settings without any password are not taken for a wish to do nothing."""
    with pytest.raises(ConfigurationError, match="LOOKALIKE_ANALYST_PASSWORD"):
        chosen_passwords(Settings(_env_file=None))
    assert list(chosen_passwords(Settings(_env_file=None, worker_password="x"))) == ["worker"]
