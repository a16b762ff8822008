"""How tiles are read from info.json of all versions, and what is told where there are none."""

import json

import pytest

from explorer.zooming import read_zoom
from lookalike.errors import ImageError

BASE = "https://iiif.example.org/1"


def zoom_of(**info: object) -> dict[str, object] | None:
    found = read_zoom(BASE, json.dumps({"width": 4000, "height": 3000, **info}).encode())
    return found and found.model_dump(include={"tile_width", "tile_height", "factors", "both", "quality"})


def test_tiles_are_those_that_the_service_names() -> None:
    """Of version 2 and 3, with sizes as each writes them; a height that is not said is the width."""
    tiles = [{"width": 256, "scaleFactors": [4, 1, 2, 8, 16]}]
    found = {"tile_width": 256, "tile_height": 256, "factors": [1, 2, 4, 8, 16], "quality": "default"}
    second = {"@context": "http://iiif.io/api/image/2/context.json", "profile": ["level0"], "tiles": tiles}
    assert zoom_of(**second) == {**found, "both": False}
    third = {"type": "ImageService3", "profile": "level0", "tiles": tiles}
    assert zoom_of(**third) == {**found, "both": True}


def test_version_one_has_words_of_its_own() -> None:
    """Its tiles, its names, and its word for the quality."""
    info = {
        "@context": "http://library.stanford.edu/iiif/image-api/1.1/context.json",
        "profile": "http://library.stanford.edu/iiif/image-api/1.1/compliance.html#level1",
        "tile_width": 1024,
        "tile_height": 512,
        "scale_factors": [1, 2, 4, 8],
    }
    assert zoom_of(**info) == {
        "tile_width": 1024,
        "tile_height": 512,
        "factors": [1, 2, 4, 8],
        "both": False,
        "quality": "native",
    }


def test_a_server_that_names_none_is_asked_for_usual_ones() -> None:
    """Down to the factor at which one tile shows all; files of sizes alone cannot be asked so."""
    found = zoom_of(type="ImageService3", profile="level2")
    assert found is not None
    assert (found["tile_width"], found["factors"]) == (512, [1, 2, 4, 8])
    assert zoom_of(type="ImageService3", profile="level0", sizes=[{"width": 400, "height": 300}]) is None


@pytest.mark.parametrize(
    "tiles",
    [
        None,
        "x",
        [],
        [7],
        [{"width": 0, "scaleFactors": [1]}],
        [{"width": 256, "scaleFactors": [0, "1"]}],
        [{"width": 1, "scaleFactors": [1, 2]}],
        [{"width": 256, "scaleFactors": list(range(1, 100_000))}],
    ],
)
def test_nonsense_is_none(tiles: object) -> None:
    """Tiles that are none count as not named."""
    found = zoom_of(type="ImageService3", profile="level1", tiles=tiles)
    assert found is not None
    assert found["tile_width"] == 512


def test_what_is_no_service_is_refused() -> None:
    """As a worker refuses it."""
    with pytest.raises(ImageError):
        read_zoom(BASE, b"<html>")
