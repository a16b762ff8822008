"""Compares miniatures of pictures: are two images the same picture, though one is cropped, grey, lighter or noisy?

Vectors say what is near; miniatures tell the same picture from another one of the same place.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from lookalike.vectors import MINIATURE

# A crop keeps so much of each side; below, little is left to compare in 12 pixels.
SCALES = (0.94, 0.88, 0.8, 0.72)
# Where along a side a crop may lie, as shares of the room.
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Pictures of less contrast (standard deviation, in greys of 255) are blank: their grain says nothing.
BLANK = 4.0


def likeness(first: bytes, second: NDArray[np.uint8]) -> float:
    """How well one picture matches a part of the other, -1..1, whichever of the two is the cropped one.

    `first` is a miniature as stored, `second` one as uint8 (12, 12). It is the normalised cross-correlation (Lewis,
    Fast Normalized Cross-Correlation, 1995), which light and contrast don't change, at its best over crops. A blank
    picture is like nothing, not even another one: a million blank pages are no near-duplicates, but unwanted.
    """
    a = np.frombuffer(first, np.uint8).astype(np.float32)
    b = second.astype(np.float32).ravel()
    if min(a.std(), b.std()) < BLANK:
        return 0.0
    parts, others = _normalised(_crops() @ a), _normalised(_crops() @ b)
    # Row 0 is the whole picture.
    best = max((parts @ others[0]).max(), (others @ parts[0]).max())
    return min(1.0, float(best))  # rounding may go beyond, which the database refuses


def _normalised(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = pictures - pictures.mean(axis=1, keepdims=True)
    scaled: NDArray[np.float32] = centred / (np.linalg.norm(centred, axis=1, keepdims=True) + 1e-6)
    return scaled


@cache
def _crops() -> NDArray[np.float32]:
    """Returns what makes of a miniature (144,) its crops (101, 144), enlarged bilinearly: float32 (101, 144, 144)."""
    lines = [np.stack([_line(1.0, 0.0)] * 2)]
    lines += [np.stack([_line(s, y), _line(s, x)]) for s in SCALES for y in PLACES for x in PLACES]
    return np.stack([np.kron(rows, columns) for rows, columns in lines]).astype(np.float32)


def _line(scale: float, place: float) -> NDArray[np.float64]:
    """The weights (12, 12) that make 12 pixels of a part of 12 pixels: each row is one output."""
    room = MINIATURE * (1 - scale)
    centres = np.clip(room * place + (np.arange(MINIATURE) + 0.5) * scale - 0.5, 0, MINIATURE - 1)
    left = np.minimum(centres.astype(int), MINIATURE - 2)
    weights = np.zeros((MINIATURE, MINIATURE))
    weights[np.arange(MINIATURE), left] = 1 - (centres - left)
    weights[np.arange(MINIATURE), left + 1] = centres - left
    return weights
