"""How much work waits for the workers of an encoder, and how it goes: fleets are scaled and watched by these figures.

Cheap enough to be asked for every minute, in an archive of any size. The books, which are exact, are not.
"""

from dataclasses import dataclass

from psycopg.rows import class_row

from lookalike.database import Connection
from lookalike.queries import load_queries

QUERIES = load_queries("backlog")


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits and what was done: counts of images, seconds, and workers whose heartbeats come.

    `images` are to be embedded, `analysed` compared or clustered.
    """

    images: int
    analysed: int
    oldest_event: float
    last_minute: int
    last_hour: int
    failed_last_hour: int
    workers: int

    @property
    def failed_share(self) -> float:
        """The share of the last hour's images that failed, 0..1."""
        return min(1.0, self.failed_last_hour / self.last_hour) if self.last_hour else 0.0


def measure(connection: Connection, encoder: str) -> Backlog:
    """The backlog of an encoder, as of now."""
    with connection.cursor(row_factory=class_row(Backlog)) as cursor:
        found = cursor.execute(QUERIES["measure"], {"encoder": encoder}).fetchone()
    assert found is not None
    return found
