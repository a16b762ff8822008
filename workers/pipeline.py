"""Fetch, decode and encode, each in threads of its own, shared by all chunks that the worker has under way.

While one batch is in the network the next images are fetched and decoded, so the network waits only when the world
does. Everything between two stages is bounded; memory does not depend on how many chunks wait.
"""

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ImageError
from lookalike.hosts import SharedHosts
from lookalike.ledger import ChunkImage
from lookalike.reasons import Reason
from lookalike.settings import Settings
from lookalike.vectors import Labels
from workers.appearance import Glimpse
from workers.budget import Budget, Share
from workers.decode import decode
from workers.fetch import Fetcher
from workers.gate import NO_HOST, Gate, Host, Visit, requests_for
from workers.gauges import Gauges
from workers.network import Encoder, is_fatal
from workers.network.runtime import available_cores
from workers.timeline import Timeline
from workers.work import Encoding, Work

log = logging.getLogger(__name__)

# A IIIF service is asked for so many times the size that the picture is resized to: what bench/fidelity.py measures of
# decoding at a reduced scale holds for it as well.
MARGIN = 1.5
# A half-full batch waits so long for images that are still on their way.
LINGER_SECONDS = 0.1
EXIT_DEVICE = 71
# Decoded pictures that wait for the network at least: on a CPU a batch may be as small as 4.
DECODED = 32
POLL_SECONDS = 0.005
# Files that are being fetched, wait for a decoder or are being decoded: so many bytes, and so many for each thread that
# fetches; enough for decoders to go on while a host pauses for a moment.
HELD_BYTES = 256 * 2**20
HELD_FOR_A_THREAD = 4


@dataclass(slots=True)
class Item:
    """One image between two stages."""

    work: Work
    index: int
    host: Host
    visit: Visit | None = None
    share: Share | None = None
    data: bytes = b""
    checksum: bytes = b""
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    glimpse: Glimpse | None = None


