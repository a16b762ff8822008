"""Thumbnails: all of the picture, upright, in its colours, small; and never at the cost of the image."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cli.demo import find_photographs
from lookalike.encoders import Preprocessing, find_encoder
from lookalike.thumbnails import SIDE
from tests.pictures import SHARED, jpeg
from workers import thumbnail
from workers.appearance import Glimpse
from workers.decode import decode

LITE = find_encoder("efficientnet-lite0").preprocessing
PHOTOGRAPH = Image.open(find_photographs()[0]).convert("RGB")
MODES = sorted(path for path in (SHARED / "edits" / "modes").glob("*.*") if path.suffix != ".md")


def glimpse(data: bytes, preprocessing: Preprocessing = LITE, thumbnail: bool = True) -> Glimpse:
    out = np.empty((preprocessing.crop, preprocessing.crop, 3), np.uint8)
    return decode(data, preprocessing, out, 200_000_000, thumbnail=thumbnail)


def look(data: bytes, preprocessing: Preprocessing = LITE) -> Image.Image:
    made = glimpse(data, preprocessing).thumbnail
    assert made is not None
    picture = Image.open(io.BytesIO(made))
    assert (picture.format, picture.mode, max(picture.size) <= SIDE) == ("JPEG", "RGB", True)
    assert not picture.getexif()
    return picture


def save(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference in grey levels."""
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other.resize(one.size), np.int16)).mean())


@pytest.mark.parametrize(
    "size", [(1200, 800), (800, 1200), (4000, 300), (300, 4000), (321, 320), (100, 60), (16, 16)]
)
def test_it_is_the_whole_picture_in_its_shape(size: tuple[int, int]) -> None:
    """320 pixels on the longer side, nothing cropped, nothing enlarged; whatever scale it was decoded at."""
    original = PHOTOGRAPH.resize(size)
    made = look(jpeg(original, 95))

    scale = min(1.0, SIDE / max(size))
    assert made.size == tuple(max(1, round(side * scale)) for side in size)
    # The fewer pixels, the more detail in each, and JPEG leaves less of it.
    assert difference(made, original) < (6 if min(made.size) > 100 else 14)


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
def test_odd_modes_look_like_the_photograph(path: Path) -> None:
    """CMYK, LAB, palettes, alpha, 16 bits, floats, one bit: a thumbnail shows what a viewer does."""
    reference = Image.open(SHARED / "edits" / "modes" / "original.jpg").convert("RGB")
    grey = path.name in ("1.png", "L.png", "LA.png", "F.webp", "I.webp")
    expected = reference.convert("L").convert("RGB") if grey else reference
    made = look(path.read_bytes())

    assert made.size == (SIDE, round(SIDE * reference.height / reference.width))
    assert difference(made, expected) < 12


def test_sixteen_bits_and_transparency() -> None:
    """16 bits are scaled, and what is transparent is white."""
    photograph = PHOTOGRAPH.convert("L")
    deep = Image.fromarray(np.asarray(photograph).astype(np.uint16) * 257)
    assert difference(look(save(deep, "PNG")), photograph.convert("RGB")) < 6
    clear = Image.new("RGBA", (400, 400), (10, 20, 30, 0))
    assert np.asarray(look(save(clear, "PNG"))).min() >= 250
    palette = clear.convert("RGB").quantize(4)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert np.asarray(look(save(palette, "PNG", transparency=palette.getpixel((0, 0))))).min() >= 250


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "TIFF", "PNG"])
def test_it_is_upright(form: str, orientation: int) -> None:
    """EXIF orientation is applied, and then gone."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    original = PHOTOGRAPH.resize((500, 300))
    data = save(original, form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")

    assert difference(look(data), expected) < 6


def test_huge_pictures_are_not_decoded_in_full() -> None:
    """What the decoder holds of 54 megapixels suffices, for a small encoder too; a thread of a picture is quick."""
    huge = save(PHOTOGRAPH.resize((9000, 6000)), "JPEG", quality=60)
    assert look(huge).size == (320, 213)
    # An encoder of 64 pixels needs 96 on the shorter side: where fewer than 320 are left, the thumbnail has these.
    small = Preprocessing(64, 64, "bilinear", (0.5,) * 3, (0.5,) * 3)
    assert look(jpeg(PHOTOGRAPH.resize((900, 600))), small).size == (225, 150)
    assert look(jpeg(PHOTOGRAPH.resize((16, 60_000)))).size == (1, 320)


def test_without_a_wish_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off means that nothing is made, and nothing changes: the network sees the same with one."""
    data, missed = jpeg(PHOTOGRAPH), thumbnail.missed.count
    monkeypatch.setattr(thumbnail, "make_thumbnail", None)  # would raise
    assert glimpse(data, thumbnail=False).thumbnail is None
    assert thumbnail.missed.count == missed
    monkeypatch.undo()
    one, other = (np.empty((LITE.crop, LITE.crop, 3), np.uint8) for _ in range(2))
    decode(data, LITE, one, 10**9)
    decode(data, LITE, other, 10**9, thumbnail=True)
    assert (one == other).all()


def test_a_failure_costs_the_image_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and counted; the image is decoded as ever."""

    def fail(_: object) -> bytes:
        raise OSError("no room")

    monkeypatch.setattr(thumbnail, "make_thumbnail", fail)
    monkeypatch.setattr(thumbnail, "missed", thumbnail._Missed())
    seen = glimpse(jpeg(PHOTOGRAPH))

    assert (seen.thumbnail, thumbnail.missed.count) == (None, 1)
    assert "no room" in caplog.text
