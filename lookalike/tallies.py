"""What a stream of events has brought, added up in the table `sources` by all who read it."""

import json
from collections import Counter
from dataclasses import dataclass, field

from lookalike.ledger import Connection, Registered
from lookalike.queries import load_queries

QUERIES = load_queries("tallies")


@dataclass
class Tally:
    """What some messages have brought; `irrelevant` counts those that say nothing of images."""

    registered: Registered = field(default_factory=Registered)
    deleted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    irrelevant: int = 0


def count(connection: Connection, name: str, tally: Tally) -> None:
    """Adds to what a source has announced, in the caller's transaction."""
    registered = tally.registered
    connection.execute(
        QUERIES["count"],
        {
            "name": name,
            "new": registered.new,
            "changed": registered.changed,
            "unchanged": registered.unchanged,
            "gone": registered.gone,
            "deleted": tally.deleted,
            "refused": json.dumps(tally.refused),
            "irrelevant": tally.irrelevant,
        },
    )
