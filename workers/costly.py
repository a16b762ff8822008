"""Refuses files that are cheap to send and dear to decode: a decoder cannot be stopped, so it is not started.

It must never refuse what cameras, scanners and image editors write.
"""

import struct
from collections.abc import Iterator

from PIL import Image

from lookalike.errors import ImageError
from lookalike.reasons import Reason

# A progressive JPEG has some ten scans, each of which may touch every pixel with only a few bytes: 73 bytes cost
# 0.09 s of 48 megapixels. So many pixels in all its scans take about 4 s.
_USUAL_SCANS = 20
_SCANNED_PIXELS = 2_000_000_000
# Pillow makes an object of each value of an entry, and of each strip: a hundred times what they have in the file. The
# largest pictures that are decoded have some ten thousand strips or tiles.
_VALUES = 1_000_000
_TIFF_DIRECTORY = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
_TIFF_BYTES = frozenset((1, 2, 6, 7))  # types that stay bytes: profiles, text, other files within
# Text that takes the place of pixels: Pillow's time for it grows with the square of what its comments have.
_PLAIN = (b"P1", b"P2", b"P3")
_PLAIN_BYTES = 256 * 1024
# Decoders of Pillow's that are written in Python take 1 to 2 s for so many pixels.
_PYTHON_DECODERS = frozenset(("ppm", "bmp_rle"))
_PYTHON_PIXELS = 1_000_000
# An orientation takes a hundred bytes, and EXIF at most 64 kB in a JPEG; other formats have no limit of their own.
MAX_EXIF = 2**20


def refuse_scans(data: bytes, pixels: int) -> None:
    """Raises ImageError(BOMB) for a JPEG file whose scans add up to far more work than its picture has."""
    # Within a scan the byte FF is always followed by 00; other segments may hold a scan or two of thumbnails.
    scans = data.count(b"\xff\xda")
    if scans > _USUAL_SCANS and scans * pixels > _SCANNED_PIXELS:
        raise ImageError(Reason.BOMB, f"{scans} scans of {pixels} pixels")


def refuse_header(data: bytes) -> None:
    """Raises ImageError for a file that may not even be opened: BOMB for a TIFF directory of millions of values,
    UNSUPPORTED for large pictures written as text.
    """
    if data[:2] in _PLAIN and len(data) > _PLAIN_BYTES:
        raise ImageError(Reason.UNSUPPORTED, "a PPM, PGM or PBM file written as text, of more than 256 kB")
    if data[:4] in _TIFF_DIRECTORY:
        for tag, kind, count in _entries(data):
            if count > _VALUES and kind not in _TIFF_BYTES:
                raise ImageError(Reason.BOMB, f"a TIFF directory with {count} values in tag {tag}")


def refuse_slow(image: Image.Image) -> None:
    """Raises ImageError(UNSUPPORTED) for an opened file that only a decoder written in Python could read, if large."""
    slow = any(tile[0] in _PYTHON_DECODERS for tile in getattr(image, "tile", ()))
    if slow and image.width * image.height > _PYTHON_PIXELS:
        raise ImageError(Reason.UNSUPPORTED, f"a kind of {image.format} that takes long to decode")


def _entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields tag, type and count of each entry in the first directory, as far as there is one (TIFF 6.0, BigTIFF)."""
    order, big = _TIFF_DIRECTORY[data[:4]]
    header, number, entry, size = ("8xQ", "Q", "HHQ", 20) if big else ("4xI", "H", "HHI", 12)
    try:
        (at,) = struct.unpack_from(order + header, data)
        (count,) = struct.unpack_from(order + number, data, at)
        first = at + struct.calcsize(number)
        for each in range(min(count, 65_536)):
            tag, kind, values = struct.unpack_from(order + entry, data, first + each * size)
            yield tag, kind, values
    except (struct.error, OverflowError):  # cut off: Pillow says so
        return
