"""Pictures whose neighbours are known: parts of the same photograph, views of the same place, edits of one picture."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from bench.pictures import encode_jpeg
from tests.pictures import SHARED, near_copy, photographs
from workers.decode import decode
from workers.network import Encoder

# Longest side in pixels of what is embedded.
SIDE = 500
# Passes of the network hold so many.
BATCH = 32
# The photographs of `vacation` that show the same place, by their numbers, as seen by eye; all others are distractors.
PLACES: dict[str, tuple[int, ...]] = {
    "beach at low tide": (0, 1, 3),
    "fort": (16, 17),
    "rainforest": (22, 23, 28),
    "rainforest falls": (26, 27),
    "wooded hills": (29, 30, 31),
    "cave": (37, 38, 39, 40, 41, 42, 43),
    "jellyfish": (48, 49),
    "aquarium": (45, 46),
    "falls in autumn": (55, 56),
    "mountains in autumn": (58, 59, 60, 61),
    "stone of hope": (64, 65),
    "rapids": (69, 70),
    "red earth": (72, 73),
    "canyon": (74, 75, 76, 77, 78),
    "falls in a gorge": (86, 87),
    "narrow street": (90, 91),
    "church with two spires": (99, 100),
    "church of gold": (103, 104, 105),
    "monuments in the square": (109, 110),
    "snow on the mountain": (119, 121),
    "driftwood": (129, 130),
    "snow in the wood": (143, 144),
    "giant trees": (145, 146, 147),
}


def open_small(path: Path) -> Pictures.Image:
    """A photograph in RGB, at most 500 pixels wide and high."""
    with Pictures.open(path) as picture:
        picture.draft("RGB", (SIDE, SIDE))
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def all_photographs() -> list[Pictures.Image]:
    """Those of the tests, then all shared ones that these leave out."""
    shared = [
        open_small(path)
        for name in ("vacation", "scene")
        for path in sorted(SHARED.glob(f"photos/{name}/*.jpg"))
    ]
    return photographs() + shared


def random_part(picture: Pictures.Image, random: np.random.Generator) -> Pictures.Image:
    """20 to 100 % of the picture's area, of about its shape: as the shipped calibration was made."""
    area, shape = random.uniform(0.2, 1), np.exp(random.uniform(-0.2, 0.2))
    width = min(picture.width, int(picture.width * np.sqrt(area * shape)))
    height = min(picture.height, int(picture.height * np.sqrt(area / shape)))
    left = int(random.integers(0, picture.width - width + 1))
    upper = int(random.integers(0, picture.height - height + 1))
    return picture.crop((left, upper, left + width, upper + height))


def places() -> tuple[list[Pictures.Image], list[str]]:
    """All photographs of `vacation` and their places; one that is alone has a place of its own. Empty if absent."""
    names = {number: place for place, numbers in PLACES.items() for number in numbers}
    paths = sorted(SHARED.glob("photos/vacation/*.jpg"))
    return [open_small(path) for path in paths], [names.get(n, f"alone {n}") for n in range(len(paths))]


def near_copies() -> tuple[list[Pictures.Image], list[Pictures.Image]]:
    """Photographs, and a near-copy of each: cropped or turned a little."""
    originals = photographs()
    return originals, [near_copy(picture, number) for number, picture in enumerate(originals)]


def edits() -> dict[str, Pictures.Image]:
    """Edits of one picture by their names (blurred, sharpened, shrunk, squared, turned), without the original."""
    paths = sorted(SHARED.glob("edits/bridge-mods/*.jpg")) + sorted(SHARED.glob("edits/dih/*.jpg"))
    return {path.stem: open_small(path) for path in paths if "orig" not in path.stem}


def edited_original() -> Pictures.Image | None:
    """The picture that was edited, None where it is absent."""
    path = SHARED / "edits" / "bridge-mods" / "aaa-orig.jpg"
    return open_small(path) if path.exists() else None


def embed(encoder: Encoder, pictures: list[Pictures.Image]) -> NDArray[np.float32]:
    """Unit vectors (n, d) by the worker's own path: a JPEG file, decoded and resized, and the network."""
    crop = encoder.preprocessing.crop
    vectors = []
    for start in range(0, len(pictures), BATCH):
        part = pictures[start : start + BATCH]
        pixels = np.empty((len(part), crop, crop, 3), np.uint8)
        for row, picture in zip(pixels, part, strict=True):
            decode(encode_jpeg(picture, 90), encoder.preprocessing, row, 10**8)
        vectors.append(encoder.encode(pixels).vectors)
    return np.concatenate(vectors)
