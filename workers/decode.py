"""Turns the bytes of an image file into the network's input, quickly for JPEG, robustly for everything else.

Whatever the bytes are, it gives a faithful picture or raises ImageError; it must never give half of one.
"""

import importlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lookalike.encoders import Preprocessing
from lookalike.errors import ImageError
from lookalike.reasons import Reason
from workers.appearance import Glimpse, glimpse
from workers.colour import flatten, to_srgb
from workers.costly import MAX_EXIF, refuse_header, refuse_scans, refuse_slow
from workers.formats import ends_early, refuse_non_images, unidentified
from workers.framing import Picture, frame
from workers.jpeg import JpegHeader, decode_scaled, read_header, upright_orientation
from workers.thumbnail import try_thumbnail

_SMALLEST_SIDE = 16
# Reduced decoding must leave so many times the network's input: cosine .999 (median) and .988 (least) to a full
# decode, measured over photographs of 690 to 6,000 pixels; of these, 1,500 pixels are decoded at a quarter.
_MARGIN = 1.5
# Pillow decodes these, and no other: its other formats start programs
# (EPS) or take seconds and gigabytes.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "TIFF", "GIF", "WEBP", "BMP", "JPEG2000", "PPM", "PSD", "AVIF"),
    *("HEIF", "JXL"),  # where their plugins are installed
)
_PLUGINS = {"pillow_heif": "register_heif_opener", "pillow_jxl": ""}


class _PixelBudget:
    """Bounds memory: so many pixels may be under decoding at once in a process. A larger image goes alone."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._held = 0
        self._door = threading.Lock()
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Waits until `pixels` are free, and holds them for the block."""
        pixels = min(pixels, self._pixels)
        with (
            self._door,
            self._freed,
        ):  # whoever waits keeps the door, or small images would overtake it for ever
            self._freed.wait_for(lambda: self._held + pixels <= self._pixels)
            self._held += pixels
        try:
            yield
        finally:
            with self._freed:
                self._held -= pixels
                self._freed.notify_all()


_budget = _PixelBudget(100_000_000)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is wanted of a picture: the network's view of it, written into `out`, and perhaps a thumbnail."""

    preprocessing: Preprocessing
    out: NDArray[np.uint8]
    thumbnail: bool


def decode(
    data: bytes,
    preprocessing: Preprocessing,
    out: NDArray[np.uint8],
    max_pixels: int,
    thumbnail: bool = False,
) -> Glimpse:
    """Decodes an image file of any format, writes the network's view of it into `out`, and returns a glimpse of it.

    `out` is uint8, crop x crop x 3, RGB (sRGB), for `preprocessing` with `crop` <= `resize`: the geometry is
    that of torchvision's Resize(resize, antialias=True) and CenterCrop(crop), EXIF orientation applied, first
    frame of many, transparency on white. Large pictures are decoded at a reduced scale that leaves 1.5 times
    `crop`, and no less than `resize`. Shape and colours are those of the whole picture. With `thumbnail`, the glimpse
    has one, made of the same reduced picture.

    Raises ImageError with one of the reasons of decoding, or HTML_PAGE. Pictures of more than `max_pixels`
    pixels are refused by their header. MemoryError passes: the machine is at fault, not the image.
    """
    refuse_non_images(data)
    wish = _Wish(preprocessing, out, thumbnail)
    try:
        if data.startswith(b"\xff\xd8"):
            return _decode_jpeg(data, wish, max_pixels)
        return _decode_with_pillow(data, wish, max_pixels)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(Reason.BOMB, str(error)) from error
    except UnidentifiedImageError:
        raise unidentified(data) from None
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, IndexError...
        raise _explain(error, data) from error


def _decode_jpeg(data: bytes, wish: _Wish, max_pixels: int) -> Glimpse:
    """The fast road. What libjpeg-turbo refuses goes to Pillow, which forgives harmless faults."""
    try:
        header = read_header(data)
    except ValueError:
        return _decode_with_pillow(data, wish, max_pixels)
    _check_size(header.height, header.width, max_pixels)
    refuse_scans(data, header.height * header.width)
    scaled = None
    if header.colours in ("Gray", "YCbCr", "RGB"):
        scaled = _try_scaled(data, header, wish)
    return scaled or _decode_with_pillow(data, wish, max_pixels)


