"""Deletes images: out of every search at once, and remembered, so that a late announcement does not bring them back.

A deletion waits for the registrations and chunks that are being committed, and they for it: an image cannot come back
through work that had begun before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import scalar_row

from lookalike import groups, ledger
from lookalike.images import Image, Removal
from lookalike.ledger import Connection
from lookalike.queries import load_queries

QUERIES = load_queries("deletion")
DUPLICATES = load_queries("duplicates")

# In the order that foreign keys ask for; what refers to images by their ids.
_REFERENCES = (
    "delete_labels",
    "delete_failures",
    "delete_thumbnails",
    "delete_map_points",
    "delete_unwanted",
    "leave_examples",
    "delete_clustered",
)


@dataclass(frozen=True, slots=True)
class Restored:
    """How many deletions were forgotten, and how many of these images are registered again."""

    forgotten: int
    registered: int


def remove(
    connection: Connection, removal: Removal, source: str | None = None, *, by_hand: bool = False
) -> int:
    """Deletes what a removal names, in one transaction. Returns the number of images that are gone now.

    Images that were seen later than `removal.as_of` stay. `source` says so, and of `own_only` those images stay that
    are not its own: it has not announced them first, and neither they nor who did so are of its host. A key that is
    not registered is remembered all the same: its announcement may be late. What is deleted `by_hand` goes in any
    case, and no source brings it back.
    """
    asked = {"key": removal.key, "url": removal.url, "work": removal.work, "as_of": removal.as_of}
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        connection.execute(QUERIES["lock"])
        ids: list[int] = []
        if removal.key is not None:
            ids += cursor.execute(QUERIES["select_key"], {**asked, "by_hand": by_hand}).fetchall()
            connection.execute(QUERIES["remember_key"], {**asked, "by_hand": by_hand})
        if removal.work is not None:
            ids += cursor.execute(QUERIES["select_work"], _work(removal, source)).fetchall()
        if ids:
            remembered = {**asked, "ids": ids, "by_hand": by_hand}
            connection.execute(QUERIES["remember_images"], remembered)
            _delete(connection, ids)
    return len(ids)


def count_foreign(connection: Connection, removal: Removal, source: str | None) -> int:
    """How many images of the work stay because they are not the source's own; see `remove`."""
    if not removal.own_only:
        return 0
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES["count_foreign"], _work(removal, source)).fetchone() or 0


def _work(removal: Removal, source: str | None) -> dict[str, object]:
    return {
        "work": removal.work,
        "kept": sorted(removal.kept),
        "as_of": removal.as_of,
        "own_only": removal.own_only,
        "source": source,
    }


def restore(connection: Connection, keys: Sequence[str], chunk_size: int) -> Restored:
    """Forgets that images were deleted, and registers again those that were registered before."""
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        connection.execute(QUERIES["lock"])
        images = cursor.execute(QUERIES["restore"], {"keys": list(keys)}).fetchall()
        known = [Image(**image) for image in images if image is not None]
        registered = ledger.register(connection, known, "backfill", chunk_size)
    return Restored(len(images), registered.new)


def _delete(connection: Connection, ids: Sequence[int]) -> None:
    """Deletes images and all that refers to them, in the caller's transaction."""
    asked = {"ids": list(ids)}
    connection.execute(QUERIES["delete_marks"], asked)
    for name, vectors in connection.execute("select name, vectors from encoders order by name").fetchall():
        _leave_groups(connection, str(name), ids)
        statement = sql.SQL(QUERIES["delete_vectors"]).format(vectors=sql.Identifier(str(vectors)))
        connection.execute(statement, asked)
    for name in _REFERENCES:
        connection.execute(QUERIES[name], asked)
    gone = connection.execute(QUERIES["delete_images"], asked).fetchall()
    connection.execute(QUERIES["leave_exemplars"], {"keys": [key for key, _ in gone]})
    works = sorted({str(work) for _, work in gone if work is not None})
    connection.execute(QUERIES["delete_clustered_works"], {"works": works})


def _leave_groups(connection: Connection, encoder: str, ids: Sequence[int]) -> None:
    """Takes images out of the near-duplicates of an encoder; the others of their groups are linked anew."""
    asked = {"encoder": encoder, "ids": list(ids)}
    connection.execute(DUPLICATES["lock_groups"], asked)
    connection.execute(QUERIES["delete_pairs"], asked)
    groups.relink(connection, encoder, ids, ids)
    connection.execute(QUERIES["delete_members"], asked)
