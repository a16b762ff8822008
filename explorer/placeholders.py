"""What stands for a picture that cannot be shown: its colours, in its shape."""

import re
from collections.abc import Sequence

SIDE = 400
# Neither bright nor dark, for pages of either kind.
_PLAIN = "#9a968c"
_COLOUR = re.compile(r"#[0-9a-f]{6}")


def draw(aspect_ratio: float | None, colours: Sequence[str] | None, shares: Sequence[float] | None) -> str:
    """An SVG of stripes, each as high as the share of its colour."""
    ratio = min(20.0, max(0.05, aspect_ratio or 4 / 3))
    width, height = (SIDE, round(SIDE / ratio)) if ratio >= 1 else (round(SIDE * ratio), SIDE)
    known = [(c, s) for c, s in zip(colours or (), shares or (), strict=False) if _COLOUR.fullmatch(c)]
    stripes, top = [], 0.0
    for colour, share in known or [(_PLAIN, 1.0)]:
        # A little over, so that nothing shows between two of them.
        stripes.append(
            f'<rect y="{top:.1f}" width="{width}" height="{share * height + 0.5:.1f}" fill="{colour}"/>'
        )
        top += share * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"{''.join(stripes)}</svg>"
    )
