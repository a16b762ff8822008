"""The pictures that benchmarks work on, made from the photographs inside packages and those beside the checkout."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image as Pictures

from cli.demo import find_photographs

# Stands beside the checkout where the whole team works, and may be absent.
SHARED = Path(__file__).parents[2] / "shared" / "data" / "photos"
# A resampled photograph is too smooth for its size, so its file is too small: grain of so many grey levels makes up.
GRAIN = 6


@cache
def find_originals() -> tuple[Path, ...]:
    """The photographs, the same order on every machine; fewer where the shared ones are absent."""
    return (*find_photographs(), *sorted((SHARED / "pixabay").glob("*.jpg")))


def make_picture(number: int, width: int, height: int, grain: float = 0.0) -> Pictures.Image:
    """Picture `number`: a part of one of the originals, of its own place and size, resampled to width x height."""
    random = np.random.default_rng(number)
    path = find_originals()[number % len(find_originals())]
    with Pictures.open(path) as opened:
        original = opened.convert("RGB")
    ratio = width / height
    whole = min(original.width, original.height * ratio)
    wide = whole * random.uniform(0.7, 1)
    high = wide / ratio
    left, upper = random.uniform(0, original.width - wide), random.uniform(0, original.height - high)
    box = (left, upper, left + wide, upper + high)
    picture = original.resize((width, height), Pictures.Resampling.BICUBIC, box)
    return add_grain(picture, grain, number) if grain else picture


def add_grain(picture: Pictures.Image, grain: float, seed: int) -> Pictures.Image:
    """The picture with grey noise of this standard deviation, as scanners add it."""
    noise = np.random.default_rng(seed).normal(0, grain, (256, picture.width)).round().astype(np.int16)
    tall = np.tile(noise, (-(-picture.height // 256), 1))[: picture.height, :, None]
    noisy = np.asarray(picture).astype(np.int16) + tall
    return Pictures.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode_jpeg(picture: Pictures.Image, quality: int, subsampling: int = 2) -> bytes:
    """The picture as a JPEG file; `subsampling` as Pillow has it: 0 keeps the colours' resolution, 2 halves it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def write_small(folder: Path, count: int) -> list[str]:
    """`count` JPEGs of 400 x 400 pixels, about 43 kB each, as an image service gives them. Returns their names."""
    return _write(folder, count, 400, 400, 0.0, 91)


def write_medium(folder: Path, count: int) -> list[str]:
    """`count` JPEGs of 2,000 x 1,500 pixels, about 830 kB each."""
    return _write(folder, count, 2000, 1500, GRAIN, 89)


def _write(folder: Path, count: int, width: int, height: int, grain: float, quality: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode_jpeg(make_picture(number, width, height, grain), quality))
    return names


def write_scans(folder: Path, kind: str, count: int, width: int = 6000, height: int = 4000) -> list[str]:
    """`count` scans: "baseline" or "progressive" JPEG (about 5 MB), "png", "tiff" (LZW) or "jp2" (JPEG 2000)."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(count):
        picture = make_picture(number, width, height, GRAIN)
        if kind == "png":
            name = f"{number:04}.png"
            picture.save(folder / name, compress_level=1)
        elif kind == "tiff":
            name = f"{number:04}.tif"
            picture.save(folder / name, compression="tiff_lzw")
        elif kind == "jp2":
            name = f"{number:04}.jp2"
            picture.save(folder / name, quality_mode="rates", quality_layers=[12], irreversible=True)
        else:
            name = f"{number:04}.jpg"
            picture.save(folder / name, quality=86, progressive=kind == "progressive")
        names.append(name)
    return names
