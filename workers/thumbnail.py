"""Makes the thumbnail of a picture that is decoded anyway: all of it, upright, in sRGB, as a small JPEG.

It must never fail an image, nor change what the network sees.
"""

import logging
import threading

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lookalike.thumbnails import SIDE
from workers.colour import to_srgb
from workers.framing import UPRIGHT, Picture
from workers.network import resize

log = logging.getLogger(__name__)

# Some 13 kB for a photograph of 320 x 240 pixels, 6 kB for a page; artefacts do not show at that size.
_QUALITY = 75


class _Missed:
    """How many thumbnails this process could not make or store. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self, number: int) -> None:
        with self._lock:
            self.count += number


missed = _Missed()


def try_thumbnail(picture: Picture) -> bytes | None:
    """The thumbnail of a decoded picture, as `frame` gets it; None where that fails, which is logged and counted."""
    try:
        return make_thumbnail(picture)
    except Exception as error:  # whatever it is: the image itself is sound
        log.warning("a thumbnail could not be made: %s: %s", type(error).__name__, error)
        missed.add(1)
        return None


def make_thumbnail(picture: Picture) -> bytes:
    """A JPEG with at most SIDE pixels on the longer side: never more than were decoded, which is at least 1.5 times the
    encoder's input on the shorter side where the original has so many.
    """
    height, width = picture.pixels.shape[:2]
    # The shape of the whole picture: the last pixel of a reduced one may stand for less than the others.
    scale = min(1.0, SIDE / max(height, width)) * max(height, width) / max(picture.size)
    rows, columns = (min(SIDE, max(1, round(side * scale))) for side in picture.size)
    small = picture.pixels if (rows, columns) == (height, width) else _resize(picture.pixels, rows, columns)
    if picture.profile:
        small = to_srgb(small, picture.profile, picture.grey)
    swap, flip_rows, flip_columns = UPRIGHT[picture.orientation]
    small = small.transpose(1, 0, 2) if swap else small
    small = small[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(small), _QUALITY, "RGB", "420")
    return jpeg


def _resize(pixels: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Antialiased; but of what is far larger only every so many pixels are looked at, as a thread of a picture has."""
    height, width = pixels.shape[:2]
    skip_rows, skip_columns = max(1, height // (8 * rows)), max(1, width // (8 * columns))
    if skip_rows > 1 or skip_columns > 1:
        pixels = np.ascontiguousarray(pixels[::skip_rows, ::skip_columns])
    return resize(pixels, rows, columns, "bilinear")
