"""Gives the programs and the analysts their logins, on servers where nobody can run infra/postgres/logins.sh.

Safe to repeat: a repetition gives the logins the passwords that the settings have now. No password reaches the server
in clear, where the log of statements would keep it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from pydantic import SecretStr

from lookalike.database import Connection, describe
from lookalike.errors import ConfigurationError, ServiceError
from lookalike.queries import load_queries
from lookalike.settings import Settings

QUERIES = load_queries("logins")


@dataclass(frozen=True, slots=True)
class Login:
    """A login: its name, the setting with its password, and the statements that say what it may do."""

    name: str
    setting: str
    statements: Sequence[str]


# The rights are those of docs/access.md. Analysts share theirs until each has one of their own.
LOGINS = (
    Login("orchestrator", "orchestrator_password", ("join_programs", "become_owner")),
    Login("worker", "worker_password", ("join_programs",)),
    Login("explorer", "explorer_password", ("join_programs",)),
    Login("analysts", "analyst_password", ("join_analysts", "find_schema", "limit_time")),
)


def chosen_passwords(settings: Settings) -> dict[str, SecretStr]:
    """The passwords in the settings, by the names of the logins. Raises ConfigurationError when there are none."""
    given = {login.name: getattr(settings, login.setting) for login in LOGINS}
    found = {name: password for name, password in given.items() if password is not None}
    if not found:
        wanted = ", ".join(f"LOOKALIKE_{login.setting.upper()}" for login in LOGINS)
        raise ConfigurationError(f"no login has a password: set some of {wanted}")
    return found


def give_logins(connection: Connection, passwords: Mapping[str, SecretStr]) -> list[str]:
    """Makes each of these logins, or gives it this password; returns their names.

    For an administrator of the database, after `migrate`. Raises ServiceError when the connection's login may not.
    """
    logins = [login for login in LOGINS if login.name in passwords]
    try:
        with connection.transaction():
            for login in logins:
                _give(connection, login, passwords[login.name].get_secret_value())
    except psycopg.Error as error:
        raise ServiceError(
            f"logins: {describe(error, '')}; it takes an administrator with CREATEROLE who made the roles"
            " lookalike_owner, lookalike_app and analyst (`lookalike migrate` as this user), or a superuser"
        ) from None
    return [login.name for login in logins]


def _give(connection: Connection, login: Login, password: str) -> None:
    name = login.name.encode()
    verifier = connection.pgconn.encrypt_password(password.encode(), name, b"scram-sha-256").decode()
    if connection.execute(QUERIES["is_known"], {"name": login.name}).fetchone() == (False,):
        _execute(connection, "create", login)
    _execute(connection, "set_password", login, verifier)
    for statement in login.statements:
        _execute(connection, statement, login)


def _execute(connection: Connection, query: str, login: Login, verifier: str = "") -> None:
    # Postgres takes no parameters in these statements.
    statement = sql.SQL(QUERIES[query])
    connection.execute(statement.format(login=sql.Identifier(login.name), verifier=sql.Literal(verifier)))
