"""Connections to Postgres, all made in one way: they know the schema, the vector types and a dead server.

No error and no log line from here ever holds a password.
"""

import logging
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool, PoolTimeout
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from lookalike.errors import ConfigurationError, ServiceError

log = logging.getLogger(__name__)
Connection = psycopg.Connection[tuple[Any, ...]]

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


def connect(database_url: str, *, application_name: str, autocommit: bool = True) -> Connection:
    """Returns a connection that has the vector types registered and `search_path = lookalike, public`.

    `database_url` is a URL or `key=value` string as libpq takes it; what it says of timeouts and keepalives
    wins. In a database that is not migrated yet the vector types are left out. Raises ServiceError when the
    database cannot be reached, ConfigurationError when `database_url` cannot be understood.
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
        raise ServiceError(f"Postgres at {mask(database_url)}: {describe(error, database_url)}") from None
    return connection


def await_connection(
    database_url: str, *, application_name: str, stop: threading.Event | None = None
) -> Connection:
    """Like `connect`, but waits for a database that is away, however long, with growing pauses; says so in the log.

    Raises ServiceError once `stop` is set; ConfigurationError as `connect` does.
    """
    stop = stop or threading.Event()
    for attempt in Retrying(
        retry=retry_if_exception_type(ServiceError),
        wait=wait_random_exponential(0.5, max=10),
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=_log_pause,
        reraise=True,
    ):
        with attempt:
            return connect(database_url, application_name=application_name)
    raise AssertionError("tenacity returns or raises")


def _log_pause(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s; trying again in %.1f s", error, state.upcoming_sleep)


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
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    # Without a state the server has not said anything: the connection is lost.
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_AWAY)


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
