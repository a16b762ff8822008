"""The books: what is done, failed and open for each encoder, whether that balances, and failures given another try."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row, scalar_row

from lookalike.errors import UnknownEncoderError
from lookalike.ledger import insert_chunks
from lookalike.queries import load_queries
from lookalike.reasons import Reason

Connection = psycopg.Connection[tuple[object, ...]]
QUERIES = load_queries("books")


@dataclass(frozen=True, slots=True)
class Books:
    """Every registered image counted once for one encoder; `lost` must be 0.

    `faults` must be 0 as well: what else can be counted quickly, and what the latest audit found and nobody repaired.
    `awaited` are manifests that are still to be read: nobody knows yet how many images they show.
    """

    registered: int
    done: int
    failed: int
    open: int
    lost: int
    faults: int = 0
    awaited: int = 0

    @property
    def balanced(self) -> bool:
        return self.lost == 0 and self.faults == 0 and self.registered == self.done + self.failed + self.open

    @property
    def complete(self) -> bool:
        """Nothing is open or awaited, nothing is lost, and nothing else is wrong that we know of."""
        return self.balanced and self.open == 0 and self.awaited == 0


@dataclass(frozen=True, slots=True)
class FailedImage:
    """A failure as people read it."""

    image: str
    reason: str
    detail: str
    attempts: int
    failed_at: datetime
    url: str


def encoder_names(connection: Connection) -> list[str]:
    """The encoders of the archive, the active one first; without those that are being taken out."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return [row["name"] for row in cursor.execute(QUERIES["encoders"])]


def count_books(connection: Connection, encoder: str) -> Books:
    """Counts exactly, in one pass over images and vectors. Raises UnknownEncoderError."""
    statement = sql.SQL(QUERIES["books"]).format(vectors=sql.Identifier(vectors_table(connection, encoder)))
    with connection.cursor(row_factory=class_row(Books)) as cursor:
        books = cursor.execute(statement, {"encoder": encoder}).fetchone()
    assert books is not None
    return books


def count_reasons(connection: Connection, encoder: str) -> dict[str, int]:
    """Failures by reason, most frequent first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(QUERIES["reasons"], {"encoder": encoder})
        return {row["reason"]: row["count"] for row in rows}


def count_chunks(connection: Connection, encoder: str) -> list[tuple[str, str, int]]:
    """Unfinished chunks as (lane, state, count)."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(QUERIES["chunks"], {"encoder": encoder})
        return [(row["lane"], row["state"], row["count"]) for row in rows]


def is_finished(connection: Connection, encoder: str) -> bool:
    """Whether no chunk is left to do. Cheap: it does not look at images."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES["unfinished"], {"encoder": encoder}).fetchone() == 0


def count_left(connection: Connection, encoder: str) -> int:
    """Images in unfinished chunks. Cheap: it counts by the sizes of the chunks."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES["left"], {"encoder": encoder}).fetchone() or 0


def count_last_minute(connection: Connection, encoder: str) -> int:
    """Images in chunks that were finished within the last minute."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES["rate"], {"encoder": encoder}).fetchone() or 0


def count_images(connection: Connection) -> int:
    """Registered images."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute("select count(*) from images").fetchone() or 0


def list_failures(
    connection: Connection, encoder: str, reasons: Sequence[Reason] | None = None, limit: int = 100
) -> list[FailedImage]:
    """Failed images, the latest first. Raises UnknownEncoderError."""
    vectors_table(connection, encoder)
    with connection.cursor(row_factory=class_row(FailedImage)) as cursor:
        return cursor.execute(
            QUERIES["failures"],
            {"encoder": encoder, "reasons": _codes(reasons), "limit": limit},
        ).fetchall()


def retry(
    connection: Connection,
    encoder: str,
    chunk_size: int,
    reasons: Sequence[Reason] | None = None,
    keys: Sequence[str] | None = None,
) -> int:
    """Makes failed images pending again, those of these reasons and keys (None: all). Returns how many.

    Raises UnknownEncoderError.
    """
    vectors_table(connection, encoder)
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        ids: list[int] = cursor.execute(
            QUERIES["retry"],
            {
                "encoder": encoder,
                "reasons": _codes(reasons),
                "keys": list(keys) if keys is not None else None,
            },
        ).fetchall()
        insert_chunks(connection, encoder, "backfill", sorted(ids), chunk_size)
    return len(ids)


def _codes(reasons: Sequence[Reason] | None) -> list[str] | None:
    return None if reasons is None else [str(reason) for reason in reasons]


def vectors_table(connection: Connection, encoder: str) -> str:
    """The name of the table of an encoder's vectors. Raises UnknownEncoderError, which names those there are."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        table: str | None = cursor.execute(
            "select vectors from encoders where name = %s and leaving_at is null", [encoder]
        ).fetchone()
    if table is None:
        known = ", ".join(encoder_names(connection)) or "none yet"
        raise UnknownEncoderError(f"the archive has no vectors of {encoder!r}; it has: {known}")
    return table
