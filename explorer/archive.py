"""The explorer's connections to Postgres: a pool that opens by itself, waits for a database that is away, and never
holds up the process for it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated
from weakref import WeakKeyDictionary

from fastapi import Depends, Request
from psycopg import sql
from psycopg.errors import Error
from psycopg_pool import ConnectionPool, PoolTimeout

from lookalike.contract import check_contract
from lookalike.database import Connection, make_pool
from lookalike.errors import LookalikeError, ServiceError
from lookalike.search import active_encoder
from lookalike.settings import Settings

# A reader waits so long for a connection, then hears that the database is away or busy.
WAIT_SECONDS = 3.0
# A connection that was used so lately is taken to be whole: to ask costs a tenth of a search.
FRESH_SECONDS = 1.0
# To take an example back, a set of unwanted images is searched for anew.
DECISION_SECONDS = 120.0
# What a search for words remembers of the index: rows of images, not whole pages, whose titles would all be read again.
WORK_MEMORY = "32MB"
# The active encoder is asked for so often: who activates another one sees it this much later.
ENCODER_SECONDS = 5.0


class Archive:
    """What handlers ask for connections."""

    def __init__(self, settings: Settings, database_url: str) -> None:
        self._seconds = settings.explorer_seconds
        self._pool = make_pool(
            database_url,
            application_name="lookalike explorer",
            max_size=settings.explorer_connections,
            prepare=partial(_prepare, seconds=self._seconds),
            check=self._check,
        )
        self._used: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._encoder = ""
        self._encoder_until = 0.0

    def _check(self, connection: Connection) -> None:
        """Asks the server whether it is there, unless this connection has just been used."""
        now = time.monotonic()
        if now > self._used.get(connection, 0) + FRESH_SECONDS:
            ConnectionPool.check_connection(connection)
        self._used[connection] = now

    def open(self) -> None:
        """Begins to connect, and goes on doing so while the database is away."""
        self._pool.open(wait=False)

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in autocommit mode for the time of the block. Raises ServiceError when none can be had."""
        with self._lend() as connection:
            yield connection

    @contextmanager
    def deciding(self) -> Iterator[Connection]:
        """A connection for what changes something, which may take longer than a reader would wait."""
        with self._lend() as connection:
            _limit(connection, DECISION_SECONDS)
            try:
                yield connection
            finally:
                if not connection.closed:
                    _limit(connection, self._seconds)

    @contextmanager
    def _lend(self) -> Iterator[Connection]:
        try:
            connection = self._pool.getconn(WAIT_SECONDS)
        except PoolTimeout:
            raise ServiceError("the database is away, or too much is asked of it: try again later") from None
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def encoder(self, connection: Connection) -> str:
        """The encoder that searches use, as of a moment ago. Raises UnknownEncoderError in an empty archive."""
        now = time.monotonic()
        if now > self._encoder_until:
            self._encoder, self._encoder_until = active_encoder(connection), now + ENCODER_SECONDS
        return self._encoder

    def fault(self) -> str | None:
        """Why the database cannot be read, or None: it can."""
        try:
            with self.reading() as connection:
                check_contract(connection)
        except LookalikeError as error:
            return str(error)
        except Error as error:
            return f"Postgres: {type(error).__name__}"
        return None


def _prepare(connection: Connection, seconds: float) -> None:
    """Sets what a connection keeps to."""
    _limit(connection, seconds)
    connection.execute(sql.SQL("set work_mem = {}").format(sql.Literal(WORK_MEMORY)))


def _limit(connection: Connection, seconds: float) -> None:
    """Sets how long a statement may take on this connection."""
    connection.execute(
        sql.SQL("set statement_timeout = {}").format(sql.Literal(f"{round(seconds * 1000)}ms"))
    )


def archive_of(request: Request) -> Archive:
    """The archive of the app that is asked."""
    archive: Archive = request.app.state.archive
    return archive


async def _archive(request: Request) -> Archive:
    """As a coroutine: a plain function would take a thread for nothing."""
    return archive_of(request)


AnArchive = Annotated[Archive, Depends(_archive)]