class Pipeline:
    """The stages of one worker process. `submit` may be called from any thread."""

    def __init__(
        self, settings: Settings, fetcher: Fetcher, encoder: Encoder, hosts: SharedHosts | None = None
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._encoder = encoder
        self.device = encoder.device
        self._shorter_side = math.ceil(encoder.preprocessing.resize * MARGIN)
        decoders = settings.decode_threads or available_cores()
        self.gauges = Gauges(
            {
                "fetch": settings.fetch_threads,
                "decode": decoders,
                "encode": encoder.passes,
                "store": chunk_threads(settings, encoder.device),
            }
        )
        self.gate: Gate[Item] = Gate(settings, hosts, self._turn_away)
        self._budget = Budget(HELD_FOR_A_THREAD * settings.fetch_threads, HELD_BYTES)
        # Bounded by the budget: whatever waits here has a share of it.
        self._to_decode: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._to_encode: queue.Queue[Item] = queue.Queue(maxsize=max(2 * encoder.batch_size, DECODED))
        self._upstream = 0
        self._count = threading.Lock()
        fetching = ("fetch", self._next_to_fetch, self._fetch, self._to_decode.put)
        decoding = ("decode", self._to_decode.get, self._decode, self._hand_over)
        _start_threads("fetch", settings.fetch_threads, self._run_stage, fetching)
        _start_threads("decode", decoders, self._run_stage, decoding)
        _start_threads("encode", encoder.passes, self._encode_forever, ())

    @property
    def batch_size(self) -> int:
        """Images in a full batch; it may shrink when the device runs out of memory."""
        return self._encoder.batch_size

    def submit(
        self,
        images: Sequence[ChunkImage],
        urgent: bool = False,
        *,
        pictured: Collection[int] = (),
        chunk: int | None = None,
        timeline: Timeline | None = None,
    ) -> Work:
        """Starts on the images of a chunk (its number is for the log); returns at once. `timeline` is told what works
        on it when. Urgent images go before all that wait for their host.

        `pictured` are the ids of those of which a thumbnail is wanted.
        """
        work = Work(images, pictured=pictured, chunk=chunk, timeline=timeline)
        with self._count:
            self._upstream += len(images)
        items = [Item(work, index, self._host(image)) for index, image in enumerate(images)]
        self.gate.put(
            ((item, item.host, requests_for(images[item.index].protocol)) for item in items), urgent
        )
        return work

    def _host(self, image: ChunkImage) -> Host:
        try:
            return self._fetcher.host(image.url)
        except Exception:  # whatever is wrong with it: to fetch it fails as well, and for a named reason
            log.debug("image %s has no host", image.key, exc_info=True)
            return NO_HOST

    def _next_to_fetch(self) -> Item:
        item, visit = self.gate.take()
        item.visit = visit
        return item

    def _turn_away(self, item: Item, host: Host, paused: bool, detail: str) -> None:
        item.work.turn_away(item.index, host, paused, detail)
        self._leave(item)

    def _run_stage(
        self,
        name: str,
        take: Callable[[], Item],
        step: Callable[[Item], None],
        pass_on: Callable[[Item], None],
    ) -> None:
        """Takes images through one stage for ever. What fails here goes no further."""
        while True:
            item = take()
            if item.work.cancelled.is_set():
                if item.visit is not None:
                    item.visit.withdraw()
                self._leave(item)
                continue
            began = time.monotonic()
            try:
                with self.gauges.busy(name):
                    step(item)
            except ImageError as error:
                self._fail(item, error)
            except Exception as error:
                # A stage must outlive any image; an unforeseen error becomes a named failure with its trace in the log.
                key = item.work.images[item.index].key
                log.exception("image %s", key, extra={"image": key, "chunk": item.work.chunk})
                self._fail(item, ImageError(Reason.WORKER_ERROR, f"{type(error).__name__}: {error}"))
            else:
                pass_on(item)
            finally:
                item.work.note(name, began)

    def _fetch(self, item: Item) -> None:
        image = item.work.images[item.index]
        assert item.visit is not None
        item.share = self._budget.open()
        try:
            fetched = self._fetcher.fetch(
                image.url,
                image.protocol,
                self._shorter_side,
                item.share.reserve,
                item.visit.answered,
                outside=image.outside,
            )
        finally:
            item.visit.leave()
        item.data, item.checksum = fetched.data, fetched.checksum
        self.gauges.fetched(item.host.name, len(fetched.data))

    def _decode(self, item: Item) -> None:
        preprocessing = self._encoder.preprocessing
        item.pixels = np.empty((preprocessing.crop, preprocessing.crop, 3), np.uint8)
        pictured = item.work.images[item.index].id in item.work.pictured
        item.glimpse = decode(
            item.data, preprocessing, item.pixels, self._settings.max_pixels, thumbnail=pictured
        )
        item.data = b""

    def _hand_over(self, item: Item) -> None:
        _close_share(item)  # before the wait for an encoder
        self._to_encode.put(item)
        self._leave(item)

    def _fail(self, item: Item, error: ImageError) -> None:
        item.work.fail(item.index, error, item.host, item.visit.run if item.visit else None)
        self._leave(item)

    def _leave(self, item: Item) -> None:
        """One image less is on its way to the encoder."""
        _close_share(item)
        with self._count:
            self._upstream -= 1

    def _encode_forever(self) -> None:
        crop = self._encoder.preprocessing.crop
        pixels = np.empty((0, crop, crop, 3), np.uint8)
        while True:
            batch = self._next_batch()
            if len(batch) > len(pixels):
                pixels = np.empty((len(batch), crop, crop, 3), np.uint8)
            try:
                self._encode(batch, pixels[: len(batch)])
            except Exception as error:
                if is_fatal(error):
                    # The device is gone for this process: only another one can go on, and the ledger will find it.
                    log.critical("the device failed, this process leaves: %s", error)
                    os._exit(EXIT_DEVICE)
                # The stage must outlive any batch; the images are tried again, in other company.
                log.exception("a batch of %d images could not be encoded", len(batch))
                for item in batch:
                    item.work.fail(item.index, ImageError(Reason.WORKER_ERROR, "the encoder raised an error"))

    def _next_batch(self) -> list[Item]:
        """Waits for a full batch, or for all there is when nothing more is on its way."""
        batch = [self._to_encode.get()]
        until = time.monotonic() + LINGER_SECONDS
        while len(batch) < self._encoder.batch_size:
            try:
                batch.append(self._to_encode.get(timeout=POLL_SECONDS if self._upstream else 0.0001))
            except queue.Empty:
                if self._upstream == 0 or time.monotonic() >= until:
                    break
        return batch

    def _encode(self, batch: list[Item], pixels: NDArray[np.uint8]) -> None:
        np.stack([item.pixels for item in batch], out=pixels)
        began = time.monotonic()
        with self.gauges.busy("encode"):
            encoded = self._encoder.encode(pixels)
        for work in {item.work for item in batch}:
            work.note("encode", began)
        self.gauges.batch(len(batch), self._encoder.batch_size)
        vectors = encoded.vectors
        labels = None if encoded.classes is None else Labels.best(encoded.classes)
        sound = are_sound(vectors)
        for row, item in enumerate(batch):
            if sound[row]:
                best = None if labels is None else labels.row(row)
                assert item.glimpse is not None
                item.work.store(item.index, Encoding(item.checksum, vectors[row], best, item.glimpse))
            else:
                item.work.fail(item.index, ImageError(Reason.INVALID_VECTOR, "NaN, infinite or zero"))


def are_sound(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the vectors (n, d) are finite and of unit length."""
    sound: NDArray[np.bool_] = np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3  # never true of NaN
    return sound


def chunk_threads(settings: Settings, device: str) -> int:
    """Chunks worked on at once: while one is in the network others are fetched and stored. 4 keep a GPU at 94 %."""
    return settings.chunk_threads or (2 if device == "cpu" else 4)


def _close_share(item: Item) -> None:
    if item.share is not None:
        item.share.close()


def _start_threads(name: str, number: int, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Starts daemon threads: a stopping worker gives its chunks back and need not wait for a slow host."""
    for i in range(number):
        threading.Thread(target=target, args=args, name=f"{name}-{i}", daemon=True).start()
