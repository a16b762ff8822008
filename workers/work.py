"""The images of one chunk while a worker is at them, and what became of each: the stages settle, the embedder waits.

Whether a refusal was about one image or about all that a host has is known best in the end; until then it stays open.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lookalike.calibration import Calibration
from lookalike.errors import ImageError
from lookalike.ledger import ChunkImage, Failure
from lookalike.reasons import Reason
from lookalike.thumbnails import Thumbnail
from lookalike.vectors import Labels, Vectors
from workers.appearance import Glimpse, appearances_of
from workers.gate import NO_HOST, Host, TurnedAway
from workers.line import Run
from workers.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Encoding:
    """What was made of one image: the SHA-256 of its file, its vector (d,), its best classes, if there are
    any, and what its colours are to be found from.
    """

    checksum: bytes
    vector: NDArray[np.float32]
    labels: Labels | None
    glimpse: Glimpse


class Work:
    """The images of one chunk on their way through the stages, and what became of each.

    `pictured` are the ids of those of which a thumbnail is wanted.
    """

    def __init__(
        self,
        images: Sequence[ChunkImage],
        *,
        pictured: Collection[int] = (),
        chunk: int | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.images = images
        self.pictured = pictured
        self.chunk = chunk
        self.timeline = timeline
        self._turned_away: list[TurnedAway] = []
        self._failures: list[tuple[Failure, Host, Run | None]] = []
        self.cancelled = threading.Event()
        self._vectors: dict[int, Encoding] = {}
        self._open = len(images)
        self._lock = threading.Lock()
        self._settled = threading.Event()
        if not images:
            self._settled.set()

    def store(self, index: int, encoding: Encoding) -> None:
        self._settle(lambda: self._vectors.__setitem__(index, encoding))

    def fail(self, index: int, error: ImageError, host: Host = NO_HOST, run: Run | None = None) -> None:
        """Settles an image without a vector. `run`: the refusals of its host that it is part of."""
        failure = Failure(self.images[index], error.reason, error.detail, error.retry_after)
        self._settle(lambda: self._failures.append((failure, host, run)))

    def turn_away(self, index: int, host: Host, paused: bool, detail: str) -> None:
        """Settles an image that could not be asked for: it comes back later."""
        turned_away = TurnedAway(self.images[index], host, paused, detail)
        self._settle(lambda: self._turned_away.append(turned_away))

    @property
    def failures(self) -> list[Failure]:
        """Images without a vector, but those that come back later."""
        return [
            replace(failure, passing=_is_blocked(run) and failure.reason is Reason.FORBIDDEN)
            for failure, _, run in self._failures
            if not _is_put_off(failure, run)
        ]

    @property
    def turned_away(self) -> list[TurnedAway]:
        """Images that come back later: their host could not be asked, or asked for peace."""
        return self._turned_away + [
            TurnedAway(failure.image, host, True, failure.detail)
            for failure, host, run in self._failures
            if _is_put_off(failure, run)
        ]

    @property
    def failed_hosts(self) -> dict[int, str]:
        """The hosts of images without a vector, by the id of the image; empty for files."""
        return {failure.image.id: host.name for failure, host, _ in self._failures}

    def _settle(self, record: Callable[[], None]) -> None:
        with self._lock:
            record()
            self._open -= 1
            if self._open == 0:
                self._settled.set()

    def note(self, stage: str, began: float) -> None:
        """Tells the timeline, if there is one, that a stage worked on an image of it from `began` until now."""
        if self.timeline is not None:
            self.timeline.note(stage, began, time.monotonic())

    def cancel(self) -> None:
        """Gives up: images that have not reached a stage yet skip it, and `wait` returns at once."""
        self.cancelled.set()
        self._settled.set()

    def wait(self) -> None:
        """Blocks until every image is settled, or the work is cancelled."""
        self._settled.wait()

    def vectors(self, calibration: Calibration) -> Vectors:
        """What was encoded, in the order of the images, whatever order they were done in."""
        done = sorted(self._vectors)
        encodings = [self._vectors[index] for index in done]
        checksums = [np.frombuffer(one.checksum, np.uint8) for one in encodings]
        vectors = np.array([one.vector for one in encodings], np.float32)
        vectors = vectors.reshape(len(done), calibration.dimension)
        return Vectors(
            np.array([self.images[index].id for index in done], np.int64),
            np.array([self.images[index].revision for index in done], np.int32),
            np.array(checksums, np.uint8).reshape(-1, 32),
            calibration.codes(vectors),
            vectors,
            Labels.join([one.labels for one in encodings if one.labels is not None]),
            appearances_of([one.glimpse for one in encodings]),
        )

    def thumbnails(self) -> list[Thumbnail]:
        """Those that were made."""
        return [
            Thumbnail(self.images[index].id, self.images[index].revision, one.glimpse.thumbnail)
            for index, one in self._vectors.items()
            if one.glimpse.thumbnail is not None
        ]


def _is_blocked(run: Run | None) -> bool:
    return run is not None and run.blocked


def _is_put_off(failure: Failure, run: Run | None) -> bool:
    """Whether the host asked for peace, in words or by refusing all it was asked: that costs an image no attempt."""
    return failure.reason is Reason.THROTTLED and (run is None or run.blocked)
