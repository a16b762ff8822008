"""Connections to a real Postgres: they know the vector types, survive a restart, and never tell a password."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from pgvector import HalfVector
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lookalike.database import Connection, await_connection, connect, is_away, make_pool, mask
from lookalike.errors import ConfigurationError, ServiceError


@pytest.mark.parametrize("form", ["url", "key=value"])
@pytest.mark.parametrize("autocommit", [True, False])
def test_connection_knows_schema_and_types(database_url: str, form: str, autocommit: bool) -> None:
    """A connection finds the tables without their schema and returns vectors as vectors, also after a rollback."""
    address = database_url if form == "url" else make_conninfo(**conninfo_to_dict(database_url))
    with connect(address, application_name="a test", autocommit=autocommit) as connection:
        connection.rollback()
        assert connection.autocommit == autocommit
        assert connection.execute("select count(*) from images").fetchone() == (0,)
        assert connection.execute("show application_name").fetchone() == ("a test",)
        assert connection.execute("select '[1,2]'::halfvec").fetchone() == (HalfVector([1, 2]),)


def test_database_before_its_first_migration(bare_database_url: str) -> None:
    """Where pgvector is not installed yet a connection works, without the vector types."""
    with connect(bare_database_url, application_name="test") as connection:
        assert connection.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("state", "away"),
    [
        *[(state, True) for state in ("08006", "57P01", "57P02", "57P03", "53100", "53300", "25006")],
        *[(state, False) for state in ("40P01", "57014", "53200", "22000", "23514")],
    ],
)
def test_a_server_that_is_away_is_told_from_one_that_refuses(
    connection: Connection, state: str, away: bool
) -> None:
    """Shut down, starting, full, without connections or not yet writable: waiting helps. All else is an answer."""
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(f"do $$ begin raise exception 'as if' using errcode = '{state}'; end $$")
    assert is_away(caught.value) == away


def test_a_lost_connection_means_away(connection: Connection, database_url: str) -> None:
    """A connection that was cut, and a server that does not listen, say nothing: waiting helps."""
    with connect(database_url, application_name="test") as other:
        other.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
    with pytest.raises(psycopg.OperationalError) as caught:
        connection.execute("select 1")
    assert is_away(caught.value)
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect("host=127.0.0.1 port=1 connect_timeout=2")
    assert is_away(refused.value)


def test_waiting_for_a_database_ends_when_it_comes_or_is_called_off(
    server_url: str, database_url: str, connection: Connection
) -> None:
    """A database that takes no connections is waited for; whoever sets `stop` gets its error instead."""
    name = sql.Identifier(connection.info.dbname)
    with connect(server_url, application_name="test") as admin, ThreadPoolExecutor() as pool:
        admin.execute(sql.SQL("alter database {} allow_connections false").format(name))
        stop = threading.Event()
        called_off = pool.submit(await_connection, database_url, application_name="test", stop=stop)
        waiting = pool.submit(await_connection, database_url, application_name="test")
        time.sleep(0.5)
        assert not called_off.done()
        stop.set()
        with pytest.raises(ServiceError):
            called_off.result(10)
        admin.execute(sql.SQL("alter database {} allow_connections true").format(name))
        waiting.result(20).close()


def test_pool_survives_a_lost_connection(database_url: str) -> None:
    """A pool whose connection was ended by the server lends out a new one that knows as much."""
    with make_pool(database_url, application_name="test pool", max_size=2) as pool:
        with pool.connection() as connection:
            pid = connection.info.backend_pid
        with connect(database_url, application_name="test") as other:
            other.execute("select pg_terminate_backend(%s, 5000)", [pid])
        with pool.connection() as connection:
            assert connection.info.backend_pid != pid
            assert connection.autocommit
            assert connection.execute("select '[1]'::halfvec from images").fetchall() == []
            assert connection.execute("select '[1]'::halfvec").fetchone() == (HalfVector([1]),)


def test_errors_name_the_server_and_hide_the_password(database_url: str) -> None:
    """A refused login says where and why, without the password that was tried."""
    wrong = make_conninfo(database_url, password="hunter2 hunter2")
    with pytest.raises(ServiceError, match="password authentication failed") as caught:
        connect(wrong, application_name="test")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    missing = make_conninfo(database_url, dbname="nowhere")
    with pytest.raises(ServiceError, match='database "nowhere" does not exist'):
        connect(missing, application_name="test")


def test_address_that_makes_no_sense() -> None:
    """A DATABASE_URL that cannot be parsed is refused without quoting its password."""
    with pytest.raises(ConfigurationError) as caught:
        connect("postgresql://me:p@ss/word@host:port/x?secret", application_name="test")
    assert "ss/word" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        (
            "postgresql://me:pw@host:5432/db?sslmode=require",
            "postgresql://me:***@host:5432/db?sslmode=require",
        ),
        ("postgresql://me:p/w@x:y@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db?password=p%20w&x=1", "postgresql://me@host/db?password=***&x=1"),
        ("postgresql://host/db?sslpassword=pw", "postgresql://host/db?sslpassword=***"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
        (r"host=h password = 'p \' w' dbname=d", "host=h password = *** dbname=d"),
        ("redis://:pw@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://me:pw@host:6379/0", "rediss://me:***@host:6379/0"),
        ("postgres//me:pw@host/db", "postgres//me:***@host/db"),
        ("at :pw@host, port 1: me@host", "at :***@host, port 1: me@host"),
    ],
)
def test_mask(address: str, masked: str) -> None:
    """Passwords of URLs and key=value strings become ***, everything else stays readable."""
    assert mask(address) == masked


def test_database_url_may_set_its_own_timeouts(database_url: str) -> None:
    """What an address says of timeouts wins over the defaults."""
    with connect(f"{database_url}&connect_timeout=3", application_name="test") as connection:
        parameters = connection.info.get_parameters()
        assert (parameters["connect_timeout"], parameters["keepalives_idle"]) == ("3", "30")
    assert isinstance(connection, psycopg.Connection)
