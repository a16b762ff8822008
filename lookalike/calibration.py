"""Binary codes of vectors: signs of a rotation about a mean, by whole numbers so that SQL gives the same bits.

It never imports torch. Why the arithmetic is exact: a vector becomes `q = rint(2048 v)`, the rotation's
entries are whole numbers, and by Cauchy and Schwarz every partial sum of `R_i . q` is at most |R_i| |q|,
about 12 sqrt(d) 2048, 1.6 million for 4,096 dimensions: far below 2^24, up to which float32 holds every whole
number. So any order of summing, fused or not, in numpy or in pgvector, gives the same sum and the same bit.
Both `q` and `R` fit half precision, where whole numbers up to 2048 are exact, so that the database keeps them
as `halfvec`.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import numpy as np
from numpy.typing import NDArray

# What a unit vector's entries are multiplied with before they are rounded: the largest power of two that is
# exact in half precision for an entry of 1. A typical entry, 1 / sqrt(d), keeps 5 bits or more up to 4,096
# dimensions.
SCALE = 2048
# Standard deviation of the rotation's whole numbers. Rounding them turns a row by 0.29 / 12, about a degree.
SIGMA = 12
# Goes up when the same name and mean would give another rotation or other thresholds.
VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """How the vectors of one encoder become binary codes.

    Bit i of the code of v is set when `rotation[i] . rint(2048 v) > thresholds[i]`.
    rotation: int16 (d, d), nearly orthogonal rows of length about 12 sqrt(d), entries within -2048..2048.
    thresholds: float32 (d,), whole numbers.
    """

    rotation: NDArray[np.int16]
    thresholds: NDArray[np.float32]
    version: int = VERSION

    @property
    def dimension(self) -> int:
        """Length d of the vectors, and the number of bits of their codes."""
        return len(self.thresholds)

    @cached_property
    def _columns(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.rotation.T, np.float32)

    def codes(self, vectors: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Returns the codes of unit vectors, float32 or float16 (n, d), as uint8 (n, ceil(d / 8)).

        The first dimension is the most significant bit of the first byte, as in Postgres' type bit. The
        vectors are rounded to half precision first, as the database stores them. Raises ValueError for
        another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(f"vectors of shape {vectors.shape}, not (n, {self.dimension})")
        return np.packbits(_whole(vectors) @ self._columns > self.thresholds, axis=1)


def make_calibration(name: str, dimension: int, mean: NDArray[np.floating] | None = None) -> Calibration:
    """Makes the calibration of an encoder: a rotation seeded by its name, thresholds from a mean vector.

    `mean` is the average (d,) of unit vectors of many pictures; without it the one that is shipped for the
    encoder is taken, or zero. Make it once and keep it: the last digits of a rotation, hence codes near a
    threshold, may differ on another machine. Takes half a second for 1,280 dimensions, ten for 4,096.
    """
    seed = int.from_bytes(hashlib.sha256(f"lookalike rotation {VERSION} {name}".encode()).digest())
    gauss = np.random.Generator(np.random.PCG64(seed)).standard_normal(
        (dimension, dimension), dtype=np.float32
    )
    orthogonal, triangle = np.linalg.qr(gauss)
    # The signs make it unique and uniform over all rotations: Mezzadri, arXiv:math-ph/0609050, section 5.
    orthogonal *= np.sign(np.diagonal(triangle))
    rotation = np.clip(np.rint(SIGMA * np.sqrt(dimension) * orthogonal), -SCALE, SCALE).astype(np.int16)
    if mean is None:
        mean = shipped_mean(name)
    if mean is None:
        mean = np.zeros(dimension, np.float32)
    if mean.shape != (dimension,):
        raise ValueError(f"a mean of shape {mean.shape} for {dimension} dimensions")
    thresholds = np.rint(rotation.astype(np.float64) @ (SCALE * mean.astype(np.float64)))
    return Calibration(rotation, thresholds.astype(np.float32))


def shipped_mean(name: str) -> NDArray[np.float16] | None:
    """The mean vector, float16 (d,), that comes with the package for this encoder, or None.

    For efficientnet-lite0 it is the mean of the unit vectors of 4,900 random crops (20 to 100 % of the area)
    of 245 photographs: BoofCV's recognition set and those of scikit-image, each photograph with the same
    weight.
    """
    file = resources.files("lookalike").joinpath("calibrations", f"{name}.npy")
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        mean: NDArray[np.float16] = np.load(stream, allow_pickle=False)
    return mean


def _whole(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Whole numbers `rint(2048 v)`, halves to even, as SQL's `round(double precision)` has it."""
    whole: NDArray[np.float32] = np.rint(vectors.astype(np.float16).astype(np.float32) * np.float32(SCALE))
    return whole
