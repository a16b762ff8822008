"""Keeps the thumbnails that were made of a chunk's images, after the chunk is settled. It never fails a chunk.

What is missed, be it that the database or the bucket is away, is logged and counted; `lookalike thumbnails make` makes
it good.
"""

import logging
from collections.abc import Callable, Collection, Sequence

from psycopg_pool import ConnectionPool

from lookalike.database import Connection
from lookalike.ledger import ChunkImage
from lookalike.thumbnails import Cache, Thumbnail
from workers.thumbnail import missed

log = logging.getLogger(__name__)

# Longer it waits for no connection: the next chunk matters more.
CONNECTION_SECONDS = 5.0


class Keeper:
    """What a worker does about thumbnails; without a cache, nothing. May be used from any thread."""

    def __init__(self, cache: Cache | None, pool: ConnectionPool[Connection]) -> None:
        self._cache = cache
        self._pool = pool

    def wanted(self, images: Sequence[ChunkImage]) -> Collection[int]:
        """The ids of the images of which to make one."""
        if self._cache is None:
            return ()
        try:
            with self._pool.connection(CONNECTION_SECONDS) as connection:
                return self._cache.wanted(connection, images)
        except Exception as error:
            _miss(len(images), error)
            return ()

    def keep(self, made: Callable[[], Sequence[Thumbnail]]) -> None:
        """Stores the thumbnails that were made."""
        if self._cache is None:
            return
        thumbnails = made()
        try:
            with self._pool.connection(CONNECTION_SECONDS) as connection:
                self._cache.store(connection, thumbnails)
        except Exception as error:
            _miss(len(thumbnails), error)


def _miss(number: int, error: Exception) -> None:
    """Whatever a database, a file system or a bucket raises: it must not matter to the images."""
    said = " ".join(str(error).split())[:300]
    log.warning("%d thumbnails are not kept: %s: %s", number, type(error).__name__, said)
    missed.add(number)
