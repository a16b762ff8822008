"""How far each source has been read, and what it has announced: a row in the table `sources`.

The position is committed with the images before it: a reader that was killed goes on where its last batch ended.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg.rows import dict_row

from lookalike import ledger
from lookalike.errors import SourceError
from lookalike.images import Position, Refused
from lookalike.ledger import Connection
from lookalike.queries import load_queries
from lookalike.reasons import Reason

QUERIES = load_queries("sources")
EXAMPLES = 10
# Reasons whose details are a few fixed words (a status of access, a kind of medium), which are counted as well.
_WITH_WORDS = frozenset({Reason.NOT_OPEN, Reason.NO_IMAGE})


@dataclass
class Intake:
    """What became of a source's announcements so far; `irrelevant` are messages that say nothing of images, `awaited`
    manifests that could not be read yet.
    """

    registered: ledger.Registered = field(default_factory=ledger.Registered)
    deleted: int = 0
    awaited: int = 0
    irrelevant: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    examples: list[Refused] = field(default_factory=list)

    def refuse(self, refusal: Refused) -> None:
        """Counts a refusal and keeps the first few to show."""
        self.refused[str(refusal.reason)] += 1
        if refusal.reason in _WITH_WORDS:
            self.words[f"{refusal.reason}: {refusal.detail}"] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(refusal)

    def add(self, other: "Intake") -> None:
        """Adds what another intake has counted."""
        self.registered += other.registered
        self.deleted += other.deleted
        self.awaited += other.awaited
        self.irrelevant += other.irrelevant
        self.refused += other.refused
        self.words += other.words
        self.examples += other.examples[: EXAMPLES - len(self.examples)]

    def __add__(self, other: "Intake") -> "Intake":
        total = Intake()
        total.add(self)
        total.add(other)
        return total


@dataclass(frozen=True)
class Begun:
    """A source that is being read: its position (None: its beginning) and what it has announced before that.

    A stream `is_followed` once it was read to its end: what it brings since then is new.
    """

    position: Position | None
    intake: Intake
    is_followed: bool = False


@contextmanager
def holding(connection: Connection, name: str) -> Iterator[None]:
    """Keeps everybody else from reading the source, for the time of the block. Raises SourceError when one does."""
    (held,) = connection.execute(QUERIES["lock"], {"name": name}).fetchone() or (False,)
    if not held:
        raise SourceError(f"{name} is being read by another process: let it, or stop that first")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(QUERIES["unlock"], {"name": name})


def begin(connection: Connection, name: str, anew: bool) -> Begun:
    """Begins a source, or goes on with one that was not read to its end; `anew` from its beginning in any case.

    A stream that was read to its end goes on behind what is known of it, too.
    """
    row = None if anew else _select(connection, name)
    if row is None or row["ended_at"] is not None:
        connection.execute(QUERIES["begin"], {"name": name, "anew": anew})
        return Begun(row and row["position"], Intake(), row is not None and row["followed_at"] is not None)
    registered = ledger.Registered(row["new"], row["changed"], row["unchanged"], row["gone"])
    refused = Counter[str](row["refused"])
    intake = Intake(registered, row["deleted"], refused=refused)
    return Begun(row["position"], intake, row["followed_at"] is not None)


def has_ended(connection: Connection, name: str) -> bool:
    """Whether the source has been read to its end, and is no stream."""
    row = _select(connection, name)
    return row is not None and row["ended_at"] is not None and row["position"] is None


def record(connection: Connection, name: str, intake: Intake, position: Position | None) -> None:
    """Keeps what was announced and where to go on, in the caller's transaction."""
    connection.execute(
        QUERIES["record"],
        {**_counts(name, intake), "position": None if position is None else json.dumps(position)},
    )


def add(connection: Connection, name: str, intake: Intake) -> None:
    """Adds to what a queue has brought, which several may read, in the caller's transaction."""
    connection.execute(QUERIES["add"], {**_counts(name, intake), "irrelevant": intake.irrelevant})


def _counts(name: str, intake: Intake) -> dict[str, object]:
    registered = intake.registered
    return {
        "name": name,
        "new": registered.new,
        "changed": registered.changed,
        "unchanged": registered.unchanged,
        "gone": registered.gone,
        "deleted": intake.deleted,
        "refused": json.dumps(intake.refused),
    }


def end(connection: Connection, name: str, lasting: bool) -> None:
    """The source was read to its end. The position of a stream is `lasting`, others begin anew the next time."""
    connection.execute(QUERIES["end"], {"name": name, "lasting": lasting})


def fail(connection: Connection, name: str, error: Exception) -> None:
    """Keeps why a source broke off, for people to see."""
    connection.execute(QUERIES["fail"], {"name": name, "error": str(error)[:1000]})


def list_sources(connection: Connection) -> list[dict[str, Any]]:
    """All sources with their counts, those that are being read first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES["list"]).fetchall()


def _select(connection: Connection, name: str) -> dict[str, Any] | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES["select"], {"name": name}).fetchone()
