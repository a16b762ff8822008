"""`python -m bench.chaos.child WORDS`: the command `lookalike`, for a run of the bench.

It knows one more encoder, whose passes cost next to nothing, and its workers write down every image that they encode.
"""

import os
import sys
import time

import numpy as np

from lookalike.encoders import ENCODERS, EncoderSpec, Preprocessing

# So cheap that a run is bound by its faults and not by the network.
PROJECTION = EncoderSpec(
    "chaos-projection",
    64,
    "bench.projection",
    "none",
    "halved",
    "none",
    Preprocessing(40, 32, "bilinear", (0.5,) * 3, (0.5,) * 3),
    classifies=False,
)
# A line for each batch: the time, then ids of images.
RECORD_VARIABLE = "CHAOS_RECORD"


def load_projection(name, settings):  # type: ignore[no-untyped-def]
    """A random projection of the pixels in place of a network; the rest of the encoder is the real one."""
    import torch

    from workers.network.encoder import Encoder, load_encoder

    if name != PROJECTION.name:
        return load_encoder(name, settings)
    crop = PROJECTION.preprocessing.crop
    drawn = np.random.default_rng(0).standard_normal((crop * crop * 3, PROJECTION.dimension))
    matrix = torch.from_numpy(drawn.astype(np.float32))

    class Forward:
        name = "projection"

        def __call__(self, batch):  # type: ignore[no-untyped-def]
            pixels = torch.from_numpy(np.ascontiguousarray(batch)).reshape(len(batch), -1).float()
            return (pixels / 255 - 0.5) @ matrix, None

    return Encoder(PROJECTION, Forward(), "0" * 64, torch.device("cpu"), settings.batch_size)


def record_batches() -> None:
    """Has the workers of this process write down what they encode; appended at once, so that a kill loses nothing."""
    from workers import embedder
    from workers.pipeline import Pipeline

    embedder.load_encoder = load_projection
    encode = Pipeline._encode
    record = os.open(os.environ[RECORD_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def encode_and_record(self, batch, pixels):  # type: ignore[no-untyped-def]
        encode(self, batch, pixels)
        ids = " ".join(str(item.work.images[item.index].id) for item in batch)
        os.write(record, f"{time.time()} {ids}\n".encode())

    Pipeline._encode = encode_and_record


if __name__ == "__main__":
    ENCODERS[PROJECTION.name] = PROJECTION
    if sys.argv[1] == "worker":
        record_batches()
    from cli.main import main

    main()
