"""What the explorer shows of a map: its points in one piece for a browser to draw, and images as it comes near them."""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from explorer.archive import Archive
from explorer.records import Picture, Record, as_picture
from lookalike import maps
from lookalike.database import Connection
from lookalike.errors import UnknownMapError

# Packed points are used again for so long: an unwanted image leaves the map this much later.
KEPT_SECONDS = 10.0


class MapRecord(Record):
    """The map of an encoder: how many of its images were laid out, and when."""

    map: int
    encoder: str
    images: int
    made_at: datetime


class MapPicture(Picture):
    """An image of a map and its place, 0..1 from the left and upper edges."""

    id: int
    x: float
    y: float


class MapPictures(Record):
    """Some images of a map."""

    items: list[MapPicture]


@dataclass(frozen=True, slots=True)
class Packed:
    """The points of a map as a browser reads them; see lookalike/maps.py. They are a map's until `until`."""

    map: int
    data: bytes
    etag: str
    until: float


class Maps:
    """Packs points, and keeps what was packed last. May be used from any thread."""

    def __init__(self) -> None:
        self._packed: dict[str, Packed] = {}
        self._lock = threading.Lock()

    def points(self, archive: Archive, encoder: str | None) -> Packed:
        """The points of the map of an encoder, or of the active one. Raises UnknownMapError."""
        with archive.reading() as connection:
            found = find(connection, encoder or archive.encoder(connection))
        # One at a time: whoever waited finds what the other has packed. Nobody holds a connection while waiting.
        with self._lock:
            known = self._packed.get(found.encoder)
            if known is not None and known.map == found.map and known.until > time.monotonic():
                return known
            with archive.reading() as connection:
                points = maps.points(connection, found.map)
            data = maps.pack(points)
            etag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
            packed = Packed(found.map, data, etag, time.monotonic() + KEPT_SECONDS)
            self._packed[found.encoder] = packed
            return packed


def find(connection: Connection, encoder: str) -> MapRecord:
    """The map of an encoder. Raises UnknownMapError."""
    found = maps.find(connection, encoder)
    if found is None:
        raise UnknownMapError(f"{encoder} has no map: `lookalike map make` makes it")
    return MapRecord(map=found.id, encoder=found.encoder, images=found.images, made_at=found.made_at)


def some(connection: Connection, number: int, ids: Sequence[int]) -> MapPictures:
    """Some images of a map, by their ids; those that are not on it are left out."""
    return MapPictures(items=[MapPicture(**as_picture(row)) for row in maps.some(connection, number, ids)])


def region(
    connection: Connection, number: int, box: tuple[float, float, float, float], limit: int
) -> MapPictures:
    """The images of a rectangle (left, top, right, bottom; 0..1), nearest to its middle first."""
    rows = maps.region(connection, number, box, limit)
    return MapPictures(items=[MapPicture(**as_picture(row)) for row in rows])
