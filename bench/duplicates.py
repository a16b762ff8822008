"""Near-duplicates on real photographs: which copies the default criteria find, and which other pictures they take."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from PIL import ImageEnhance, ImageFilter

from bench.pictures import encode_jpeg
from bench.search_pictures import all_photographs
from bench.table import print_table
from lookalike.duplicates import DEFAULT_LIKENESS, DEFAULT_THRESHOLD
from lookalike.miniatures import likeness
from lookalike.settings import Settings
from workers.appearance import appearances_of
from workers.decode import decode
from workers.network import Encoder, load_encoder

Picture = Pictures.Image
Seen = tuple[NDArray[np.float32], list[bytes]]

CRITERIA = {
    f"distance <= {DEFAULT_THRESHOLD}, likeness >= {DEFAULT_LIKENESS}": (DEFAULT_THRESHOLD, DEFAULT_LIKENESS),
    "distance <= 0.1 alone": (0.1, -1.0),
    f"distance <= {DEFAULT_THRESHOLD} alone": (DEFAULT_THRESHOLD, -1.0),
}


def run(_: Settings) -> None:
    """Each photograph against its own copies, and against all other photographs."""
    encoder = load_encoder("efficientnet-lite0", Settings(_env_file=None))
    originals = all_photographs()
    archive = look(encoder, originals)
    found: dict[str, list[str]] = {name: [] for name in CRITERIA}
    for edit in EDITS.values():
        copies = look(encoder, [edit(picture) for picture in originals])
        distances = 1 - np.einsum("ij,ij->i", archive[0], copies[0])
        matches = np.array([match(a, b) for a, b in zip(archive[1], copies[1], strict=True)])
        for name, (threshold, least) in CRITERIA.items():
            found[name].append(f"{np.mean((distances <= threshold) & (matches >= least)):.2f}")
    rows = [(name, *shares, f"{others(archive, *CRITERIA[name]):.2f}") for name, shares in found.items()]
    print_table(
        f"Near-duplicates among {len(originals)} photographs: share of copies found; share with another partner",
        ("", *EDITS, "another"),
        rows,
    )


def others(archive: Seen, threshold: float, least: float) -> float:
    """The share of photographs that some other photograph is taken for a copy of."""
    distances = 1 - archive[0] @ archive[0].T
    np.fill_diagonal(distances, 2)
    taken = [
        any(match(archive[1][i], archive[1][j]) >= least for j in np.flatnonzero(row <= threshold))
        for i, row in enumerate(distances)
    ]
    return float(np.mean(taken))


def match(first: bytes, second: bytes) -> float:
    """The likeness of two miniatures."""
    return likeness(first, np.frombuffer(second, np.uint8).reshape(12, 12))


def look(encoder: Encoder, pictures: list[Picture]) -> Seen:
    """Vectors (n, d) and miniatures, by the worker's own path."""
    crop = encoder.preprocessing.crop
    pixels = np.empty((len(pictures), crop, crop, 3), np.uint8)
    seen = [
        decode(encode_jpeg(picture, 90), encoder.preprocessing, row, 10**8)
        for picture, row in zip(pictures, pixels, strict=True)
    ]
    return encoder.encode(pixels).vectors, [one.miniature for one in appearances_of(seen)]


def trim(share: float) -> Callable[[Picture], Picture]:
    """Cuts this share off each side."""

    def cut(picture: Picture) -> Picture:
        left, top = int(picture.width * share), int(picture.height * share)
        return picture.crop((left, top, picture.width - left, picture.height - top))

    return cut


def rescan(picture: Picture) -> Picture:
    """Smaller, softer, lighter, paler, with grain: as another scanner would have it."""
    small = picture.resize((picture.width * 7 // 10, picture.height * 7 // 10), Pictures.Resampling.BICUBIC)
    light = ImageEnhance.Brightness(small.filter(ImageFilter.GaussianBlur(0.7))).enhance(1.12)
    pale = np.asarray(ImageEnhance.Color(light).enhance(0.9), np.float32)
    grain = np.random.default_rng(0).normal(0, 6, pale.shape)
    return Pictures.fromarray((pale + grain).clip(0, 255).astype(np.uint8))


def turn(picture: Picture) -> Picture:
    """Two degrees askew on the glass."""
    return picture.rotate(2, Pictures.Resampling.BICUBIC, fillcolor="white")


EDITS: dict[str, Callable[[Picture], Picture]] = {
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "rescanned": rescan,
    "5 % cut off": trim(0.05),
    "10 % cut off": trim(0.1),
    "askew": turn,
}
