"""Thumbnails: a small cache of pictures for the explorer, of images that no image service shows.

They lie where the setting LOOKALIKE_THUMBNAILS says: in the database, in a bucket, or in a folder. Whatever goes wrong
with one, the image itself must never fail of it; and nothing is ever shown that a worker has not stored as one.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import psycopg
from psycopg.rows import class_row, scalar_row

from lookalike.ledger import ChunkImage, hold_deletions
from lookalike.queries import load_queries
from lookalike.settings import Settings
from lookalike.thumbnail_places import Place, open_place

log = logging.getLogger(__name__)
Connection = psycopg.Connection[tuple[object, ...]]
QUERIES = load_queries("thumbnails")

# Pixels on the longer side; of smaller pictures, as many as they have.
SIDE = 320
# Files of a place that are deleted at once.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture of an image, as of a revision of its content: a JPEG of at most SIDE pixels on the longer side."""

    image_id: int
    revision: int
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of an image that a picture is asked of. Without a thumbnail `revision` and what follows is None.

    A file that lies in a `place` has a `name` there, otherwise it is in `jpeg`.
    """

    id: int
    url: str
    protocol: str
    outside: bool
    average_colour: str | None
    palette: list[str] | None
    palette_shares: list[float] | None
    aspect_ratio: float | None
    open: bool
    revision: int | None
    place: str | None
    name: str | None
    jpeg: bytes | None
    stored_at: datetime | None


class Cache:
    """The cache of a process, for any of its threads. `place` is None where thumbnails lie in the database itself;
    `local`: only files of this machine's disks get any.
    """

    def __init__(self, place: Place | None, local: bool) -> None:
        self.place = place
        self.local = local

    def wanted(self, connection: Connection, images: Sequence[ChunkImage]) -> frozenset[int]:
        """The ids of those images that should get a thumbnail."""
        files = [image.id for image in images if image.protocol == "file"]
        if not files:
            return frozenset()
        with connection.cursor(row_factory=scalar_row) as cursor:
            asked = {"ids": files, "local": self.local}
            return frozenset(cursor.execute(QUERIES["wanted"], asked).fetchall())

    def store(self, connection: Connection, made: Sequence[Thumbnail]) -> int:
        """Keeps thumbnails, but those of images that are gone, closed, or of other content by now. Returns how many.

        `connection` is in autocommit mode. Raises psycopg.Error, OSError and botocore's errors.
        """
        if not made:
            return 0
        names: list[str | None] = [None] * len(made)
        jpegs: list[bytes | None] = [one.jpeg for one in made]
        if self.place is not None:
            new = [_new_name(one) for one in made]
            # First of all, so that no file is ever forgotten, whatever ends this process.
            connection.execute(QUERIES["announce"], {"place": self.place.address, "names": new})
            self.place.write(dict(zip(new, (one.jpeg for one in made), strict=True)))
            names, jpegs = [*new], [None] * len(made)
        asked = {
            "ids": [one.image_id for one in made],
            "revisions": [one.revision for one in made],
            "place": self.place and self.place.address,
            "names": names,
            "jpegs": jpegs,
        }
        with connection.transaction():
            hold_deletions(connection)
            stored = connection.execute(QUERIES["store"], asked).rowcount
            if self.place is not None:
                connection.execute(QUERIES["keep"], asked)
        return stored

    def read(self, shown: Shown) -> bytes | None:
        """The file of a thumbnail; None where there is none, or none that this process can reach.

        Raises OSError and botocore's errors.
        """
        if shown.revision is None or not shown.open:
            return None
        if shown.jpeg is not None:
            return shown.jpeg
        # An address of another place is somebody else's word.
        if self.place is None or shown.place != self.place.address or not is_name(shown.name):
            return None
        return self.place.read(str(shown.name))

    def sweep(self, connection: Connection) -> int:
        """Deletes files of its place that nothing refers to any more. Returns how many."""
        deleted = 0
        while self.place is not None:
            with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
                asked = {"place": self.place.address, "limit": BATCH}
                names: list[str] = cursor.execute(QUERIES["leftovers"], asked).fetchall()
                # Before the commit: what cannot be deleted now is found again.
                self.place.delete([name for name in names if is_name(name)])
            deleted += len(names)
            if len(names) < BATCH:
                break
        return deleted

    def lacking(self, connection: Connection, after: int, limit: int) -> list[ChunkImage]:
        """The next embedded images behind an id, by their ids, that should have a thumbnail and have none."""
        with connection.cursor(row_factory=class_row(ChunkImage)) as cursor:
            asked = {"after": after, "limit": limit, "local": self.local}
            return cursor.execute(QUERIES["lacking"], asked).fetchall()

    def count_lacking(self, connection: Connection) -> int:
        """How many embedded images should have a thumbnail and have none. Reads all of them."""
        with connection.cursor(row_factory=scalar_row) as cursor:
            return int(cursor.execute(QUERIES["count_lacking"], {"local": self.local}).fetchone() or 0)


def open_cache(settings: Settings) -> Cache | None:
    """The cache that the settings name; None where they name none. Raises ConfigurationError."""
    where = settings.thumbnails
    if where in (None, "off"):
        return None
    if where in ("database", "local"):
        return Cache(None, local=where == "local")
    return Cache(open_place(str(where)), local=False)


def find(connection: Connection, key: str) -> Shown | None:
    """What can be shown of the image with this key; None where there is no such image."""
    with connection.cursor(row_factory=class_row(Shown)) as cursor:
        return cursor.execute(QUERIES["find"], {"key": key}).fetchone()


def count(connection: Connection) -> dict[str, int]:
    """How many thumbnails there are, by their place; "database" is one."""
    rows = connection.execute(QUERIES["count"]).fetchall()
    return {"database" if place is None else str(place): int(str(number)) for place, number in rows}


def remove(connection: Connection, place: str) -> Iterator[int]:
    """Takes away all thumbnails of a place, some at a time; yields how many. Files are deleted by `Cache.sweep`."""
    asked = {"place": None if place == "database" else place, "limit": BATCH}
    while removed := connection.execute(QUERIES["remove"], asked).rowcount:
        yield removed


def is_name(name: str | None) -> bool:
    """Whether this is the name of a file that `Cache.store` would give: it leads nowhere else."""
    return name is not None and re.fullmatch(r"\d+/\d+-\d+-[0-9a-f]{32}\.jpg", name, re.ASCII) is not None


def _new_name(one: Thumbnail) -> str:
    """Ten thousand images share a folder. The last part makes it a name that nobody has used or can guess."""
    return f"{one.image_id // 10_000}/{one.image_id}-{one.revision}-{uuid4().hex}.jpg"