def _try_scaled(data: bytes, header: JpegHeader, wish: _Wish) -> Glimpse | None:
    """Decodes at a reduced scale. Returns None, nothing written, where Pillow should judge."""
    scale = _reduction(header.height, header.width, wish.preprocessing, largest=8)
    pixels = header.height * header.width
    # A progressive file is held whole, as coefficients, whatever the scale.
    with _budget.hold(pixels if header.progressive else pixels // scale**2):
        try:
            # Detail that the resize takes away again need not be interpolated first.
            spare = min(header.height, header.width) >= scale * _needed(wish.preprocessing)
            decoded = decode_scaled(data, header, scale, rough_colours=spare)
        except ValueError as error:
            if "premature end of data segment" in str(error):  # Pillow would return the rest grey
                raise ImageError(Reason.TRUNCATED, str(error)) from None
            return None
        size, grey = (header.height, header.width), header.colours == "Gray"
        return _write(Picture(decoded, size, header.orientation, header.profile, grey), wish)


def _decode_with_pillow(data: bytes, wish: _Wish, max_pixels: int) -> Glimpse:
    """The road for everything else. JPEG 2000 and JPEG are decoded at a reduced scale here too."""
    image = _open(data, max_pixels)
    width, height = image.size
    scale = _reduction(height, width, wish.preprocessing, largest=32)
    if image.format == "JPEG2000" and scale > 1:
        with suppress(OSError), _budget.hold(width * height // scale**2):
            _load_reduced(image, scale)
            # A wavelet's low band samples the first of each `scale` pixels, where means of blocks sit in the
            # middle.
            picture = _as_picture(image, (height, width), wish.preprocessing, (scale - 1) / (2 * scale))
            return _write(picture, wish)
        image = _open(data, max_pixels)  # fewer levels than asked for, or odd dimensions: decode it in full
    with _budget.hold(width * height):
        if image.format in ("JPEG", "MPO"):
            image.draft(None, (width // min(scale, 8), height // min(scale, 8)))
        image.load()
        # TIFF files are turned upright by Pillow itself, as they are loaded.
        swapped = image.format == "TIFF" and image.size == (height, width)
        size = (width, height) if swapped else (height, width)
        return _write(_as_picture(image, size, wish.preprocessing), wish)


def _load_reduced(image: Image.Image, scale: int) -> None:
    """Decodes a JPEG 2000 file at 1/`scale` of its size. Raises OSError where that does not work out.

    Pillow expects a rounded size where OpenJPEG rounds up, and calls the difference a broken data stream; a
    size made divisible beforehand gives both the same.
    """
    width, height = image.size
    image._size = (-(-width // scale) * scale, -(-height // scale) * scale)
    image.reduce = scale.bit_length() - 1  # type: ignore[method-assign, assignment]
    image.load()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Reads the header and checks what decoding would cost. Raises UnidentifiedImageError, and ImageError."""
    refuse_header(data)
    image = Image.open(io.BytesIO(data), formats=_prepare_pillow(max_pixels))
    _check_size(image.height, image.width, max_pixels)
    if image.format in ("JPEG", "MPO"):
        refuse_scans(data, image.height * image.width)
    refuse_slow(image)
    return image


@cache
def _prepare_pillow(max_pixels: int) -> tuple[str, ...]:
    """Sets Pillow's process-wide state, once, and returns the names of the formats that it may open here.

    `decode` checks sizes itself; Pillow's own limit stays as the net below, for pictures inside of pictures,
    and its warning between one and two times the limit is made an error.
    """
    for package, register in _PLUGINS.items():
        with suppress(ImportError):
            plugin = importlib.import_module(package)
            if register:
                getattr(plugin, register)()
    Image.init()
    Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS or 0)
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _as_picture(
    image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing, origin: float = 0.0
) -> Picture:
    orientation = 1 if len(image.info.get("exif") or b"") > MAX_EXIF else upright_orientation(image.getexif())
    profile = image.info.get("icc_profile")
    coloured = image.mode in ("CMYK", "LAB")  # these are in sRGB once flattened
    factor = _reduction(image.height, image.width, preprocessing, largest=64)
    flat = flatten(image, factor)
    grey = flat.mode == "L"
    pixels = np.asarray(flat.convert("RGB") if grey else flat)
    return Picture(pixels, size, orientation, None if coloured else profile, grey, origin / factor)


def _write(picture: Picture, wish: _Wish) -> Glimpse:
    """Writes the network's view into `out`, and says what the whole picture looks like."""
    crop = frame(picture, wish.preprocessing)
    wish.out[...] = to_srgb(crop, picture.profile, picture.grey) if picture.profile else crop
    return glimpse(picture, try_thumbnail(picture) if wish.thumbnail else None)


def _reduction(height: int, width: int, preprocessing: Preprocessing, largest: int) -> int:
    """Returns the power of two, up to `largest`, that leaves 1.5 times the crop on the shorter side."""
    spare = min(height, width) / _needed(preprocessing)
    scale = 1
    while scale * 2 <= min(spare, largest):
        scale *= 2
    return scale


def _needed(preprocessing: Preprocessing) -> float:
    """Returns the length of a shorter side that has detail to spare."""
    return max(_MARGIN * preprocessing.crop, preprocessing.resize)


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise ImageError(Reason.BOMB, f"{width} x {height} pixels")
    if min(height, width) < _SMALLEST_SIDE:
        raise ImageError(Reason.TOO_SMALL, f"{width} x {height} pixels")


def _explain(error: Exception, data: bytes) -> ImageError:
    """Maps whatever a decoder raised. Truncation is told by its words, or by a file that lacks its end."""
    words = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    if "truncated" in words.lower() or isinstance(error, EOFError) or ends_early(data):
        return ImageError(Reason.TRUNCATED, words)
    if isinstance(error, NotImplementedError):
        return ImageError(Reason.UNSUPPORTED, words)
    return ImageError(Reason.CORRUPT, words)
