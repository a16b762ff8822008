"""Miniatures: what edits of a photograph match, and what other photographs do not."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lookalike.duplicates import turned_likeness
from lookalike.encoders import ENCODERS
from lookalike.miniatures import likeness
from lookalike.turns import Turn
from tests.pictures import jpeg, photographs
from workers.appearance import appearances_of
from workers.decode import decode

PREPROCESSING = ENCODERS["efficientnet-lite0"].preprocessing


def miniature(picture: Image.Image) -> bytes:
    crop = PREPROCESSING.crop
    seen = decode(jpeg(picture), PREPROCESSING, np.empty((crop, crop, 3), np.uint8), 10**8)
    return appearances_of([seen])[0].miniature


def compare(a: Image.Image, b: Image.Image) -> float:
    return likeness(miniature(a), np.frombuffer(miniature(b), np.uint8).reshape(12, 12))


def trim(picture: Image.Image, share: float) -> Image.Image:
    width, height = picture.size
    left, top = int(width * share), int(height * share)
    return picture.crop((left, top, width - left, height - top))


@pytest.mark.parametrize("edit", ["grey", "smaller", "lighter", "recompressed", "cropped"])
def test_edits_of_a_picture_match_it(edit: str) -> None:
    """Nine in ten photographs match their grey, rescaled, lighter and recompressed copies; most match a crop.

    Grass and gravel, of which there are some here, look like nothing in 12 x 12 greys.
    """
    found = []
    for picture in photographs()[:20]:
        edited = {
            "grey": lambda p: p.convert("L").convert("RGB"),
            "smaller": lambda p: p.resize((p.width * 2 // 3, p.height * 2 // 3)),
            "lighter": lambda p: ImageEnhance.Brightness(p).enhance(1.15),
            "recompressed": lambda p: p,
            "cropped": lambda p: trim(p, 0.06),
        }[edit](picture)
        found.append(compare(picture, edited))
    assert np.quantile(found, 0.5 if edit == "cropped" else 0.1) > 0.9


def test_other_pictures_do_not_match() -> None:
    """Of all pairs of different photographs hardly any reach the likeness of copies."""
    seen = [miniature(picture) for picture in photographs()[:20]]
    # motorcycle_left and motorcycle_right are nearly the same, and so is the list of packages: the first twenty.
    found = [
        likeness(a, np.frombuffer(b, np.uint8).reshape(12, 12)) for i, a in enumerate(seen) for b in seen[:i]
    ]
    assert np.mean(np.array(found) > 0.9) < 0.03


def test_a_turned_picture_matches_when_it_is_turned() -> None:
    """Each turn of a picture matches by that turn and by no other."""
    picture = photographs()[0]
    for turn in Turn:
        turned = Image.fromarray(np.ascontiguousarray(turn.apply(np.asarray(picture))))
        matches = {way: turned_likeness(miniature(picture), miniature(turned), way) for way in Turn}
        assert max(matches, key=matches.__getitem__) is turn


def test_blank_pictures_match_nothing() -> None:
    """The grain of a blank page is nothing to compare: blank pages would be one giant group."""
    grain = np.random.default_rng(0).normal(230, 8, (400, 300, 3)).clip(0, 255).astype(np.uint8)
    blank, other = Image.fromarray(grain), Image.new("RGB", (300, 400), "white")
    assert compare(blank, other) == 0
    assert compare(blank, photographs()[0]) == 0


def test_no_likeness_is_above_1() -> None:
    """Equal pictures match with 1, not a rounding error more, which the database would refuse."""
    found = [compare(picture, picture.convert("L").convert("RGB")) for picture in photographs()[:23]]
    assert max(found) <= 1
    assert all(
        likeness(m, np.frombuffer(m, np.uint8).reshape(12, 12)) <= 1
        for m in map(miniature, photographs()[:23])
    )
