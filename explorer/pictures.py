"""Turns pictures that people send into vectors: one network, loaded once, worked by one thread of its own.

Whoever asks while too many wait is told to come back. What is sent or named is never stored.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, BinaryIO

import numpy as np
from fastapi import Depends, Request
from numpy.typing import NDArray

from explorer.metrics import Metrics
from explorer.places import Places
from explorer.problems import BusyError, TooManyRequestsError
from lookalike.errors import EncoderError, ImageError
from lookalike.search import KnownImage
from lookalike.settings import Settings

if TYPE_CHECKING:
    from workers.picture import PictureEncoder

log = logging.getLogger(__name__)

Vector = NDArray[np.float32]

# An address that a visitor names is not waited for as long as those of a backfill.
FETCH_SECONDS = 20.0
# Addresses that are fetched at once, and of one client: who names slow hosts waits alone, in threads that are few.
FETCHES = 4
FETCHES_OF_ONE = 2
# So many files of the archive are held at once, each of as many bytes as a worker reads; a few who find no room wait.
OWN_AT_ONCE = 2
OWN_WAITING = 8
OWN_SECONDS = 5.0


class Pictures:
    """What embeds the pictures that people search with."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._limit = settings.explorer_upload_bytes
        self._settings = settings.model_copy(
            update={
                "max_bytes": min(settings.max_bytes, settings.explorer_upload_bytes),
                "fetch_timeout": min(settings.fetch_timeout, FETCH_SECONDS),
            }
        )
        # Pictures of the archive may be larger than what visitors send.
        self._own = settings.model_copy(update={"fetch_timeout": min(settings.fetch_timeout, FETCH_SECONDS)})
        self._metrics = metrics
        self._places = threading.BoundedSemaphore(settings.explorer_searches)
        self._fetches = Places(FETCHES, FETCHES_OF_ONE, "searches by address")
        self._own_waiting = threading.BoundedSemaphore(OWN_WAITING)
        self._own_places = threading.BoundedSemaphore(OWN_AT_ONCE)
        # One thread: a network has its threads of its own, and memory does not grow with those who ask.
        self._worker = ThreadPoolExecutor(1, "pictures")
        self._encoders: dict[str, PictureEncoder] = {}

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def embed_upload(self, upload: BinaryIO, encoder: str) -> Vector:
        """The vector (d,) of what somebody sends. Raises ImageError with the reason, BusyError, EncoderError."""

        def read() -> bytes:
            from workers.picture import read_picture

            return read_picture(upload, self._limit)

        with self._told("upload"), self._place():
            return self._worker.submit(self._encode, encoder, _having_packages(read)).result()

    def embed_address(self, address: str, encoder: str, client: str) -> Vector:
        """The vector (d,) of the picture at an address that an outsider names: `client`, who may name few at once.

        Raises as `embed_upload`, and TooManyRequestsError.
        """

        def fetch() -> bytes:
            from workers.picture import fetch_picture

            return fetch_picture(address, encoder, self._settings)

        with self._told("address"):
            # While it is fetched it holds none of the places that uploads wait for.
            with self._fetches.taken(client), self._metrics.waiting.track_inprogress():
                data = _having_packages(fetch)
            with self._place():
                return self._worker.submit(self._encode, encoder, data).result()

    def classify(self, image: KnownImage, encoder: str) -> Vector:
        """The probabilities (classes,) of an image of the archive. Raises as `embed_upload`."""

        def fetch() -> bytes:
            from workers.picture import fetch_known

            return fetch_known(image.url, image.protocol, encoder, self._own, outside=image.outside)

        with self._own_place():
            data = _having_packages(fetch)
            with self._place():
                return self._worker.submit(self._classify, encoder, data).result()

    @contextmanager
    def _told(self, way: str) -> Iterator[None]:
        """Counts what becomes of a search."""
        outcome = "failed"
        try:
            yield
            outcome = "embedded"
        except (BusyError, TooManyRequestsError):
            outcome = "busy"
            raise
        except ImageError as error:
            outcome = str(error.reason)
            raise
        finally:
            self._metrics.pictures.labels(way, outcome).inc()

    @contextmanager
    def _own_place(self) -> Iterator[None]:
        """Room for a file of the archive, for which a few may wait: each who waits holds a thread."""
        busy = BusyError("many look at what the network sees: try again in a few seconds")
        if not self._own_waiting.acquire(blocking=False):
            raise busy
        try:
            if not self._own_places.acquire(timeout=OWN_SECONDS):
                raise busy
            try:
                yield
            finally:
                self._own_places.release()
        finally:
            self._own_waiting.release()

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place among those who may wait."""
        if not self._places.acquire(blocking=False):
            raise BusyError("many are searching with pictures at this moment: try again in a few seconds")
        try:
            with self._metrics.waiting.track_inprogress():
                yield
        finally:
            self._places.release()

    def _encode(self, encoder: str, data: bytes) -> Vector:
        """In the one thread."""
        return self._load(encoder).embed(data)

    def _classify(self, encoder: str, data: bytes) -> Vector:
        """In the one thread."""
        return self._load(encoder).classify(data)

    def _load(self, encoder: str) -> "PictureEncoder":
        if encoder not in self._encoders:
            from workers.picture import PictureEncoder

            # One at a time: the active one, while others are only tried.
            try:
                self._encoders = {encoder: PictureEncoder(encoder, self._settings)}
            except EncoderError as error:
                # Visitors are not told where weights lie.
                log.warning("%s cannot be used: %s", encoder, error)
                raise
        return self._encoders[encoder]


def _having_packages(read: Callable[[], bytes]) -> bytes:
    """What is read, where the packages are there that embed pictures."""
    try:
        import workers.picture  # noqa: F401 - torch and decoders come with it
    except ImportError as error:
        said = f"no search with pictures here: {error}; pip install 'lookalike[worker]'"
        log.warning("%s", said)
        raise EncoderError(said) from None
    return read()


async def _pictures(request: Request) -> Pictures:
    pictures: Pictures = request.app.state.pictures
    return pictures


ThePictures = Annotated[Pictures, Depends(_pictures)]
