"""What is asked of a IIIF image service, for all versions and levels of the Image API."""

import json
from pathlib import Path
from typing import Any

import pytest

from lookalike.errors import ImageError
from lookalike.reasons import Reason
from workers.iiif import choose_sizes, read_service

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "iiif" / "image"
V1 = {"@context": "http://library.stanford.edu/iiif/image-api/1.1/context.json"}
V2 = {"@context": "http://iiif.io/api/image/2/context.json", "protocol": "http://iiif.io/api/image"}
V3 = {"@context": "http://iiif.io/api/image/3/context.json", "type": "ImageService3"}
LARGE = {"width": 6000, "height": 4000}
LEVEL_0, LEVEL_1, LEVEL_2 = (f"http://iiif.io/api/image/2/level{level}.json" for level in range(3))
SIZES = [{"width": w, "height": h} for w, h in ((3000, 2000), (150, 100), (600, 400))]


def ask(*parts: dict[str, Any], side: int = 384, **more: Any) -> list[str]:
    """Returns the sizes that would be asked for, in their order."""
    info: dict[str, Any] = {}
    for part in parts:
        info |= part
    ends = choose_sizes(read_service(json.dumps(info | more).encode()), side)
    quality = "native" if parts[0] is V1 else "default"
    assert all(end.startswith("/full/") and end.endswith(f"/0/{quality}.jpg") for end in ends)
    return [end.split("/")[2] for end in ends]


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (ask(V1, LARGE, profile="http://library.stanford.edu/iiif/image-api/1.1/compliance.html#level2"), "!576,384"),
        (ask(V1, LARGE, profile="http://library.stanford.edu/iiif/image-api/1.1/compliance.html#level1"), "576,"),
        (ask(V1, LARGE, profile="http://library.stanford.edu/iiif/image-api/1.1/compliance.html#level0"), "full"),
        (ask(V2, LARGE, profile=[LEVEL_2, {"supports": ["sizeByForcedWh"]}]), "!576,384"),
        (ask(V2, LARGE, profile=LEVEL_1), "576,"),
        (ask(V2, LARGE, profile={"@id": LEVEL_2}), "!576,384"),
        (ask(V2, LARGE, profile=[{"supports": []}, LEVEL_2]), "!576,384"),
        (ask(V2, LARGE), "576,"),
        (ask(V2, LARGE, profile="http://iiif.io/api/image/2/profiles/level2.json"), "!576,384"),
        (ask(V3, LARGE, profile="level2"), "576,384"),
        (ask(V3, LARGE, profile="level1"), "576,384"),
        (ask(V3, LARGE, profile=["level1"]), "576,384"),
        (ask(V3, LARGE, profile="http://iiif.io/api/image/3/level2.json"), "576,384"),
        (ask({"@context": ["http://example.org/x.json", V3["@context"]]}, LARGE, profile="level2"), "576,384"),
        (ask(V2, {"width": 4000, "height": 6000}, profile=LEVEL_2), "!384,576"),
        (ask(V2, {"width": "6000", "height": 4000.0}, profile=LEVEL_2), "!576,384"),
    ],
)  # fmt: skip
def test_each_version_is_asked_in_its_words(actual: list[str], expected: str) -> None:
    """The shorter side is 384 pixels, in the form that the version and the level of the service require."""
    assert actual == [expected]


@pytest.mark.parametrize(("context", "word"), [(V1, "full"), (V2, "full"), (V3, "max")])
@pytest.mark.parametrize("size", [(384, 500), (500, 384), (100, 80), (383, 9000)])
def test_nothing_is_enlarged(context: dict[str, Any], word: str, size: tuple[int, int]) -> None:
    """An original that is smaller than asked for is taken as it is, in the word of its version."""
    assert ask(context, width=size[0], height=size[1], profile="level2") == [word]


@pytest.mark.parametrize("size", [(1000, 999), (1733, 2236), (777, 4321), (5001, 385), (386, 385)])
def test_sizes_are_rounded_up_but_never_beyond_the_original(size: tuple[int, int]) -> None:
    """Versions differ in rounding; the shorter side must decide, and exact sizes must not enlarge."""
    (answer,) = ask(V3, width=size[0], height=size[1], profile="level2")
    width, height = (int(number) for number in answer.split(","))
    assert min(width, height) == 384
    assert (width <= size[0], height <= size[1]) == (True, True)
    assert abs(width / height - size[0] / size[1]) < 0.01 * size[0] / size[1]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"maxWidth": 300}, "300,200"),
        ({"maxWidth": 300, "maxHeight": 100}, "150,100"),
        ({"maxArea": 60_000}, "300,200"),
        ({"maxWidth": 3000}, "576,384"),
        ({"maxHeight": 200}, "300,200"),
    ],
)
def test_limits_of_the_service_are_kept(limits: dict[str, int], expected: str) -> None:
    """A service that returns less than is wanted is asked for the most that it returns."""
    assert ask(V3, LARGE, limits, profile="level2") == [expected]
    assert ask(V2, LARGE, profile=[LEVEL_2, limits]) == [f"!{expected}"]


