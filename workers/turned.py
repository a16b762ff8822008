"""Embeds images as they would be mirrored or turned, for the search of near-duplicates that lie otherwise."""

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.calibration import Calibration
from lookalike.errors import ImageError
from lookalike.ledger import ChunkImage, Failure
from lookalike.reasons import Reason
from lookalike.settings import Settings
from lookalike.turns import Turn
from workers.decode import decode
from workers.fetch import Fetched, Fetcher
from workers.gate import Gate, TurnedAway, Visit, requests_for
from workers.line import PARKED_SECONDS
from workers.network import Encoder
from workers.pipeline import MARGIN

log = logging.getLogger(__name__)

TURNS = tuple(turn for turn in Turn if turn is not Turn.UPRIGHT)
# Images on their way at once: enough to hide the latency of a host beside a backfill, which has its own.
AT_ONCE = 8


class TurnedEmbedder:
    """Fetches images again and embeds them in the seven other positions."""

    def __init__(
        self,
        settings: Settings,
        fetcher: Fetcher,
        gate: Gate[Any],
        encoder: Encoder,
        calibration: Calibration,
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._gate = gate
        self._encoder = encoder
        self._calibration = calibration

    def __call__(
        self, images: Sequence[ChunkImage], missed: list[Failure], turned_away: list[TurnedAway]
    ) -> Iterator[tuple[int, Turn, NDArray[np.floating], NDArray[np.uint8]]]:
        """Yields image id, turn, unit vector (d,) and code uint8 (ceil(d / 8),).

        An image that cannot be fetched or decoded now is added to `missed`, one whose host cannot be asked now to
        `turned_away`.
        """
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="turned") as pool:
            for image, pixels in zip(images, pool.map(self._pixels, images), strict=True):
                if isinstance(pixels, TurnedAway):
                    turned_away.append(pixels)
                    continue
                if isinstance(pixels, ImageError):
                    missed.append(Failure(image, pixels.reason, pixels.detail, pixels.retry_after))
                    continue
                # The network's view is a square from the centre: turning it is turning the picture.
                views = np.stack([turn.apply(pixels) for turn in TURNS])
                vectors = self._encoder.encode(views).vectors
                codes = self._calibration.codes(vectors)
                for turn, vector, code in zip(TURNS, vectors, codes, strict=True):
                    if np.isfinite(vector).all():
                        yield image.id, turn, vector, code

    def _pixels(self, image: ChunkImage) -> NDArray[np.uint8] | ImageError | TurnedAway:
        preprocessing = self._encoder.preprocessing
        pixels = np.empty((preprocessing.crop, preprocessing.crop, 3), np.uint8)
        host = self._fetcher.host(image.url)
        visit = self._gate.enter(host, requests_for(image.protocol), PARKED_SECONDS)
        if visit is None:
            return TurnedAway(image, host, True, f"{host.name} could not be asked")
        try:
            fetched = self._fetch(image, visit)
            decode(fetched.data, preprocessing, pixels, self._settings.max_pixels)
        except ImageError as error:
            if error.reason is Reason.THROTTLED and (visit.run is None or visit.run.blocked):
                return TurnedAway(image, host, True, error.detail)
            log.info("image %s is not compared in other positions: %s", image.key, error)
            return error
        return pixels

    def _fetch(self, image: ChunkImage, visit: Visit) -> Fetched:
        side = math.ceil(self._encoder.preprocessing.resize * MARGIN)
        try:
            return self._fetcher.fetch(
                image.url, image.protocol, side, answered=visit.answered, outside=image.outside
            )
        finally:
            visit.leave()
