"""Resizes and crops a decoded picture to the network's input, in exactly torchvision's geometry.

Only the pixels that the crop shows are resized. The picture arrives as stored: its EXIF orientation is
applied here, to the small crop.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders import Preprocessing
from workers.network import resize

# EXIF orientation -> (swap rows and columns, then flip rows, then flip columns) makes the stored picture
# upright. CIPA DC-008 (Exif 2.32), table 6.
UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
# An edge of the crop may be off by so much of an output pixel; half a pixel
# costs .006 of cosine, this nothing.
_TOLERANCE = 0.02
_SEARCH = 64


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture as stored, perhaps at a reduced scale.

    `pixels` is uint8, height x width x 3. `size` is (height, width) before the reduction by a whole number,
    which rounds up. `origin` is where the picture's left and upper edges lie, in reduced pixels.
    `orientation` is the EXIF value 1..8. `profile` is the ICC profile that the colours are still in, one for
    grey pictures if `grey`.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    orientation: int
    profile: bytes | None
    grey: bool
    origin: float = 0.0


@dataclass(frozen=True, slots=True)
class _Span:
    """Along one axis: input `begin`..`end` resizes to `length` outputs; the first `skip` are dropped."""

    begin: int
    end: int
    length: int
    skip: int


def frame(picture: Picture, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Returns the network's view of a picture: upright, resized, centre-cropped.

    The result is uint8, crop x crop x 3, perhaps a view with strides; its colours are still in the picture's
    profile.
    """
    swap, flip_rows, flip_columns = UPRIGHT[picture.orientation]
    crop = preprocessing.crop
    height, width = _resized(picture.size[::-1] if swap else picture.size, preprocessing)
    top, left = round((height - crop) / 2.0), round((width - crop) / 2.0)
    # The same window as seen in the stored picture.
    top = height - crop - top if flip_rows else top
    left = width - crop - left if flip_columns else left
    if swap:
        height, width, top, left = width, height, left, top
    rows = _span(picture, 0, height, top, crop)
    columns = _span(picture, 1, width, left, crop)
    piece = np.ascontiguousarray(picture.pixels[rows.begin : rows.end, columns.begin : columns.end])
    resized = resize(piece, rows.length, columns.length, preprocessing.interpolation)
    view = resized[rows.skip : rows.skip + crop, columns.skip : columns.skip + crop]
    view = view.transpose(1, 0, 2) if swap else view
    return view[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _resized(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Returns (height, width) after torchvision's Resize: the longer side is truncated, not rounded."""
    target = preprocessing.resize
    if preprocessing.squash:
        return target, target
    height, width = size
    if width <= height:
        return int(target * height / width), target
    return target, int(target * width / height)


def _span(picture: Picture, axis: int, resized: int, offset: int, crop: int) -> _Span:
    """Returns the least input along one axis that gives outputs `offset`..`offset + crop` of `resized`."""
    available = picture.pixels.shape[axis]
    # The last pixel of a reduced picture may stand for fewer pixels than the others, so its size is not a
    # whole number.
    extent = picture.size[axis] / round(picture.size[axis] / available)
    scale = extent / resized
    skipped, begin = _spare(offset, scale, picture.origin)
    dropped, end = _spare(resized - offset - crop, scale, available - extent - picture.origin)
    return _Span(begin, available - end, resized - skipped - dropped, offset - skipped)


# An archive has few sizes, as image services and scanners make them.
@lru_cache(maxsize=4096)
def _spare(room: int, scale: float, margin: float) -> tuple[int, int]:
    """Returns how many outputs at one end, and the inputs that they stand for, can be left away unseen.

    `room` is the number of outputs between the edge of the picture and the crop, `scale` input pixels per
    output, `margin` the inputs outside of the edge. A cut must fall on an edge of both grids, or else the
    crop shifts; and it stays outside of the kernel's reach, two outputs, or two inputs when enlarging
    (bicubic, antialiased).
    """
    most = max(0, room - math.ceil(2 * max(1.0, 1 / scale)) - 1)
    best, least = (0, 0), math.inf
    for outputs in range(most, max(-1, most - _SEARCH), -1):
        edge = margin + outputs * scale
        inputs = max(0, round(edge))
        error = abs(edge - inputs) / scale
        if error < least:
            best, least = (outputs, inputs), error
        if error <= _TOLERANCE:
            break
    return best