def test_a_limit_replaces_the_full_picture() -> None:
    """In version 2, the word "full" fails where the original is larger than the limit."""
    assert ask(V2, width=350, height=350, profile=[LEVEL_2, {"maxWidth": 300}]) == ["!300,300"]


def test_files_are_asked_for_by_listed_sizes() -> None:
    """Level 0 has only the sizes that it lists; the smallest sufficient is taken, other spellings follow."""
    assert ask(V2, LARGE, profile=LEVEL_0, sizes=SIZES) == ["600,400", "600,", "full"]
    assert ask(V3, LARGE, profile="level0", sizes=SIZES) == ["600,400", "600,", "max"]
    assert ask(V2, LARGE, sizes=SIZES) == ["600,400", "600,", "full"]


def test_files_without_a_sufficient_size() -> None:
    """A listed size that is nearly enough is better than a full scan, one that is far too small is worse."""
    assert ask(V2, LARGE, profile=LEVEL_0, sizes=SIZES[2:], side=500) == ["600,400", "600,", "full"]
    assert ask(V2, LARGE, profile=LEVEL_0, sizes=SIZES[1:2]) == ["full", "150,100", "150,"]
    assert ask(V2, LARGE, profile=LEVEL_0) == ["full"]


def test_the_largest_listed_size_may_be_the_full_picture() -> None:
    """It is then asked for in the word that always exists, and by its size next."""
    sizes = [{"width": 648, "height": 1024}, {"width": 253, "height": 400}]
    assert ask(V2, width=648, height=1024, profile=LEVEL_0, sizes=sizes)[:2] == ["full", "648,1024"]


def test_tiles_that_show_the_whole_picture_count_as_sizes() -> None:
    """Trees of static tiles often list no sizes, but their top tiles are whole pictures."""
    tiles = [{"width": 1024, "scaleFactors": [1, 2, 4, 8, 16]}]
    assert ask(V2, LARGE, profile=LEVEL_0, tiles=tiles) == ["750,500", "750,", "full"]
    assert ask(V3, width=4032, height=3024, profile="level0", tiles=tiles, side=300)[0] == "504,378"


@pytest.mark.parametrize(
    "rubbish",
    [
        {"sizes": "not an array", "tiles": 7},
        {"sizes": ["must be object", {"width": 600}, {"height": "x", "width": None}], "tiles": [{}]},
        {"tiles": [{"width": 512, "scaleFactors": [0, "x", None]}], "maxWidth": "wide", "maxArea": -1},
    ],
)
def test_rubbish_beside_what_counts_is_ignored(rubbish: dict[str, Any]) -> None:
    """Only width and height are indispensable."""
    assert ask(V3, LARGE, rubbish, profile="level2") == ["576,384"]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<html>", b"[]", b"null", b"7", b"{}", b'{"width": 5}', b'{"width": 0, "height": 9}', b"\xff\xfe\x00",
        b'{"width": "x", "height": 4}', b'{"width": {}, "height": []}', b'{"width": 1e999, "height": 4}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_info_is_refused(data: bytes) -> None:
    """Anything without a usable width and height is an unreadable service."""
    with pytest.raises(ImageError) as caught:
        read_service(data)
    assert caught.value.reason is Reason.UNREADABLE_SERVICE


def test_a_byte_order_mark_is_no_hindrance() -> None:
    """Some servers write one."""
    assert read_service(b'\xef\xbb\xbf{"width": 5, "height": 6}').height == 6


@pytest.mark.parametrize("path", sorted(SHARED.glob("*.json")), ids=lambda path: path.stem)
def test_documents_from_the_wild_are_read_or_refused(path: Path) -> None:
    """Each gives at least one size, or the reason why there is none; never anything else."""
    data = path.read_bytes()
    info = json.loads(data)
    if "width" in info and "height" in info:
        assert len(choose_sizes(read_service(data), 384)) >= 1
    else:
        with pytest.raises(ImageError, match="unreadable_service"):
            read_service(data)
