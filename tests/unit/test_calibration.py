"""Calibrations: codes are whole-number arithmetic, the same everywhere, and rank as the vectors do."""

from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from lookalike.calibration import SCALE, SIGMA, make_calibration, shipped_mean
from lookalike.settings import Settings
from workers.network import load_encoder, resize

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "photos" / "vacation"
BUNDLED = Path(skimage.__file__).parent / "data"


def unit_vectors(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def exact_bits(calibration, vectors: np.ndarray) -> np.ndarray:
    """The definition, in 64-bit whole numbers."""
    whole = np.rint(vectors.astype(np.float16).astype(np.float64) * SCALE).astype(np.int64)
    return whole @ calibration.rotation.T.astype(np.int64) > calibration.thresholds.astype(np.int64)


@pytest.fixture(scope="module")
def calibration():
    return make_calibration("efficientnet-lite0", 1280)


def test_codes_are_exact(calibration):
    """float32 arithmetic gives the bits of 64-bit whole numbers, also for the longest sums there can be."""
    extreme = np.zeros((4, 1280), np.float32)
    extreme[0, 7] = 1
    extreme[1] = -1 / np.sqrt(1280)
    extreme[2] = calibration.rotation[5] / np.linalg.norm(calibration.rotation[5])
    extreme[3, ::2] = 1 / np.sqrt(640)
    vectors = np.concatenate([extreme, unit_vectors(500, 1280)])
    bits = np.unpackbits(calibration.codes(vectors), axis=1)
    assert np.array_equal(bits.astype(bool), exact_bits(calibration, vectors))


def test_the_order_of_summing_does_not_matter(calibration):
    """Neither do blocks, fused operations or another library: each partial sum is exact in float32."""
    vectors, shuffle = unit_vectors(50, 1280), np.random.default_rng(1).permutation(1280)
    whole = np.rint(vectors.astype(np.float16).astype(np.float32) * SCALE)
    columns = calibration.rotation.T.astype(np.float32)
    blocks = sum(whole[:, i : i + 7] @ columns[i : i + 7] for i in range(0, 1280, 7))
    assert np.array_equal(whole @ columns, whole[:, shuffle] @ columns[shuffle])
    assert np.array_equal(whole @ columns, blocks)


def test_sums_stay_exact_up_to_4096_dimensions():
    """The bound of Cauchy and Schwarz, with room for rounding, lies below 2 ** 24."""
    assert 1.1 * SIGMA * np.sqrt(4096) * SCALE < 2**24
    rotation = make_calibration("any", 256).rotation.astype(np.float64)
    assert np.linalg.norm(rotation, axis=1).max() < 1.1 * SIGMA * np.sqrt(256)


def test_half_precision_vectors_have_the_same_codes(calibration):
    """What the database stores and what the network said give one code."""
    vectors = unit_vectors(100, 1280)
    assert np.array_equal(calibration.codes(vectors), calibration.codes(vectors.astype(np.float16)))


def test_bits_are_packed_as_postgres_writes_them():
    """The first dimension is the highest bit of the first byte; the last byte is filled with zeros."""
    calibration = make_calibration("any", 12)
    vectors = unit_vectors(20, 12)
    codes = calibration.codes(vectors)
    assert (codes.dtype, codes.shape) == (np.uint8, (20, 2))
    written = ["".join(f"{byte:08b}" for byte in code) for code in codes]
    bits = exact_bits(calibration, vectors)
    assert written == ["".join("1" if bit else "0" for bit in row) + "0000" for row in bits]


def test_a_rotation_keeps_angles_and_belongs_to_its_name():
    """Nearly orthogonal, the same again for the same name, another one for another."""
    one, again, other = (make_calibration(name, 128) for name in ("one", "one", "other"))
    rows = one.rotation / (SIGMA * np.sqrt(128))
    assert np.abs(rows @ rows.T - np.eye(128)).max() < 0.02
    assert np.array_equal(one.rotation, again.rotation)
    assert not np.array_equal(one.rotation, other.rotation)
    assert np.abs(one.rotation).max() <= SCALE


def test_thresholds_come_from_the_mean():
    """Without a mean they are zero; with one, each bit is set for half of the vectors around it."""
    assert not make_calibration("any", 64).thresholds.any()
    mean = unit_vectors(1, 64, seed=3)[0]
    vectors = mean + 0.3 * unit_vectors(4000, 64, seed=4)
    calibration = make_calibration("any", 64, mean)
    share = np.unpackbits(calibration.codes(vectors), axis=1).mean(axis=0)
    assert np.abs(share - 0.5).max() < 0.05
    assert np.array_equal(calibration.thresholds, np.rint(calibration.thresholds))


def test_the_shipped_mean_is_used(calibration):
    """efficientnet-lite0 comes with the mean of real vectors; others have none until they are calibrated."""
    mean = shipped_mean("efficientnet-lite0")
    assert (mean.dtype, mean.shape, shipped_mean("vgg16-fc7")) == (np.float16, (1280,), None)
    assert 0.4 < np.linalg.norm(mean.astype(np.float32)) < 0.6
    assert (calibration.thresholds != 0).mean() > 0.99


def test_another_dimension_is_refused(calibration):
    """A vector of another encoder is a mistake, not a code."""
    with pytest.raises(ValueError, match=r"not \(n, 1280\)"):
        calibration.codes(unit_vectors(2, 512))
    with pytest.raises(ValueError, match="a mean of shape"):
        make_calibration("any", 64, np.zeros(65))


def crops(paths: list[Path], each: int) -> np.ndarray:
    """Random crops of photographs, uint8 (n, 224, 224, 3)."""
    random, found = np.random.default_rng(7), []
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        for _ in range(each):
            side = int(min(pixels.shape[:2]) * random.uniform(0.5, 1))
            top = random.integers(0, pixels.shape[0] - side + 1)
            left = random.integers(0, pixels.shape[1] - side + 1)
            found.append(resize(pixels[top : top + side, left : left + side], 224, 224, "bicubic"))
    return np.stack(found)


def test_hamming_distance_finds_the_nearest_of_real_vectors(calibration):
    """The true ten nearest lie within the best fifty by Hamming distance, for photographs and their crops."""
    names = (
        "astronaut",
        "brick",
        "camera",
        "chelsea",
        "coffee",
        "coins",
        "color",
        "grass",
        "gravel",
        "moon",
        "page",
    )
    paths = [BUNDLED / f"{name}.png" for name in names] + sorted(SHARED.glob("*.jpg"))[::3]
    encoder = load_encoder("efficientnet-lite0", Settings(_env_file=None, device="cpu"))
    vectors = encoder.encode(crops(paths, 4)).vectors
    signs = np.unpackbits(calibration.codes(vectors), axis=1).astype(np.float32) * 2 - 1
    by_cosine = np.argsort(-vectors @ vectors.T, axis=1)[:, 1:11]
    by_hamming = np.argsort(-signs @ signs.T, axis=1)[:, :50]
    recall = np.mean([np.isin(near, best).mean() for near, best in zip(by_cosine, by_hamming, strict=True)])
    assert recall > 0.95
