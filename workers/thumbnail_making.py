"""Makes the thumbnails that are missing: of images that were embedded before they were wanted, or that a worker missed.

It fetches each image again, as politely as a worker does; it writes no vector and no failure.
"""

import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lookalike.database import Connection
from lookalike.encoders import Preprocessing, find_encoder
from lookalike.errors import ImageError
from lookalike.ledger import ChunkImage
from lookalike.reasons import Reason
from lookalike.settings import Settings
from lookalike.thumbnails import Cache, Thumbnail
from workers.decode import decode
from workers.fetch import Fetcher
from workers.gate import Gate, requests_for
from workers.line import PARKED_SECONDS
from workers.network.runtime import available_cores
from workers.pipeline import MARGIN

log = logging.getLogger(__name__)

BATCH = 64


@dataclass(frozen=True, slots=True)
class Made:
    """How many were stored of how many that were missing; the others could not be fetched or decoded now."""

    images: int
    stored: int


class Maker:
    """Fetches, decodes and stores, a batch at a time; `close` ends it."""

    def __init__(self, settings: Settings, cache: Cache) -> None:
        self._settings = settings
        self._cache = cache
        self._fetcher = Fetcher(settings)
        # Of this process alone: it asks for a few images at once, beside what all workers may ask for together.
        self._gate: Gate[Any] = Gate(settings)
        self._threads = ThreadPoolExecutor(2 * available_cores(), thread_name_prefix="thumbnails")

    def close(self) -> None:
        """Ends threads and connections."""
        self._threads.shutdown(cancel_futures=True)
        self._fetcher.close()

    def run(self, connection: Connection) -> Iterator[Made]:
        """Goes once through all images that lack one, by their ids; yields what became of each batch.

        Stopped at any moment, the next run goes on with what is still missing. Raises what the cache raises.
        """
        after = 0
        make = partial(self._make, find_encoder(self._settings.encoder).preprocessing)
        while images := self._cache.lacking(connection, after, BATCH):
            made = [one for one in self._threads.map(make, images) if one is not None]
            stored = self._cache.store(connection, made)
            after = images[-1].id
            yield Made(len(images), stored)

    def _make(self, preprocessing: Preprocessing, image: ChunkImage) -> Thumbnail | None:
        try:
            jpeg = self._picture(preprocessing, image)
        except ImageError as error:
            log.info("image %s gets no thumbnail: %s", image.key, error)
            return None
        return None if jpeg is None else Thumbnail(image.id, image.revision, jpeg)

    def _picture(self, preprocessing: Preprocessing, image: ChunkImage) -> bytes | None:
        host = self._fetcher.host(image.url)
        visit = self._gate.enter(host, requests_for(image.protocol), PARKED_SECONDS)
        if visit is None:
            raise ImageError(Reason.THROTTLED, f"{host.name} could not be asked")
        side = math.ceil(preprocessing.resize * MARGIN)
        try:
            data = self._fetcher.fetch(
                image.url, image.protocol, side, answered=visit.answered, outside=image.outside
            ).data
        finally:
            visit.leave()
        unused = np.empty((preprocessing.crop, preprocessing.crop, 3), np.uint8)
        return decode(data, preprocessing, unused, self._settings.max_pixels, thumbnail=True).thumbnail
