"""The shapes of walls: width / height in steps of a twentieth, as names of classes.

A page may say how wide each picture is only in style sheets: its Content-Security-Policy allows no styles inside of
elements. A step is too small to be seen: at most 2.5 % of a picture are cut.
"""

import math

STEP = 1.05
MOST = 32


def shape(aspect_ratio: float | None) -> str:
    """The class in static/shapes.css that is nearest to an aspect ratio; a square while it is not known."""
    if aspect_ratio is None or not math.isfinite(aspect_ratio) or aspect_ratio <= 0:
        return "shape-0"
    number = round(math.log(aspect_ratio) / math.log(STEP))
    number = max(-MOST, min(MOST, number))
    return f"shape-m{-number}" if number < 0 else f"shape-{number}"


def size(aspect_ratio: float | None, longer: int) -> tuple[int, int]:
    """Width and height of a picture whose longer side has so many pixels, for the attributes of <img>."""
    ratio = aspect_ratio if aspect_ratio and math.isfinite(aspect_ratio) and aspect_ratio > 0 else 1.0
    if ratio >= 1:
        return longer, max(1, round(longer / ratio))
    return max(1, round(longer * ratio)), longer
