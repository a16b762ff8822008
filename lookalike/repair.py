"""Mends what an audit found, inside the audit's transaction: queues images again, deletes what belongs to nothing.

Each step looks again before it deletes, and to queue an image once too often costs nothing: a worker passes over
images that have their vector.
"""

from collections.abc import Mapping, Sequence

from psycopg import sql

from lookalike import deletion, sweeping
from lookalike.faults import Fault
from lookalike.images import Removal
from lookalike.ledger import Connection, insert_chunks
from lookalike.queries import load_queries

QUERIES = load_queries("audit")

# What is deleted of each fault, and whether its images are queued.
_DELETED: dict[Fault, tuple[str | None, bool]] = {
    Fault.LOST: (None, True),
    Fault.OUTDATED: (None, True),
    Fault.TWICE: ("delete_doubled_failures", False),
    Fault.FUTURE_VECTOR: ("delete_vectors", True),
    Fault.FUTURE_FAILURE: ("delete_failures", True),
    Fault.STRAY_VECTOR: ("delete_stray_vectors", False),
    Fault.STRAY_FAILURE: ("delete_stray_failures", False),
    Fault.STRAY_LABEL: ("delete_stray_labels", False),
    Fault.STRAY_MEMBER: ("delete_stray_members", False),
    Fault.WRONG_DIMENSION: ("delete_vectors", True),
    Fault.NOT_FINITE: ("delete_vectors", True),
    Fault.NOT_UNIT: ("delete_vectors", True),
    Fault.WRONG_CODE: ("delete_vectors", True),
    Fault.NO_CHECKSUM: ("delete_vectors", True),
}


def repair_images(
    connection: Connection,
    encoder: str,
    vectors: sql.Identifier,
    faults: Mapping[Fault, Sequence[int]],
    chunk_size: int,
) -> None:
    """Repairs the faults of these images, in the caller's transaction, which holds off deletions."""
    queued: set[int] = set()
    for fault, ids in faults.items():
        deleted, queue = _DELETED[fault]
        if deleted is not None:
            connection.execute(
                sql.SQL(QUERIES[deleted]).format(vectors=vectors), {"encoder": encoder, "ids": list(ids)}
            )
        if queue:
            queued.update(ids)
    insert_chunks(connection, encoder, "backfill", sorted(queued), chunk_size)


def give_back_leases(connection: Connection) -> None:
    """Does what the sweep does: nobody has done it for long."""
    sweeping.sweep(connection)


def delete_again(connection: Connection, key: str, as_of: str, by_hand: bool) -> None:
    """Finishes the deletion of an image that was said to be gone."""
    deletion.remove(connection, Removal(key=key, as_of=as_of), by_hand=by_hand)
