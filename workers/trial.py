"""Measures what fetching, decoding and encoding cost on this machine, by the worker's own code on a sample of images.

One stage after the other, so that none is measured while it waits for another. It registers and stores nothing.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lookalike.calibration import Calibration
from lookalike.capacity import Cost
from lookalike.errors import ImageError
from lookalike.images import Image
from lookalike.ledger import ChunkImage
from lookalike.reasons import Reason
from lookalike.settings import Settings
from lookalike.vectors import Labels, Vectors
from workers.appearance import Glimpse
from workers.decode import decode
from workers.fetch import Fetched, Fetcher
from workers.network import Encoder
from workers.pipeline import HELD_BYTES, MARGIN, are_sound
from workers.work import Encoding, Work

# The first images open connections and load what decoders need: their time does not count.
WARM_UP = 8
# Images that are fetched before any is decoded, for each thread that fetches: at the end of a round threads are idle.
ROUND = 4


@dataclass(frozen=True, slots=True)
class StageTrial:
    """What the stages took for one image of the sample, the mean over all, those that failed among them.

    `settle` is the making of codes and colours before vectors are stored. `failures` counts images by reason.
    """

    fetch: Cost
    decode: Cost
    encode: Cost
    settle: Cost
    bytes_fetched: float
    failures: dict[str, int]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How one image was fetched: seconds of its thread, and of the processor."""

    got: Fetched | ImageError
    seconds: float
    cpu: float


@dataclass(frozen=True, slots=True)
class _Ready:
    """An image that waits for the network: its place in the sample, checksum, pixels and glimpse."""

    place: int
    checksum: bytes
    pixels: NDArray[np.uint8]
    glimpse: Glimpse


def try_stages(
    images: Sequence[Image],
    settings: Settings,
    encoder: Encoder,
    calibration: Calibration,
    on_images: Callable[[int], None] = lambda _: None,
) -> StageTrial:
    """Fetches, decodes and encodes these images; `on_images` is told of so many more that are done.

    What it holds at a time does not depend on their number, but for the vectors.
    """
    fetcher = Fetcher(settings)
    try:
        trial = _Trial(images, settings, fetcher, encoder)
        trial.run(on_images)
    finally:
        fetcher.close()
    return trial.result(calibration)


