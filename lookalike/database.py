"""Connections to Postgres, all made in one way: they know the schema, the vector types and a dead server.

No error and no log line from here ever holds a password.
"""

import logging
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from lookalike.errors import AwayError, ConfigurationError, ServiceError

log = logging.getLogger(__name__)
Connection = psycopg.Connection[tuple[Any, ...]]
Result = TypeVar("Result")

# A server that vanished (power, network, failover) is noticed after a minute, not after the two hours of TCP.
_DEFAULTS: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# SQLSTATEs (Appendix A of the Postgres manual): connection exceptions; shut down, crashed, starting up; disk full, too
# many connections; read only, as a standby is until it has been promoted.
_AWAY = ("08", "57P", "53100", "53300", "25006")
# libpq knows no SQLSTATE of a connection that did not come about, only words: of Postgres, of pgbouncer, of itself.
# Those that are not among these are waited with: of a server that speaks another language, or that nobody thought of.
_LASTING = re.compile(
    r"(?:password |SASL |Peer |Ident |LDAP |certificate |scram\S* )authentication failed|no password supplied"
    r'|(?:database|role|user) ".*" does not exist|no such (?:database|user)|no pg_hba\.conf entry'
    r"|is not permitted to log in|permission denied for database|certificate verify failed"
    r"|server does not support SSL|SSL (?:connection )?(?:is )?required|server certificate for"
    r"|root certificate file|(?:certificate|private key) file|(?:unsupported|unrecognized) (?:startup|configuration)"
    r"|authentication method .* (?:not supported|requirement)|invalid (?:connection option|port number|sslmode)",
    re.IGNORECASE,
)


def connect(database_url: str, *, application_name: str, autocommit: bool = True) -> Connection:
    """Returns a connection that has the vector types registered and `search_path = lookalike, public`.

    `database_url` is a URL or `key=value` string as libpq takes it; what it says of timeouts and keepalives
    wins. In a database that is not migrated yet the vector types are left out. Raises AwayError when the database
    cannot be reached, ServiceError when it refuses us, ConfigurationError when `database_url` cannot be understood.
    """
    parameters = _parameters(database_url, application_name)
    try:
        connection = psycopg.connect(**parameters, autocommit=True)
        try:
            _prepare(connection)
            connection.autocommit = autocommit
        except BaseException:
            connection.close()
            raise
    except psycopg.Error as error:
        kind = ServiceError if _LASTING.search(str(error)) or not is_away(error) else AwayError
        raise kind(f"Postgres at {mask(database_url)}: {describe(error, database_url)}") from None
    return connection


def await_connection(
    database_url: str, *, application_name: str, stop: threading.Event | None = None
) -> Connection:
    """Like `connect`, but waits for a database that is away; see `wait_out`."""
    return wait_out(lambda: connect(database_url, application_name=application_name), stop)


def wait_out(step: Callable[[], Result], stop: threading.Event | None = None) -> Result:
    """Takes a step that needs the database, and takes it again from its beginning as long as the database is away.

    However long that is, with growing pauses; the log says it once, and once that it is back. What waiting does not
    help, such as a wrong password or a missing database, is raised at once. Raises AwayError once `stop` is set.
    """
    stop = stop or threading.Event()
    waiting = Retrying(
        retry=retry_if_exception(is_away),
        wait=wait_random_exponential(0.5, max=10),
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=_log_once,
        reraise=True,
    )
    try:
        result = waiting(step)
    except psycopg.Error as error:
        if is_away(error):
            raise AwayError(f"Postgres: {mask(' '.join(str(error).split()))}") from None
        raise
    if waiting.statistics.get("attempt_number", 1) > 1:
        log.info("the database is back")
    return result


def _log_once(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    level = logging.WARNING if state.attempt_number == 1 else logging.DEBUG
    log.log(level, "%s; waiting until it is back", mask(" ".join(str(error).split())))


def make_pool(
    database_url: str,
    *,
    application_name: str,
    max_size: int,
    min_size: int = 1,
    prepare: Callable[[Connection], None] = lambda _: None,
    check: Callable[[Connection], None] = ConnectionPool.check_connection,
) -> ConnectionPool[Connection]:
    """Returns a closed pool of connections as `connect` makes them, in autocommit mode; `with` opens it.

    A connection is checked before it is lent out: a restarted server costs a reconnection and no error. `prepare` is
    called with every new one; another `check` raises OperationalError for one that is broken.
    """

    def configure(connection: Connection) -> None:
        _prepare(connection)
        prepare(connection)

    return ConnectionPool(
        kwargs={**_parameters(database_url, application_name), "autocommit": True},
        connection_class=Connection,
        configure=configure,
        check=check,
        min_size=min_size,
        max_size=max_size,
        name=application_name,
        # Its pauses double without bound: after a long outage it would go on waiting long after the server is back.
        reconnect_timeout=10,
        open=False,
    )


def is_away(error: BaseException) -> bool:
    """Whether nothing but waiting helps: the server is not there, not ready, full, or not yet writable.

    Other errors are answers of the server to what it was asked, and may be so for ever.
    """
    if isinstance(error, PoolTimeout | AwayError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    # Without a state the server has not said anything: the connection is lost.
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_AWAY)


def with_password(url: str, password: str) -> str:
    """Returns an address of Postgres or of the broker with this password, as it is, unless it has one of its own."""
    if found := re.match(r"([a-z][\w+.-]*://)(?:([^/?#@]*)@)?(.*)", url, re.IGNORECASE | re.DOTALL):
        start, user, rest = found.groups(default="")
        given = ":" in user or re.search(r"[?&]password=", rest)
        return url if given else f"{start}{user}:{quote(password, safe='')}@{rest}"
    with suppress(psycopg.Error):  # whoever connects says what is wrong with it
        return url if "password" in conninfo_to_dict(url) else make_conninfo(url, password=password)
    return url


def mask(url: str) -> str:
    """Returns a URL or `key=value` string (also a broken one) with the passwords in it replaced by ***."""
    # Up to the last @: a password that should have been quoted is hidden in full, at the cost of some host.
    url = re.sub(r"(\b[a-z][\w+.-]*://[^:/?#@\s]*):\S*@", r"\1:***@", url, flags=re.IGNORECASE)
    # What was to be one and lacks its scheme or a slash.
    url = re.sub(r"(?<!\S)(?!\S*://)([^\s:]*):\S*@", r"\1:***@", url)
    return re.sub(r"\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'?|[^\s&']+)", r"\1***", url)


def describe(error: psycopg.Error, database_url: str) -> str:
    """Returns the message of an error in one line, without the password should it quote it."""
    text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return redact(text, str(conninfo_to_dict(database_url).get("password") or ""))


def redact(text: str, password: str) -> str:
    """Returns `text` with `password`, and what looks like one in a URL, replaced by ***."""
    return mask(text.replace(password, "***") if password else text)


def _parameters(database_url: str, application_name: str) -> dict[str, Any]:
    try:
        given = conninfo_to_dict(database_url)
    except psycopg.Error:
        # What libpq says of it may quote any part of it, the password too.
        raise ConfigurationError(f"DATABASE_URL is not a Postgres URL: {mask(database_url)}") from None
    return {**_DEFAULTS, "application_name": application_name, **given}


def _prepare(connection: Connection) -> None:
    # A statement and not the startup parameter `options`, which connection poolers refuse; and in
    # autocommit mode, so that no rollback takes it back.
    connection.execute("set search_path = lookalike, public")
    with suppress(psycopg.ProgrammingError):  # no extension yet: before the first migration
        register_vector(connection)
