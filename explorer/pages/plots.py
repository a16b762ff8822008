"""The figure that Wellcome Collection first explained similar images with: classes above features, as bars, in SVG.

Pure: numbers in, numbers for templates/plots.html out. All bars of a plot are one path, so that a thousand of them cost
a browser no more than one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of the drawing, in its own units; it is as wide as its place on the page.
WIDTH = 1000
HEIGHT = 150
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 24
# Names beside the bars of classes.
NAMES = 210
# Less probable classes are not worth a name.
LEAST = 0.01
NAMED = 5
# Bars lower than this share of the highest would not be seen.
SEEN = 0.004


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and what is written there."""

    at: float
    words: str


@dataclass(frozen=True, slots=True)
class Name:
    """A named bar: its tip, and where its words stand."""

    words: str
    probability: float
    x: float
    y: float
    words_y: float


@dataclass(frozen=True, slots=True)
class Plot:
    """Bars as the `d` of one path of strokes `stroke` wide, the axes, and the names beside."""

    path: str
    stroke: float
    right: float
    zero: float
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    names: tuple[Name, ...] = ()
    count: int = 0


def plot_classes(probabilities: NDArray[np.float32], names: Sequence[str]) -> Plot:
    """The probabilities (classes,) as bars, with the most probable classes named. Those unknown may be NaN."""
    known = np.nan_to_num(probabilities.astype(np.float64))
    highest = float(known.max()) or 1.0
    right = WIDTH - NAMES
    x, y = _places(known, right, 0.0, highest)
    order = [int(n) for n in np.argsort(-known, kind="stable")[:NAMED] if known[n] >= LEAST]
    step = (HEIGHT - TOP - BOTTOM) / NAMED
    named = tuple(
        Name(names[n], float(known[n]), float(x[n]), float(y[n]), TOP + step * (line + 0.75))
        for line, n in enumerate(order)
    )
    return Plot(
        _path(x, y, _zero(0.0, highest), known, highest),
        2.0,
        right,
        _zero(0.0, highest),
        _across(len(known), right),
        _up(0.0, highest),
        named,
        len(known),
    )


def plot_features(features: NDArray[np.float32]) -> Plot:
    """The features (d,) as bars, up or down from zero."""
    values = features.astype(np.float64)
    lowest, highest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if highest == lowest:
        highest = 1.0
    right = WIDTH - RIGHT
    x, y = _places(values, right, lowest, highest)
    zero = _zero(lowest, highest)
    width = max(0.35, min(2.0, 0.6 * (right - LEFT) / len(values)))
    return Plot(
        _path(x, y, zero, values, max(highest, -lowest)),
        width,
        right,
        zero,
        _across(len(values), right),
        _up(lowest, highest),
        (),
        len(values),
    )


def _places(
    values: NDArray[np.float64], right: float, lowest: float, highest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the tip of each bar is."""
    x = LEFT + (np.arange(len(values)) + 0.5) * (right - LEFT) / len(values)
    y = TOP + (highest - values) / (highest - lowest) * (HEIGHT - TOP - BOTTOM)
    return x, y


def _zero(lowest: float, highest: float) -> float:
    return TOP + highest / (highest - lowest) * (HEIGHT - TOP - BOTTOM)


def _path(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    zero: float,
    values: NDArray[np.float64],
    highest: float,
) -> str:
    seen = np.flatnonzero(np.abs(values) >= SEEN * highest)
    return "".join(f"M{x[n]:.1f} {zero:.1f}V{y[n]:.1f}" for n in seen)


def _across(count: int, right: float) -> tuple[Tick, ...]:
    step = _round(count / 6)
    numbers = range(0, count, max(1, int(step)))
    return tuple(Tick(LEFT + (n + 0.5) * (right - LEFT) / count, f"{n:,}") for n in numbers)


def _up(lowest: float, highest: float) -> tuple[Tick, ...]:
    step = _round((highest - lowest) / 3)
    first, last = int(np.ceil(lowest / step)), int(np.floor(highest / step))
    height = (HEIGHT - TOP - BOTTOM) / (highest - lowest)
    return tuple(Tick(TOP + (highest - n * step) * height, f"{n * step:.2g}") for n in range(first, last + 1))


def _round(value: float) -> float:
    """The nearest 1, 2 or 5 times a power of ten, not above."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(each * power for each in (1, 2, 5) if each * power <= value * 1.0000001))
