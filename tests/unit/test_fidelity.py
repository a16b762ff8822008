"""The fast path from a file to a vector is held to the slow one: full decode, float, the network as it comes."""

import numpy as np
import pytest

from bench.fidelity import compare, resampled
from lookalike.settings import Settings
from workers.network import Encoder, load_encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("efficientnet-lite0", Settings(_env_file=None, device="cpu"))


@pytest.mark.parametrize(("side", "count"), [(400, 32), (1500, 20), (6000, 2)])
def test_the_fast_path_gives_the_vectors_of_the_slow_one(encoder, side, count):
    """Photographs of 400, 1,500 and 6,000 pixels: cosine 0.995 in the median, 0.98 at least."""
    cosines = compare(resampled(side, count), encoder)
    assert np.median(cosines) >= 0.995
    assert cosines.min() >= 0.98
