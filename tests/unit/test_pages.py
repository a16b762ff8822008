"""What the pages are made of: shapes, sizes, plots and addresses, without a server."""

import re
from pathlib import Path

import numpy as np
import pytest
from starlette.datastructures import QueryParams

from explorer.pages.plots import HEIGHT, WIDTH, plot_classes, plot_features
from explorer.pages.rendering import STATIC, image_address
from explorer.pages.shapes import MOST, STEP, shape, size
from explorer.pages.wishes import Wish, read_wish


def test_style_sheets_have_every_shape() -> None:
    """shapes.css gives each class its ratio, to four digits, and no other."""
    found = dict(re.findall(r"\.(shape-m?\d+) \{ --ratio: ([\d.]+); \}", (STATIC / "shapes.css").read_text()))
    assert found == {shape(STEP**n): f"{STEP**n:.4f}" for n in range(-MOST, MOST + 1)}


@pytest.mark.parametrize("ratio", [0.25, 0.7, 1.0, 1.499, 1.777, 4.5])
def test_a_shape_is_within_a_fortieth(ratio: float) -> None:
    """So little of a picture is cut by the rounding that nobody sees it."""
    name = shape(ratio)
    power = int(name.removeprefix("shape-").replace("m", "-"))
    assert STEP**power == pytest.approx(ratio, rel=0.026)


@pytest.mark.parametrize("ratio", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_an_odd_ratio_is_a_square(ratio: float | None) -> None:
    """What is not known takes no space that it does not need."""
    assert shape(ratio) == "shape-0"
    assert size(ratio, 400) == (400, 400)


def test_sizes_keep_the_shape() -> None:
    """The longer side is the one that was asked for."""
    assert size(2.0, 400) == (400, 200)
    assert size(0.5, 400) == (200, 400)
    assert size(100.0, 400) == (400, 4)


def test_the_most_probable_classes_are_named() -> None:
    """Best first, none under a hundredth; each bar is within the drawing."""
    probabilities = np.zeros(1000, np.float32)
    probabilities[[3, 500, 7]] = [0.2, 0.7, 0.005]
    plot = plot_classes(probabilities, [f"class {n}" for n in range(1000)])
    assert [name.words for name in plot.names] == ["class 500", "class 3"]
    assert plot.names[0].x == pytest.approx(44 + 500.5 * (plot.right - 44) / 1000)
    places = [float(x) for x in re.findall(r"M([\d.]+) ", plot.path)]
    assert len(places) == 3
    assert all(0 < x < plot.right < WIDTH for x in places)


def test_stored_labels_alone_can_be_drawn() -> None:
    """What is not known is NaN, and no bar."""
    probabilities = np.full(1000, np.nan, np.float32)
    probabilities[10] = 0.5
    assert plot_classes(probabilities, ["x"] * 1000).path.count("M") == 1


@pytest.mark.parametrize("features", [[0.0, 0.1, 0.5], [-0.3, 0.2, 0.1], [0.0, 0.0], [-1.0, -0.5]])
def test_features_go_up_and_down(features: list[float]) -> None:
    """Every bar lies within the height, from zero to its value; all alike zero is an empty plot."""
    plot = plot_features(np.array(features, np.float32))
    ends = [float(y) for y in re.findall(r"V([\d.]+)", plot.path)]
    assert len(ends) == np.count_nonzero(features)
    assert all(0 <= y <= HEIGHT for y in [*ends, plot.zero])
    assert plot.count == len(features)


@pytest.mark.parametrize(
    ("key", "address"),
    [
        ("demo/chelsea/original.jpg", "/images/demo/chelsea/original.jpg"),
        ("b 1?#%.jpg", "/images/b%201%3F%23%25.jpg"),
        ("a/../b", "/image?key=a%2F..%2Fb"),
        ("a//b", "/image?key=a%2F%2Fb"),
        ("a/similar", "/image?key=a%2Fsimilar"),
    ],
)
def test_keys_stand_in_addresses(key: str, address: str) -> None:
    """Those that a browser, a proxy or our own routes would read otherwise are given by query."""
    assert image_address(key) == address


def test_wishes_are_read_as_far_as_they_can_be() -> None:
    """Empty fields, words that are no numbers and days that never were are no wish."""
    words = "max_distance=x&since=2024-02-30&before=2024-03-01&k=7&licence=&exclude_same_work=true"
    wish = read_wish(QueryParams(words))
    assert (wish.max_distance, wish.since, wish.k, wish.licence) == (None, None, 60, None)
    assert wish.before is not None
    assert wish.exclude_same_work
    assert read_wish(QueryParams("max_distance=1")) == Wish()
    assert read_wish(QueryParams(wish.written())) == wish


def test_scripts_and_styles_are_files_of_their_own() -> None:
    """No template holds a script, a style or a handler, which the Content-Security-Policy forbids; only what people
    copy into pages of their own does."""
    templates = Path(STATIC).parent / "templates"
    for template in set(templates.glob("*.html")) - {templates / "snippet.html"}:
        text = template.read_text()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), template
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), template
