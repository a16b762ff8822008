"""The kinds of analyses, and what has to be done when all chunks of one are done."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import psycopg
from psycopg.rows import class_row

from lookalike import clusters, duplicates
from lookalike.analyses import QUERIES, Analysis, Kind, TurnedVectors
from lookalike.ledger import ChunkImage

log = logging.getLogger(__name__)
Connection = psycopg.Connection[tuple[Any, ...]]


class KindModule(Protocol):
    """What a kind knows how to do."""

    def find(
        self, connection: Connection, analysis: Analysis, images: Sequence[ChunkImage], turned: TurnedVectors
    ) -> Any:
        """Works on the images of a chunk, outside of any transaction."""

    def store(
        self, connection: Connection, analysis: Analysis, images: Sequence[ChunkImage], found: Any
    ) -> None:
        """Writes what was found, in the transaction that finishes the chunk."""

    def settle(self, connection: Connection, analysis: Analysis) -> bool:
        """Sums up when all chunks are done, in a transaction of its own; again when more have followed.

        False when it is too early to sum up again: it will be asked later.
        """


KINDS: dict[Kind, KindModule] = {"duplicates": duplicates, "clusters": clusters}


def settle(connection: Connection) -> list[Analysis]:
    """Sums up the analyses of which no chunk is left to do, each by one process alone. Returns them."""
    with connection.cursor(row_factory=class_row(Analysis)) as cursor:
        waiting = cursor.execute(QUERIES["unsettled"]).fetchall()
    return [analysis for analysis in waiting if _try(connection, analysis)]


def _try(connection: Connection, analysis: Analysis) -> bool:
    """One that fails must not hold up the others."""
    try:
        return _settle(connection, analysis)
    except psycopg.OperationalError:
        raise
    except Exception:
        log.exception(
            "analysis %d, the %s of %s, cannot be summed up", analysis.id, analysis.kind, analysis.encoder
        )
        return False


def _settle(connection: Connection, analysis: Analysis) -> bool:
    with connection.transaction():
        if connection.execute(QUERIES["claim"], {"analysis": analysis.id}).rowcount == 0:
            return False
        # now() is the beginning of this transaction: what is done meanwhile asks for another summary.
        settled = KINDS[analysis.kind].settle(connection, analysis)
        if settled:
            connection.execute(QUERIES["settled"], {"analysis": analysis.id})
    return settled
