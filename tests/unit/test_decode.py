"""Decoding: every kind of picture gives the network the same view, and every kind of rubbish its reason."""

import io
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from lookalike.encoders import ENCODERS, Preprocessing
from lookalike.errors import ImageError
from lookalike.reasons import Reason
from workers.decode import _PixelBudget, decode

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LITE = ENCODERS["efficientnet-lite0"].preprocessing
PHOTOGRAPHS = sorted(SHARED.glob("photos/*/*.jpg"))[::25] + sorted(SHARED.glob("edits/*/*.jpg"))[::3]
MODES = sorted(path for path in SHARED.glob("edits/modes/*") if path.suffix != ".md")
Pixels = NDArray[np.uint8]


def look(data: bytes, preprocessing: Preprocessing = LITE, max_pixels: int = 200_000_000) -> Pixels:
    out = np.zeros((preprocessing.crop, preprocessing.crop, 3), np.uint8)
    decode(data, preprocessing, out, max_pixels)
    return out


def look_in_full(image: Image.Image, preprocessing: Preprocessing = LITE) -> Pixels:
    """The yardstick: everything decoded, Pillow's own resize, torchvision's geometry."""
    size = [preprocessing.resize] * (2 if preprocessing.squash else 1)
    mode = InterpolationMode(preprocessing.interpolation)
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(transforms.center_crop(transforms.resize(upright, size, mode), [preprocessing.crop]))


def distance(a: Pixels, b: Pixels) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(a.astype(np.int16) - b).mean())


def refuse(data: bytes, max_pixels: int = 200_000_000) -> Reason:
    with pytest.raises(ImageError) as caught:
        look(data, max_pixels=max_pixels)
    return caught.value.reason


def save(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **({"compress_level": 1} if format == "PNG" else {}), **options)
    return buffer.getvalue()


@cache
def paint(width: int = 640, height: int = 480) -> Image.Image:
    """A picture that is different at every place, smooth, and has no symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    red = 127 + 100 * np.sin(x / 23 + y / 71)
    green = 127 + 100 * np.cos(y / 31 - x / 113)
    blue = 255 * (x * 2 + y) / (2 * width + height)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def header_of_png(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"\0\0\0\0IEND\xae\x42\x60\x82"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + end


# Geometry and fidelity


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.name)
def test_photographs_look_as_if_decoded_in_full(path: Path) -> None:
    """Reduced decoding and the resize of the crop alone give what torchvision's transforms give."""
    assert distance(look(path.read_bytes()), look_in_full(Image.open(path))) <= 1.5


@pytest.mark.parametrize("format", ["JPEG", "TIFF", "JPEG2000"])
@pytest.mark.parametrize(
    "size", [(256, 256), (257, 300), (300, 225), (100, 333), (16, 900), (901, 77), (1201, 903), (1543, 2101)]
)
def test_geometry_is_torchvisions(format: str, size: tuple[int, int]) -> None:
    """Sizes, rounding and offsets are those of Resize and CenterCrop, whatever scale the decoder reads at."""
    data = save(paint(*size), format, **({"quality": 95} if format == "JPEG" else {}))
    assert distance(look(data), look_in_full(paint(*size))) <= 1.0


@pytest.mark.parametrize(
    "preprocessing",
    [
        ENCODERS["resnet50"].preprocessing,
        ENCODERS["vgg16-fc7"].preprocessing,
        Preprocessing(224, 224, "bicubic", LITE.mean, LITE.std, squash=True),
        Preprocessing(257, 224, "bilinear", LITE.mean, LITE.std),
    ],
    ids=["resnet50", "vgg16", "squash", "odd"],
)
def test_geometry_follows_the_preprocessing(preprocessing: Preprocessing) -> None:
    """Other resizes, other interpolations and the squash of the whole picture are torchvision's too."""
    actual = look(save(paint(1203, 901), "JPEG", quality=95), preprocessing)
    assert distance(actual, look_in_full(paint(1203, 901), preprocessing)) <= 1.5


def test_a_thread_of_a_picture_needs_no_memory_for_its_length() -> None:
    """Only what the crop shows is resized: 16 x 200,000 pixels, resized whole, would take 2 GB."""
    data = save(Image.new("L", (16, 200_000), 77), "PNG")
    assert look(data).min() == look(data).max() == 77


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    """A picture stored in any of the eight orientations looks as the upright one does."""
    upright = paint(641, 480)
    stored = ImageOps.exif_transpose(_tagged(upright, _INVERSE[orientation]))
    data = save(stored, format, exif=_exif(orientation), **({"quality": 95} if format != "PNG" else {}))
    assert distance(look(data), look_in_full(upright)) <= 2.0


_INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _tagged(image: Image.Image, orientation: int) -> Image.Image:
    return Image.open(io.BytesIO(save(image, "PNG", exif=_exif(orientation))))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0" + b"rubbish" * 9]
)
def test_damaged_exif_is_ignored(exif: bytes) -> None:
    """Broken metadata is no reason to refuse a sound picture."""
    data = save(paint(), "JPEG", exif=exif)
    assert distance(look(data), look(save(paint(), "JPEG"))) == 0


# Pixel modes


@pytest.mark.parametrize("path", MODES, ids=lambda path: path.name)
def test_all_modes_of_one_photograph_look_alike(path: Path) -> None:
    """The same photograph in colour looks the same in every mode, and in grey modes as its grey version."""
    original = Image.open(SHARED / "edits/modes/original.jpg")
    grey = path.stem in ("1", "L", "LA", "F", "I")
    expected = look_in_full(original.convert("L") if grey else original)
    tolerance = {"1": 14.0, "P": 5.0, "PA": 5.0, "CMYK": 4.0}.get(path.stem, 3.0)
    assert distance(look(path.read_bytes()), expected) <= tolerance


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    """Pillow's own conversion of 16-bit grey to RGB is nearly white; the range must be kept."""
    grey = paint().convert("L")
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for format in ("PNG", "TIFF"):
        assert distance(look(save(wide, format)), look_in_full(grey)) <= 1.0


def test_twelve_bits_in_sixteen_are_not_black() -> None:
    """Scanners store 12 bits in the lower part of 16."""
    grey = paint().convert("L")
    wide = Image.fromarray((np.asarray(grey).astype(np.float32) * 4095 / 255).astype(np.uint16))
    assert distance(look(save(wide, "TIFF")), look_in_full(grey)) <= 1.5


