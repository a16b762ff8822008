"""`python -m bench.child KIND …`: one side of a benchmark in a process of its own, asked line by line in JSON.

The kinds: `instant` and `sleep:RATE` run a worker's pipeline with an encoder that returns at once, or works as a device
of its own at so many images per second; in `ungated` nothing stands between images and their hosts either; `memory`
decodes from memory in one thread; `encoder` is the bare encoder.
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import workers.pipeline
from bench.usage import measure_memory, measure_threads, reset_memory
from lookalike.encoders import find_encoder
from lookalike.hosts import SharedHosts
from lookalike.ledger import ChunkImage
from lookalike.settings import Settings
from workers.decode import decode
from workers.fetch import Fetcher
from workers.network import Encoded, load_encoder
from workers.pipeline import Pipeline

ENCODER = "efficientnet-lite0"
# As the settings advise for a GPU, and as many as a worker has under way there.
CHUNK = 256
CHUNKS_UNDER_WAY = 4


class Device:
    """Stands in for an encoder on a GPU: one pass at a time, whose time does not depend on how full the batch is.

    A rate of 0 is an encoder that returns at once. Keeps when its passes began and ended, and their sizes.
    """

    def __init__(self, rate: float, batch_size: int) -> None:
        self.preprocessing = find_encoder(ENCODER).preprocessing
        self.batch_size = batch_size
        self.passes = 1
        self.device = "cuda"
        self.sizes: list[int] = []
        self.began: list[float] = []
        self.ended: list[float] = []
        self._seconds = batch_size / rate if rate else 0.0
        self._vectors = np.zeros((batch_size, find_encoder(ENCODER).dimension), np.float32)
        self._vectors[:, 0] = 1

    def summary(self) -> dict[str, float]:
        """Share of time busy, batch fill, images per second, from the second pass to the last but one.

        The first batch does not wait for the pictures of a pipeline that was empty, and the last takes what is left.
        """
        begun, sizes = self.began[1:-1], self.sizes[1:-1]
        if not sizes:
            return {}
        span = self.began[-1] - begun[0]
        busy = sum(end - begin for begin, end in zip(begun, self.ended[1:-1], strict=True))
        fill = sum(sizes) / len(sizes) / self.batch_size
        return {"busy": busy / span, "fill": fill, "steady": sum(sizes) / span}

    def encode(self, batch: NDArray[np.uint8]) -> Encoded:
        self.began.append(time.perf_counter())
        time.sleep(self._seconds)
        self.sizes.append(len(batch))
        self.ended.append(time.perf_counter())
        return Encoded(self._vectors[: len(batch)], None)


class NoVisit:
    """Nothing is counted."""

    run = None

    def answered(self, status: int, retry_after: float | None) -> None:
        """Ignores an answer."""

    def leave(self) -> None:
        """Makes no room."""


class NoGate:
    """A plain queue in place of the gate: what the gate's cost is measured against."""

    def __init__(self, *_: object) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._visit = NoVisit()

    def put(self, items: Iterable[Any], urgent: bool = False) -> None:  # noqa: ARG002 - as Gate.put
        for item, _, _ in items:
            self._queue.put(item)

    def take(self) -> tuple[Any, NoVisit]:
        return self._queue.get(), self._visit


class PipelineSide:
    """A worker's pipeline that is fed chunks as Celery's threads would."""

    def __init__(self, rate: float) -> None:
        # At a rate of 0 the encoder's threads only hand the images on.
        self._device = Device(rate, 128 if rate else 32)
        settings = Settings(_env_file=None)
        encoder: Any = self._device
        broker = settings.broker_url
        hosts = SharedHosts(broker.get_secret_value(), "bench") if broker else None
        self._pipeline = Pipeline(settings, Fetcher(settings), encoder, hosts)

    def run(self, urls: list[str]) -> dict[str, Any]:
        """Embeds the pictures at these addresses; how long it took, and what it cost."""
        device = self._device
        device.sizes, device.began, device.ended = [], [], []
        images = [ChunkImage(number, url, url, "file", 1) for number, url in enumerate(urls)]
        chunks: queue.SimpleQueue[list[ChunkImage] | None] = queue.SimpleQueue()
        for at in range(0, len(images), CHUNK):
            chunks.put(images[at : at + CHUNK])
        failures: list[str] = []

        def work() -> None:
            while (chunk := chunks.get()) is not None:
                embedding = self._pipeline.submit(chunk)
                embedding.wait()
                failures.extend(f"{one.reason}: {one.detail}" for one in embedding.failures)

        reset_memory()
        before, since = measure_threads(), time.perf_counter()
        threads = [threading.Thread(target=work, name="chunk") for _ in range(CHUNKS_UNDER_WAY)]
        for thread in threads:
            chunks.put(None)
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - since
        used = {name: cpu - before.get(name, 0.0) for name, cpu in measure_threads().items()}
        answer = {"seconds": seconds, "cpu": used, "peak": measure_memory(), "failures": failures}
        return answer | device.summary()


class MemorySide:
    """Decoding alone, from memory, in one thread: the ceiling of the data path."""

    def run(self, paths: list[str]) -> dict[str, Any]:
        """CPU seconds of decoding these files."""
        files = [Path(path).read_bytes() for path in paths]
        preprocessing = find_encoder(ENCODER).preprocessing
        out = np.empty((preprocessing.crop, preprocessing.crop, 3), np.uint8)
        since = time.thread_time()
        for file in files:
            decode(file, preprocessing, out, 200_000_000)
        return {"cpu": time.thread_time() - since}


class EncoderSide:
    """The encoder alone, with all cores, on batches that lie ready."""

    def __init__(self) -> None:
        self._encoder = load_encoder(ENCODER, Settings(_env_file=None))
        shape = (self._encoder.batch_size, 224, 224, 3)
        self._batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def run(self, images: int) -> dict[str, Any]:
        """Images per second, and CPU seconds of an image."""
        batches = -(-images // self._encoder.batch_size)
        since, used = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(self._encoder.passes) as pool:
            list(pool.map(self._encoder.encode, [self._batch] * batches))
        count = batches * self._encoder.batch_size
        return {
            "rate": count / (time.perf_counter() - since),
            "cpu": (time.process_time() - used) / count,
        }


def make_side(kind: str) -> Callable[[Any], dict[str, Any]]:
    """What answers the requests of this kind of process."""
    name, _, rate = kind.partition(":")
    if name == "ungated":
        workers.pipeline.Gate = NoGate  # type: ignore[assignment,misc]
        return PipelineSide(0.0).run
    if name in ("instant", "sleep"):
        return PipelineSide(float(rate or 0)).run
    return MemorySide().run if name == "memory" else EncoderSide().run


def main() -> None:
    run = make_side(sys.argv[1])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
