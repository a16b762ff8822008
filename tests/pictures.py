"""Photographs for tests: real ones where they can be had, and near-copies and damaged files made from them."""

import io
from functools import cache
from pathlib import Path

from PIL import Image

from cli.demo import find_photographs

# Stands beside the checkout where the whole team works, and may be absent.
SHARED = Path(__file__).parents[2] / "shared" / "data"


@cache
def photographs() -> list[Image.Image]:
    """Different photographs, at most 500 pixels wide: those inside packages, then shared ones, no place twice."""
    paths = find_photographs() + sorted((SHARED / "photos" / "pixabay").glob("*.jpg"))
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            picture.draft("RGB", (500, 500))
            small = picture.convert("RGB")
        small.thumbnail((500, 500))
        pictures.append(small)
    return pictures


def jpeg(picture: Image.Image, quality: int = 85) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def near_copy(picture: Image.Image, number: int) -> Image.Image:
    """A copy that a person would call the same picture: cropped a little, turned a little, or smaller."""
    width, height = picture.size
    trim = 0.03 + 0.01 * (number % 3)
    if number % 2:
        return picture.rotate(2 + number % 3, Image.Resampling.BICUBIC, fillcolor="grey")
    return picture.crop(
        (int(width * trim), int(height * trim), int(width * (1 - trim)), int(height * (1 - trim)))
    )


def bomb() -> bytes:
    """A PNG of a few bytes whose header promises 50,000 x 50,000 pixels."""
    import struct
    import zlib

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"")) + part(b"IEND", b"")
    )