@pytest.mark.parametrize("change", [lambda a: a / 255, lambda a: a, lambda a: a * 9 - 300])
def test_floats_span_their_range(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
    """Floats of 0..1, of 0..255 and of any other range become the grey picture that they are."""
    grey = np.asarray(paint().convert("L")).astype(np.float32)
    stretched = Image.fromarray(np.interp(grey, (grey.min(), grey.max()), (0, 255)).astype(np.uint8))
    plain = Image.fromarray(grey.astype(np.uint8))
    expected = look_in_full(stretched if change(grey).max() > 255 else plain)
    assert distance(look(save(Image.fromarray(change(grey)), "TIFF")), expected) <= 1.5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_show_white(mode: str) -> None:
    """Colours hidden below transparency must not appear."""
    image = paint().convert("RGBA")
    image.paste((200, 0, 0, 0), (0, 0, 640, 300))
    data = save(image.convert("LA") if mode == "LA" else image, "PNG") if mode != "PA" else save(image, "GIF")
    view = look(data)
    assert distance(view[:100], np.full_like(view[:100], 255)) <= 0.5
    assert view[180:].mean() < 200


def test_transparency_as_one_colour_shows_white() -> None:
    """A PNG may declare one of its colours transparent."""
    image = Image.new("RGB", (300, 300), (10, 20, 30))
    assert look(save(image, "PNG", transparency=(10, 20, 30))).min() == 255


def test_inks_are_converted_as_adobe_writes_them() -> None:
    """A CMYK JPEG without profile looks as its RGB version, not as its negative."""
    cmyk = paint().convert("CMYK")
    assert distance(look(save(cmyk, "JPEG", quality=95)), look_in_full(cmyk)) <= 2.0
    assert distance(look(save(cmyk, "TIFF")), look_in_full(cmyk)) <= 1.0


def test_lab_is_converted() -> None:
    """Pillow itself refuses to turn LAB into RGB."""
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(paint(), transform)
    assert lab is not None
    assert distance(look(save(lab, "TIFF")), look_in_full(paint())) <= 3.0


def test_embedded_profiles_are_converted_to_srgb() -> None:
    """A picture in another colour space, tagged with it, looks as the sRGB picture it stands for."""
    space = ImageCms.ImageCmsProfile(io.BytesIO(swapped_profile()))
    image = paint()
    swapped = Image.merge("RGB", image.split()[::-1])
    assert len(space.tobytes()) > 100
    for format in ("JPEG", "PNG", "TIFF"):
        data = save(
            swapped, format, icc_profile=space.tobytes(), **({"quality": 95} if format == "JPEG" else {})
        )
        assert distance(look(data), look_in_full(image)) <= 4.0


def swapped_profile() -> bytes:
    """Returns sRGB's profile with the red and blue primaries exchanged: a profile whose effect cannot be missed."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    mutable = bytearray(profile)
    mutable[red : red + 4], mutable[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(mutable)


def test_a_damaged_profile_is_ignored() -> None:
    """As browsers do, with a profile that is rubbish or for other colours."""
    plain = save(paint(), "JPEG")
    for profile in (b"rubbish" * 50, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        assert distance(look(save(paint(), "JPEG", icc_profile=profile)), look(plain)) == 0


def test_the_first_frame_counts() -> None:
    """Animations and many pages are embedded by their first picture."""
    other = Image.new("RGB", (640, 480), "red")
    for format in ("GIF", "WEBP", "TIFF", "PNG"):
        data = save(paint(), format, save_all=True, append_images=[other])
        assert distance(look(data), look_in_full(paint())) <= (12.0 if format == "GIF" else 4.0)


@pytest.mark.parametrize("size", [(1201, 903), (1200, 900), (1543, 1601)])
def test_jpeg_2000_is_read_at_a_reduced_level(size: tuple[int, int]) -> None:
    """Odd dimensions, which Pillow calls a broken data stream when reduced, work as well; so do few levels."""
    image = paint(*size)
    for levels in (6, 2):
        data = save(image, "JPEG2000", num_resolutions=levels)
        assert distance(look(data), look_in_full(image)) <= 1.0


def test_progressive_grey_and_rgb_jpegs() -> None:
    """The rarer forms of JPEG take the fast road too."""
    grey = paint().convert("L")
    assert distance(look(save(paint(), "JPEG", progressive=True, quality=95)), look_in_full(paint())) <= 1.5
    assert distance(look(save(grey, "JPEG", quality=95)), look_in_full(grey)) <= 1.0
    assert distance(look(save(paint(), "JPEG", keep_rgb=True, quality=95)), look_in_full(paint())) <= 1.0


# Bad input


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"<!DOCTYPE html><html><body>404</body></html>", Reason.HTML_PAGE),
        (b"\xef\xbb\xbf \n<html>", Reason.HTML_PAGE),
        ("\ufeff<html>".encode("utf-16-le"), Reason.HTML_PAGE),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', Reason.HTML_PAGE),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', Reason.UNSUPPORTED),
        (b'{"error": "not found"}', Reason.NOT_AN_IMAGE),
        (b"%PDF-1.7 " + bytes(500), Reason.NOT_AN_IMAGE),
        (b"\0" * 5000, Reason.NOT_AN_IMAGE),
        (b"\0\0\0\x18ftypheic" + bytes(200), Reason.UNSUPPORTED),
        (b"\0\0\0\x18ftypisom" + bytes(200), Reason.NOT_AN_IMAGE),
        (b"\xff\x0a" + bytes(200), Reason.UNSUPPORTED),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Reason.UNSUPPORTED),
        (b"\xff\xd8\xff\xe0", Reason.TRUNCATED),
        (b"\xff\xd8\xff\xd9", Reason.CORRUPT),
        (b"\x89PNG\r\n\x1a\n", Reason.TRUNCATED),
        (b"RIFF\xff\xff\0\0WEBPVP8 ", Reason.TRUNCATED),
        (b"II*\0\x08\0\0\0\0\0", Reason.UNSUPPORTED),
    ],
)  # fmt: skip
def test_what_is_no_picture_has_its_reason(data: bytes, reason: Reason) -> None:
    """Zero bytes, pages, other files and bare headers each fail with a reason of their own."""
    assert refuse(data) == reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "JPEG2000", "BMP"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_files_cut_short_are_refused(format: str, part: float) -> None:
    """Half a picture is never embedded as a whole one."""
    data = save(paint(), format)
    reason = refuse(data[: int(len(data) * part)])
    assert reason in ((Reason.TRUNCATED, Reason.UNSUPPORTED) if format == "TIFF" else (Reason.TRUNCATED,))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"keep_rgb": True}])
def test_jpegs_cut_short_are_refused_in_all_forms(options: dict[str, bool]) -> None:
    """The scaled decoder would return the missing part grey, at every scale."""
    for size in ((640, 480), (1600, 1600)):
        data = save(paint(*size), "JPEG", **options)
        assert refuse(data[: len(data) // 2]) == Reason.TRUNCATED
        assert refuse(data[: len(data) // 2] + b"\xff\xd9") == Reason.TRUNCATED
    cmyk = save(paint().convert("CMYK"), "JPEG")
    assert refuse(cmyk[: len(cmyk) // 2]) == Reason.TRUNCATED


def test_harmless_faults_of_jpegs_are_forgiven() -> None:
    """Stray bytes at the end, or no end marker, as many cameras write them: the picture is whole."""
    data = save(paint(), "JPEG")
    expected = look(data)
    assert distance(look(data + b"trailing rubbish"), expected) == 0
    assert distance(look(data[:-2] + bytes(40) + data[-2:]), expected) <= 1.0
    assert distance(look(data[:-2]), expected) <= 1.0


def test_damaged_pixels_are_corrupt() -> None:
    """A PNG whose compressed data is damaged, with its end in place, is not merely truncated."""
    data = bytearray(save(paint(), "PNG"))
    data[200:400] = bytes(200)
    assert refuse(bytes(data)) == Reason.CORRUPT


@pytest.mark.parametrize("width", [20_000, 30_000, 100_000])
def test_bombs_are_refused_by_their_header(width: int) -> None:
    """The number of pixels is checked before any is decoded, between one and two times the limit as well."""
    assert refuse(header_of_png(width, 20_000)) == Reason.BOMB


def test_jpeg_bombs_are_refused_by_their_header() -> None:
    """libjpeg-turbo has no limit of its own."""
    assert refuse(save(Image.new("L", (5000, 5000)), "JPEG"), max_pixels=24_999_999) == Reason.BOMB
    assert refuse(save(Image.new("CMYK", (500, 500)), "JPEG"), max_pixels=240_000) == Reason.BOMB


@pytest.mark.parametrize("size", [(15, 400), (400, 15), (1, 1)])
def test_specks_are_refused(size: tuple[int, int]) -> None:
    """Under 16 pixels on a side there is nothing to see."""
    for format in ("PNG", "JPEG"):
        assert refuse(save(Image.new("RGB", size), format)) == Reason.TOO_SMALL


def test_random_damage_gives_a_picture_or_a_reason() -> None:
    """Whatever happens to a file, nothing but ImageError comes out."""
    random = np.random.default_rng(7)
    for format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "JPEG2000", "BMP"):
        sound = np.frombuffer(save(paint(64, 48), format), np.uint8)
        for _ in range(40):
            damaged = sound.copy()
            places = random.integers(0, min(len(damaged), 2000), 4)
            damaged[places] = random.integers(0, 256, 4)
            with suppress(ImageError):
                look(damaged.tobytes(), max_pixels=1_000_000)


# Memory


def test_the_budget_bounds_what_is_decoded_at_once() -> None:
    """Never more pixels than the budget at once, nobody starves, and one larger than all goes alone."""
    budget, held, most, lock = _PixelBudget(100), 0, 0, threading.Lock()

    def work(pixels: int) -> None:
        nonlocal held, most
        for _ in range(20):
            with budget.hold(pixels):
                with lock:
                    held += min(pixels, 100)
                    most = max(most, held)
                with lock:
                    held -= min(pixels, 100)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (10, 30, 60, 90, 500, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most <= 100
    assert not any(thread.is_alive() for thread in threads)


def test_many_threads_see_what_one_sees() -> None:
    """Decoding is safe in threads, colour profiles included."""
    files = [
        save(paint(), "JPEG", icc_profile=swapped_profile()),
        save(paint(900, 700), "PNG"),
        save(paint(1501, 1203), "JPEG2000"),
        save(paint().convert("CMYK"), "JPEG"),
    ]
    expected = [look(data) for data in files]
    wrong: list[int] = []

    def work() -> None:
        for index in range(12):
            if distance(look(files[index % 4]), expected[index % 4]) > 0:
                wrong.append(index)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
