"""`python -m bench.scaling_child WORDS`: the command `lookalike`, with an encoder that sleeps in place of computing.

Each pass takes BENCH_SLEEP seconds, one at a time, however full its batch is, as a GPU works. All else is what
operators start: Celery, leases, fetch, decode, vectors of 1,280 numbers, Postgres. A worker answers each line of input
with a line of JSON: what it has used and encoded since it began.
"""

import json
import os
import sys
import threading
import time

import numpy as np

from bench.usage import measure_threads
from lookalike.encoders import ENCODERS, EncoderSpec, Preprocessing

# For pictures of 48 pixels, so that four workers do not need all of the two cores that they share.
SLEEPER = EncoderSpec(
    "bench-sleeper",
    1280,
    "bench.sleeper",
    "none",
    "halved",
    "none",
    Preprocessing(40, 32, "bilinear", (0.5,) * 3, (0.5,) * 3),
    classifies=False,
)
SLEEP_VARIABLE = "BENCH_SLEEP"
# So many vectors are drawn; an image gets one by its brightness.
SHADES = 4096


class Sleep:
    """In place of a network. Counts its passes and their images, and the seconds that it was busy."""

    name = "sleep"

    def __init__(self, seconds: float) -> None:
        import torch

        self._seconds = seconds
        self._turn = threading.Lock()
        drawn = np.random.default_rng(0).standard_normal((SHADES, SLEEPER.dimension), np.float32)
        self._vectors = torch.from_numpy(drawn)
        self.counted = {"passes": 0.0, "images": 0.0, "busy": 0.0}

    def __call__(self, batch):  # type: ignore[no-untyped-def]
        with self._turn:
            since = time.perf_counter()
            time.sleep(self._seconds)
            self.counted["passes"] += 1
            self.counted["images"] += len(batch)
            self.counted["busy"] += time.perf_counter() - since
        brightness = np.asarray(batch, np.uint32).reshape(len(batch), -1).sum(1)
        return self._vectors[(brightness % SHADES).tolist()], None


def take_sleeping_encoder() -> Sleep:
    """Has the workers of this process load an encoder that sleeps."""
    import torch

    from workers import embedder
    from workers.network.encoder import Encoder

    forward = Sleep(float(os.environ[SLEEP_VARIABLE]))

    def load(_, settings):  # type: ignore[no-untyped-def]
        encoder = Encoder(SLEEPER, forward, "0" * 64, torch.device("cpu"), settings.batch_size)
        encoder.passes = 1
        return encoder

    embedder.load_encoder = load
    return forward


def answer(output: int, counted: dict[str, float]) -> None:
    """Answers until the other side closes its end."""
    for _ in sys.stdin:
        os.write(output, json.dumps({"cpu": sum(measure_threads().values()), **counted}).encode() + b"\n")


def main() -> None:
    ENCODERS[SLEEPER.name] = SLEEPER
    if sys.argv[1] == "worker":
        forward = take_sleeping_encoder()
        answers = os.dup(1)
        os.dup2(2, 1)  # Celery greets on standard output
        threading.Thread(target=answer, args=(answers, forward.counted), name="answer", daemon=True).start()
    from cli.main import main as lookalike

    lookalike()


if __name__ == "__main__":
    main()
