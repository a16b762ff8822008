"""Gives back what crashed workers held and what the broker lost, and finds the one image that crashes workers."""

import itertools
from dataclasses import dataclass, field, replace

from psycopg.rows import dict_row

from lookalike.ledger import Connection, Lane
from lookalike.queries import load_queries

CRASHES_BEFORE_SPLIT = 2
CRASHES_BEFORE_DEATH = 3
# It counts from the start of Postgres, which takes connections only when it has recovered.
LONG_UP_SECONDS = 600.0

QUERIES = load_queries("ledger")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: messages that nobody took, crashes, and images given up."""

    expired: int = 0
    crashed: int = 0
    dead: list[int] = field(default_factory=list)


def grace(lease_seconds: float) -> float:
    """Seconds that heartbeats get after an outage to renew their leases, before any of these counts as expired."""
    return lease_seconds / 3 + 1


def grace_due(connection: Connection, lease_seconds: float) -> float:
    """Seconds that a new worker waits before it takes a name: living ones lose theirs when Postgres restarts.

    Whoever took such a name would take the chunks of its owner as well. 0 when nobody holds any, or Postgres has been
    up for long.
    """
    row = connection.execute(QUERIES["seconds_up"]).fetchone()
    return 0.0 if row is None or float(str(row[0])) > LONG_UP_SECONDS else grace(lease_seconds)


def sweep(connection: Connection, worker: str | None = None) -> Swept:
    """Gives expired leases back. A chunk that crashed two workers is halved; one image that crashed three is dead.

    A crash of a worker counts for every chunk that it held. Only in the suspect lane, where a worker holds nothing
    else, does it prove anything: whatever crashed twice goes there, and an image can die nowhere else.

    With `worker`, takes back what a worker of this name held, and nothing else: it has just started anew, so it crashed
    before. Of the leases of others it cannot tell whether an outage kept them from being renewed; see `grace_due`.
    """
    expired = connection.execute(QUERIES["expire_queued"]).rowcount if worker is None else 0
    swept = Swept(expired=expired)
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(QUERIES["lock_crashed"], {"worker": worker}).fetchall()
        for row in rows:
            swept = replace(swept, crashed=swept.crashed + 1, dead=swept.dead + _crash(connection, row))
    return swept


def _crash(connection: Connection, row: dict[str, object]) -> list[int]:
    """Decides what becomes of one crashed chunk; returns the images given up."""
    ids = row["ids"]
    if ids is None:
        found = connection.execute(QUERIES["chunk_image_ids"], {"lo": row["lo"], "hi": row["hi"]})
        ids = [image for (image,) in found]
    assert isinstance(ids, list)
    crashes = row["crashes"]
    assert isinstance(crashes, int)
    if len(ids) > 1 and crashes >= CRASHES_BEFORE_SPLIT:
        middle = len(ids) // 2
        for half in (ids[:middle], ids[middle:]):
            connection.execute(
                QUERIES["insert_suspects"],
                {
                    "encoder": row["encoder"],
                    "lane": "suspect" if row["analysis"] is None else row["lane"],
                    "ids": half,
                    "parent": row["id"],
                    "analysis": row["analysis"],
                },
            )
        connection.execute(QUERIES["retire"], {"chunk": row["id"], "state": "split"})
        return []
    if len(ids) == 1 and crashes >= CRASHES_BEFORE_DEATH:
        detail = f"{crashes} workers ended while they worked on it, last {row['worker']}"
        if row["analysis"] is None:
            connection.execute(
                QUERIES["insert_dead"],
                {"encoder": row["encoder"], "image": ids[0], "detail": detail, "crashes": crashes},
            )
        connection.execute(QUERIES["retire"], {"chunk": row["id"], "state": "dead"})
        return [ids[0]]
    connection.execute(QUERIES["crash"], {"chunk": row["id"], "alone": CRASHES_BEFORE_SPLIT})
    return []


def prolong_queued(connection: Connection, encoder: str, lane: Lane, waiting: int, seconds: float) -> None:
    """Keeps the leases of a lane's queued chunks alive while `waiting` messages in the broker cover them all.

    Otherwise a lane without workers would expire and be published again and again, and fill the broker.
    """
    connection.execute(
        QUERIES["prolong_queued"],
        {"encoder": encoder, "lane": lane, "waiting": waiting, "seconds": seconds},
    )


def give_back_queued(connection: Connection, encoder: str | None, lane: Lane | None, remaining: float) -> int:
    """Makes queued chunks pending again whose messages the broker lost, and returns how many.

    `remaining` is the most seconds that their lease may still run: it spares those that were published just now.
    Without `encoder`, chunks of all encoders and lanes.
    """
    return connection.execute(
        QUERIES["give_back_queued"], {"encoder": encoder, "lane": lane, "remaining": remaining}
    ).rowcount


def claim_worker_name(connection: Connection, host: str, before: str | None = None) -> str:
    """Returns a name that no living worker has, `host.1`, `host.2`, …; held as long as the connection lives.

    A worker that starts anew after a crash thereby gets its predecessor's name, and finds what that one held. A worker
    that only lost its connection keeps the name that it had `before`, unless somebody has taken it.
    """
    numbered = (f"{host}.{number}" for number in itertools.count(1))
    for name in itertools.chain([before] if before else [], numbered):
        row = connection.execute(QUERIES["claim_name"], {"name": name}).fetchone()
        assert row is not None
        if row[0]:
            return name
    raise AssertionError("the count never ends")
