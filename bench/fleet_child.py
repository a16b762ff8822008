"""`python -m bench.fleet_child KIND RATE`: a worker of a simulated fleet, which has no pictures and no network.

It takes messages from the broker as workers do, starts their chunks, keeps their leases, and settles each in the
ledger's own transaction. KIND is what it stores: `nothing`, `vectors` of random numbers, or `all`: vectors, labels, and
what pictures look like. RATE is that of its device in images a second; 0: it takes no time.
"""

import os
import sys
import threading
import time
from uuid import uuid4

import numpy as np
from celery import signals

from bench.ledger import nothing
from lookalike import archive, ledger
from lookalike.calibration import Calibration
from lookalike.database import connect, make_pool
from lookalike.encoders import class_names
from lookalike.envelope import TASK
from lookalike.ledger import Lease, RetryPolicy
from lookalike.queue import make_app
from lookalike.services import up
from lookalike.settings import Settings, load_settings
from lookalike.vectors import MINIATURE, PALETTE, Appearance, Labels, Vectors
from workers.messages import read_message

# Chunks that a worker on a GPU has under way.
CHUNK_THREADS = 4
# Images whose results are drawn; all others get one of these.
DRAWN = 1024
POLICY = RetryPolicy(5, 2)


def draw_results(calibration: Calibration, kind: str, encoder: str) -> Vectors:
    """What a network might have said of some images."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((DRAWN, calibration.dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels, looks = None, None
    if kind == "all":
        labels = Labels.best(random.dirichlet(np.ones(len(class_names(encoder))), DRAWN).astype(np.float32))
        looks = [draw_appearance(random) for _ in range(DRAWN)]
    return Vectors(
        np.arange(DRAWN),
        np.ones(DRAWN, np.int32),
        random.integers(0, 256, (DRAWN, 32), np.uint8),
        calibration.codes(rows),
        rows,
        labels,
        looks,
    )


def draw_appearance(random: np.random.Generator) -> Appearance:
    colours = [f"#{colour:06x}" for colour in random.integers(0, 2**24, PALETTE)]
    shares = np.sort(random.dirichlet(np.ones(PALETTE)))[::-1].tolist()
    return Appearance(1.5, colours[0], tuple(colours), tuple(shares), random.bytes(MINIATURE**2))


class FleetWorker:
    """What a worker does with a message, but for the images."""

    def __init__(self, settings: Settings, kind: str, rate: float) -> None:
        self._seconds = settings.lease_seconds
        self._rate = rate
        self._device = threading.Lock()
        self._name = f"fleet {uuid4().hex}"
        url = up(settings).database_url
        self._lifeline = connect(url, application_name="bench fleet")
        calibration = archive.load_calibration(self._lifeline, settings.encoder)
        self._results = None if kind == "nothing" else draw_results(calibration, kind, settings.encoder)
        self._pool = make_pool(url, application_name="bench fleet", max_size=CHUNK_THREADS)
        self._pool.open()
        self._held: dict[int, Lease] = {}
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def embed(self, claim: Lease) -> None:
        """Starts and settles one chunk."""
        with self._pool.connection() as connection:
            chunk = ledger.start(connection, claim, self._name, self._seconds)
        if chunk is None:
            return
        self._held[claim.chunk] = claim
        try:
            if self._rate:
                with self._device:
                    time.sleep(len(chunk.images) / self._rate)
            with self._pool.connection() as connection:
                ledger.finish(connection, chunk, self._vectors(chunk), [], POLICY)
        finally:
            del self._held[claim.chunk]

    def _vectors(self, chunk: ledger.Chunk) -> Vectors:
        if self._results is None:
            return nothing()
        ids = np.array([image.id for image in chunk.images], np.int64)
        return self._results.take(ids % DRAWN, ids)

    def _beat(self) -> None:
        while True:
            time.sleep(self._seconds / 3)
            claims = list(self._held.values())
            ledger.renew(self._lifeline, claims, self._seconds)


def main() -> None:
    kind, rate = sys.argv[1], float(sys.argv[2])
    settings = load_settings()
    app = make_app(up(settings).broker_url, settings.encoder)
    running: list[FleetWorker] = []

    def load(**_: object) -> None:
        running.append(FleetWorker(settings, kind, rate))
        os.write(output, b'"ready"\n')

    def embed(_: object, *words: object) -> None:
        if message := read_message(words):
            running[0].embed(Lease(message.chunk, message.lease))

    output = os.dup(1)
    os.dup2(2, 1)  # Celery greets on standard output
    app.task(name=TASK, bind=True)(embed)
    signals.worker_init.connect(load, weak=False)
    app.worker_main(
        [
            *(
                "worker",
                "--pool=threads",
                f"--concurrency={CHUNK_THREADS}",
                f"--hostname=fleet-{os.getpid()}@%h",
            ),
            *("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"),
        ]
    )


if __name__ == "__main__":
    main()