class _Trial:
    def __init__(
        self, images: Sequence[Image], settings: Settings, fetcher: Fetcher, encoder: Encoder
    ) -> None:
        self._images = images
        self._settings = settings
        self._fetcher = fetcher
        self._encoder = encoder
        self._shorter_side = math.ceil(encoder.preprocessing.resize * MARGIN)
        self._full = encoder.batch_size * encoder.passes
        self._waiting: list[_Ready] = []
        self._work = Work(
            [
                ChunkImage(place, one.key, one.url, one.protocol, 1, one.outside)
                for place, one in enumerate(images)
            ]
        )
        self._failures: Counter[str] = Counter()
        self._bytes = 0
        # Images by stage: those that came to it, and those of them whose time counts.
        self._reached: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._seconds: dict[str, float] = dict.fromkeys(("fetch", "encode"), 0.0)
        self._cpu: dict[str, float] = dict.fromkeys(("fetch", "decode", "encode"), 0.0)

    def run(self, on_images: Callable[[int], None]) -> None:
        threads = self._settings.fetch_threads
        # What is set up once must not count.
        self._encoder.encode(np.zeros((self._full, *self._shape), np.uint8))
        done, size = 0, WARM_UP
        with ThreadPoolExecutor(threads, "fetch") as pool:
            while done < len(self._images):
                places = range(done, min(done + size, len(self._images)))
                attempts = list(pool.map(self._fetch, places))
                # With too few images there is nothing but the warm-up.
                counts = done > 0 or len(places) == len(self._images)
                if counts:
                    self._count_fetches(attempts, min(threads, len(places)))
                for place, attempt in zip(places, attempts, strict=True):
                    self._decode(place, attempt.got, counts)
                    on_images(1)
                done += len(places)
                # As the worker does, hold only so many bytes.
                fits = HELD_BYTES * done // max(self._bytes, 1)
                size = max(1, min(ROUND * threads, fits))
        self._encode()

    @property
    def _shape(self) -> tuple[int, int, int]:
        crop = self._encoder.preprocessing.crop
        return crop, crop, 3

    def _fetch(self, place: int) -> _Attempt:
        image = self._images[place]
        since, used = time.perf_counter(), time.thread_time()
        got: Fetched | ImageError
        try:
            got = self._fetcher.fetch(image.url, image.protocol, self._shorter_side, outside=image.outside)
        except ImageError as error:
            got = error
        return _Attempt(got, time.perf_counter() - since, time.thread_time() - used)

    def _count_fetches(self, attempts: Sequence[_Attempt], at_once: int) -> None:
        # As if all threads were busy all the time: one image that hangs does not hold up the others of a worker.
        self._seconds["fetch"] += sum(attempt.seconds for attempt in attempts) / at_once
        self._cpu["fetch"] += sum(attempt.cpu for attempt in attempts)
        self._counted["fetch"] += len(attempts)

    def _decode(self, place: int, got: Fetched | ImageError, counts: bool) -> None:
        if isinstance(got, ImageError):
            self._failures[str(got.reason)] += 1
            return
        self._bytes += len(got.data)
        self._reached["decode"] += 1
        pixels = np.empty(self._shape, np.uint8)
        used = time.thread_time()
        try:
            seen = decode(got.data, self._encoder.preprocessing, pixels, self._settings.max_pixels)
        except ImageError as error:
            self._failures[str(error.reason)] += 1
        else:
            self._waiting.append(_Ready(place, got.checksum, pixels, seen))
        if counts:
            self._cpu["decode"] += time.thread_time() - used
            self._counted["decode"] += 1
        if len(self._waiting) >= self._full:
            self._encode()

    def _encode(self) -> None:
        """Encodes what waits, a batch in each pass."""
        ready, self._waiting = self._waiting, []
        if not ready:
            return
        pixels = np.stack([one.pixels for one in ready])
        size = -(-len(ready) // self._encoder.passes)
        batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        since, used = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(self._encoder.passes) as pool:
            encoded = list(pool.map(self._encoder.encode, batches))
        self._seconds["encode"] += time.perf_counter() - since
        self._cpu["encode"] += time.process_time() - used
        self._counted["encode"] += len(ready)
        self._reached["encode"] += len(ready)
        vectors = np.concatenate([one.vectors for one in encoded])
        labels = [Labels.best(one.classes) for one in encoded if one.classes is not None]
        best = Labels.join(labels)
        sound = are_sound(vectors)
        for row, one in enumerate(ready):
            if sound[row]:
                named = None if best is None else best.row(row)
                self._work.store(one.place, Encoding(one.checksum, vectors[row], named, one.glimpse))
            else:
                self._failures[str(Reason.INVALID_VECTOR)] += 1

    def result(self, calibration: Calibration) -> StageTrial:
        used = time.thread_time()
        vectors = self._work.vectors(calibration)
        settle = time.thread_time() - used
        # Not every image gets as far as the later stages.
        share = {name: self._reached[name] / len(self._images) for name in self._reached}
        decode_cpu = self._mean(self._cpu, "decode") * share.get("decode", 0)
        threads = self._settings.decode_threads
        encode = 0.0 if self._encoder.device == "cpu" else self._mean(self._seconds, "encode")
        return StageTrial(
            fetch=Cost(self._mean(self._cpu, "fetch"), self._mean(self._seconds, "fetch")),
            decode=Cost(decode_cpu, decode_cpu / threads if threads else 0.0),
            encode=Cost(
                self._mean(self._cpu, "encode") * share.get("encode", 0), encode * share.get("encode", 0)
            ),
            settle=Cost(settle / len(self._images)),
            bytes_fetched=self._bytes / len(self._images),
            failures=dict(self._failures.most_common()),
            vectors=vectors,
        )

    def _mean(self, spent: dict[str, float], stage: str) -> float:
        return spent[stage] / max(1, self._counted[stage])
