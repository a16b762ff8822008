"""What a picture looks like at a glance: its shape, its average colour, the few colours that stand for it, its outline.

A decoder thread only takes samples from all over the picture; the rest is done for all images of a chunk at once, in
whole numbers, so that equal samples give equal colours on every machine. It must never change what the network sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from lookalike.vectors import MINIATURE, PALETTE, Appearance
from workers.colour import to_srgb
from workers.framing import UPRIGHT, Picture

# Samples along each side. The miniature takes the mean of 8 x 8, so that grain and halftone leave no trace in it; the
# colours take every third.
_SAMPLES = 8 * MINIATURE
_THIRD = 3
# Cells of colour: three bits of each channel. A cell stands where the mean of its samples lies.
_CELLS = 512
# Colours nearer than this are shades of one, in L*a*b* with lightness counting less: otherwise light and shadow take
# most places in a palette. Chosen by looking at some forty photographs.
_APART = 16
_LIGHTNESS = 0.7


@dataclass(frozen=True, slots=True)
class Glimpse:
    """Samples of a picture, upright and in sRGB: uint8 (96, 96, 3), evenly over all of it; and its width / height.

    `thumbnail` is a JPEG of all of it, where one was wanted and could be made.
    """

    aspect_ratio: float
    samples: NDArray[np.uint8]
    thumbnail: bytes | None = None


def glimpse(picture: Picture, thumbnail: bytes | None = None) -> Glimpse:
    """Takes the samples of a decoded picture, as `frame` gets it."""
    height, width = picture.size
    pixels = np.ascontiguousarray(picture.pixels)
    # Nine times as quick as indexing with rows and columns.
    samples = pixels.reshape(-1, 3).take(_grid(*pixels.shape[:2]), axis=0).reshape(_SAMPLES, _SAMPLES, 3)
    if picture.profile:
        samples = to_srgb(samples, picture.profile, picture.grey)
    swap, flip_rows, flip_columns = UPRIGHT[picture.orientation]
    if swap:
        height, width = width, height
        samples = samples.transpose(1, 0, 2)
    upright = samples[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return Glimpse(width / height, upright, thumbnail)


# An archive has few sizes, as image services and scanners make them.
@lru_cache(maxsize=128)
def _grid(height: int, width: int) -> NDArray[np.int64]:
    """Returns the indices (96 x 96,) of pixels that are spread evenly over a picture of height x width."""
    rows, columns = ((2 * np.arange(_SAMPLES) + 1) * length // (2 * _SAMPLES) for length in (height, width))
    return (rows[:, None] * width + columns).ravel()


def appearances_of(glimpses: Sequence[Glimpse]) -> list[Appearance]:
    """Returns the shape, the colours and the miniature of n pictures."""
    if not glimpses:
        return []
    samples = np.stack([one.samples for one in glimpses])
    miniatures = _miniatures(samples)
    sums, sizes = _gather(samples[:, 1::_THIRD, 1::_THIRD].reshape(len(samples), -1, 3).astype(np.int64))
    order = np.argsort(-sizes, axis=1, kind="stable")
    return [
        _describe(one.aspect_ratio, mini, total[by], size[by])
        for one, mini, total, size, by in zip(glimpses, miniatures, sums, sizes, order, strict=True)
    ]


def _describe(
    ratio: float, miniature: NDArray[np.uint8], sums: NDArray[np.int64], sizes: NDArray[np.int64]
) -> Appearance:
    """An appearance from the sums (5, 3) and the counts (5,) of its colours, the largest first."""
    count = int(sizes.sum())
    used = int((sizes > 0).sum())
    return Appearance(
        ratio,
        _name(sums.sum(axis=0).tolist(), count),
        tuple(map(_name, sums[:used].tolist(), sizes[:used].tolist())),
        tuple((sizes[:used] / count).tolist()),
        miniature.tobytes(),
    )


def _miniatures(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the greys (n, 12, 12) of samples (n, 96, 96, 3): the luma of ITU-R BT.601, means of blocks."""
    block = _SAMPLES // MINIATURE
    # First along whole rows, which is quick; 8 x 255 fits 16 bits.
    strips = np.add.reduce(samples.reshape(len(samples), MINIATURE, block, -1), axis=2, dtype=np.uint16)
    sums = strips.reshape(len(samples), MINIATURE, MINIATURE, block, 3).sum(axis=3, dtype=np.uint32)
    greys = sums @ np.array([299, 587, 114], np.uint32)
    miniatures: NDArray[np.uint8] = (greys // (1000 * block * block)).astype(np.uint8)
    return miniatures


def _gather(samples: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gathers samples (n, s, 3) around up to five leaders: sums of red, green and blue (n, 5, 3), and counts (n, 5).

    Samples are counted in cells. The fullest cell leads, those around it follow it, then the fullest of what is left,
    and so on; in the end every cell goes to the leader that it is nearest to.
    """
    images = len(samples)
    cells = samples[..., 0] >> 5 << 6 | samples[..., 1] >> 5 << 3 | samples[..., 2] >> 5
    cells += _CELLS * np.arange(images)[:, None]
    everywhere = cells.ravel()
    counts = np.bincount(everywhere, minlength=images * _CELLS)
    filled = counts.nonzero()[0]
    image_of = filled // _CELLS
    counts = counts[filled]
    # Doubles hold such sums exactly.
    sums = np.stack(
        [np.bincount(everywhere, samples[..., c].ravel())[filled] for c in range(3)], axis=1
    ).astype(np.int64)
    means = sums // counts[:, None] >> 3
    places = _lab()[means[:, 0] << 10 | means[:, 1] << 5 | means[:, 2]]
    group = image_of * PALETTE + _leaders(places, counts, image_of, images)
    size = images * PALETTE
    gathered = np.stack([np.bincount(group, sums[:, c], size) for c in range(3)], axis=1).astype(np.int64)
    shares = np.bincount(group, counts, size).astype(np.int64)
    return gathered.reshape(images, PALETTE, 3), shares.reshape(images, PALETTE)


def _leaders(
    places: NDArray[np.float32], counts: NDArray[np.int64], image_of: NDArray[np.int64], images: int
) -> NDArray[np.int64]:
    """Returns which leader, 0..4, of its image each cell goes to, given the cells' places (m, 3) and counts (m,), and
    the images (m,), rising, that they are of."""
    left = counts.copy()
    nearest = np.full(len(counts), np.inf, np.float32)
    leaders = np.zeros(len(counts), np.int64)
    begins = np.searchsorted(image_of, np.arange(images))
    for number in range(PALETTE):
        fullest = _first_largest(left, image_of, begins)
        # All are whole numbers below 2^24, of which single precision holds every one.
        gap = places - places[fullest][image_of]
        away = np.einsum("ij,ij->i", gap, gap)
        # An image whose cells all follow somebody has no further leader.
        away[(left[fullest] == 0)[image_of]] = np.inf
        left[away < _APART**2] = 0
        leaders[away < nearest] = number
        nearest = np.minimum(away, nearest)
    return leaders


def _first_largest(
    values: NDArray[np.int64], image_of: NDArray[np.int64], begins: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The index of the largest value of each image, the first of several."""
    largest = np.maximum.reduceat(values, begins)
    places = np.where(values == largest[image_of], np.arange(len(values)), len(values))
    found: NDArray[np.int64] = np.minimum.reduceat(places, begins)
    return found


def _name(sums: Sequence[int], count: int) -> str:
    """The mean colour, rounded in whole numbers, as '#rrggbb'."""
    return "#{:02x}{:02x}{:02x}".format(*((2 * one + count) // (2 * count) for one in sums))


@cache
def _lab() -> NDArray[np.float32]:
    """Returns L* times 0.7, a* and b* (32768, 3), whole numbers, of the colours that five bits of a channel tell apart.

    The formulas are those of the SQL function `lab`; see there.
    """
    levels = (np.arange(32) * 8 + 4) / 255
    linear = np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)
    colours = np.stack(np.meshgrid(linear, linear, linear, indexing="ij"), axis=-1).reshape(-1, 3)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.072175],
            [0.0193339, 0.119192, 0.9503041],
        ]
    )
    xyz = colours @ to_xyz.T / np.array([0.95047, 1, 1.08883])
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 3) ** 3 / 116 + 16 / 116).T
    lab = np.stack([_LIGHTNESS * (116 * y - 16), 500 * (x - y), 200 * (y - z)], axis=1)
    return lab.round().astype(np.float32)
