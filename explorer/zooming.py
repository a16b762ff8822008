"""How a picture is seen closer: what its IIIF service says of its size and tiles, for a page that asks for these.

Only what a browser may ask for by itself is told. A picture that comes as one file has no tiles.
"""

import json
from typing import Any

from pydantic import BaseModel

# What static services cut, and what most servers take for their cache.
_TILE = 512
_DEEPEST = 10
# A document of others is taken at its word within bounds: smaller tiles would be asked for by the thousand.
_SMALLEST = 64
_MOST_FACTORS = 32


class Zoom(BaseModel):
    """A picture in tiles: tile (x, y) at a factor is `{base}/{x},{y},{w},{h}/{size}/0/{quality}.jpg` of the Image API.

    `both`: sizes are written as `w,h`, else as `w,`.
    """

    base: str
    width: int
    height: int
    tile_width: int
    tile_height: int
    factors: list[int]
    both: bool
    quality: str


def read_zoom(base: str, data: bytes) -> Zoom | None:
    """The tiles of a service by its info.json; None for one that has none. Raises ImageError(UNREADABLE_SERVICE)."""
    from workers.iiif import read_service

    service = read_service(data)
    tile = _tile(json.loads(data.decode("utf-8-sig")), service.version)
    if tile is None and service.level == 0:
        return None
    wide, high, factors = tile or (_TILE, _TILE, [])
    # A server that cuts whatever is asked for needs no list; the coarsest tile shows the whole picture.
    while service.level and (
        not factors or wide * factors[-1] < service.width or high * factors[-1] < service.height
    ):
        if len(factors) == _DEEPEST:
            break
        factors.append(factors[-1] * 2 if factors else 1)
    return Zoom(
        base=base,
        width=service.width,
        height=service.height,
        tile_width=wide,
        tile_height=high,
        factors=factors,
        both=service.version == 3,
        quality="native" if service.version == 1 else "default",
    )


def _tile(info: dict[str, Any], version: int) -> tuple[int, int, list[int]] | None:
    """Width, height and factors, smallest first, as an info.json has them; None where it has none of use."""
    first = info
    if version > 1:
        tiles = info.get("tiles")
        first = tiles[0] if isinstance(tiles, list) and tiles and isinstance(tiles[0], dict) else {}
    names = (
        ("tile_width", "tile_height", "scale_factors")
        if version == 1
        else ("width", "height", "scaleFactors")
    )
    wide, high, factors = (first.get(name) for name in names)
    high = high or wide
    if not isinstance(wide, int) or not isinstance(high, int) or not isinstance(factors, list):
        return None
    sound = sorted({each for each in factors if isinstance(each, int) and each > 0})
    is_sound = min(wide, high) >= _SMALLEST and 0 < len(sound) <= _MOST_FACTORS
    return (wide, high, sound) if is_sound else None
