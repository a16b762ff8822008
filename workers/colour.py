"""Brings every pixel mode to 8-bit RGB: ranges, palettes, transparency on white, colour profiles to sRGB."""

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_LARGEST_PROFILE = 4 * 2**20
# Ranges of integer samples wider than 8 bits: 8 and 12 bits are often stored in 16, with the upper ones
# unused.
_RANGES = (2**8 - 1, 2**12 - 1, 2**16 - 1)


def flatten(image: Image.Image, factor: int) -> Image.Image:
    """Returns `image` shrunk by the whole number `factor` (means of blocks), opaque, in mode "L" or "RGB".

    Grey of 16 bits and more and floats are scaled to 8 bits by their range; transparent pixels show white.
    CMYK and LAB become sRGB, CMYK by its embedded profile where it has one.
    """
    if image.mode[0] in "IF":
        image = _to_eight_bits(image)
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode in ("P", "HSV"):
        image = image.convert("RGB")
    if factor > 1:
        image = Image.Image.reduce(image, factor)  # JPEG 2000 images hide the method behind a number
    if image.mode == "RGBA":
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image)
        image = paper
    if image.mode in ("CMYK", "LAB"):
        transform = _transform(image.info.get("icc_profile") or b"", image.mode)
        if transform is not None:
            return ImageCms.applyTransform(image, transform) or image
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def to_srgb(pixels: NDArray[np.uint8], profile: bytes, grey: bool) -> NDArray[np.uint8]:
    """Returns `pixels` (uint8, height x width x 3) in sRGB, given the ICC profile that they came with.

    `grey` says that the profile is one for grey pictures, of which `pixels` has three equal channels. A
    profile that is damaged, or for other colours than these, is ignored, as browsers do.
    """
    transform = _transform(profile, "L" if grey else "RGB")
    if transform is None:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    return np.asarray(ImageCms.applyTransform(image, transform))


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns the way from a profile to sRGB; None where there is none, or where it changes nothing to speak
    of.

    An archive has a few profiles in millions of files, so this is done once for each. lcms2's transforms may
    be used by many threads at once.
    """
    if len(profile) > _LARGEST_PROFILE:
        return None
    try:
        source = (
            ImageCms.createProfile("LAB") if mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        )
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        return None if mode in ("L", "RGB") and _is_srgb(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Says whether a transform moves no colour of a coarse grid by more than 2 of 255."""
    steps = np.linspace(0, 255, 9 if mode == "RGB" else 256).round().astype(np.uint8)
    if mode == "RGB":
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        expected = colours
    else:
        colours = steps[None, :]
        expected = np.repeat(colours[..., None], 3, axis=-1)
    actual = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
    return int(np.abs(actual.astype(np.int16) - expected).max()) <= 2


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Returns a grey image of integers or floats as mode "L".

    Integers are taken to span the least of 8, 12 and 16 bits that holds them. Floats span 0..1, or 0..255.
    Whatever lies outside has no natural range and is stretched from its least to its largest value.
    """
    samples = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(samples.min()), float(samples.max())
    ranges = (1, 255) if image.mode == "F" else _RANGES
    span: float = next((span for span in ranges if low >= 0 and high <= span), 0)
    if not span:
        samples, span = samples - low, (high - low) or 1.0
    return Image.fromarray((samples * (255 / span) + 0.5).astype(np.uint8))
