"""Chooses what to ask of a IIIF image service: the smallest picture that suffices, in words the service
understands.

Nothing is fetched here. It must never ask for a picture larger than the original, or than the service allows.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from lookalike.errors import ImageError
from lookalike.reasons import Reason

# A listed size that leaves this part of what was asked for still serves the encoder: callers ask with a
# margin.
_ENOUGH = 2 / 3
_LEVEL = re.compile(r"level([012])")


@dataclass(frozen=True, slots=True)
class Service:
    """What counts of an info.json. `version` 1..3; `level` 0..2, 0: only `sizes` (width, height) and the full
    picture.

    `most` is the largest (width, height) that the service returns.
    """

    version: int
    level: int
    width: int
    height: int
    most: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]


def read_service(data: bytes) -> Service:
    """Reads an info.json of Image API 1, 2 or 3. Raises ImageError(UNREADABLE_SERVICE)."""
    try:
        info = json.loads(data.decode("utf-8-sig"))
        width, height = _number(info["width"]), _number(info["height"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImageError(Reason.UNREADABLE_SERVICE, f"{type(error).__name__} in info.json") from None
    if not width or not height:
        raise ImageError(Reason.UNREADABLE_SERVICE, "no width or height in info.json")
    version = _version(info)
    words, options = _profile(info)
    sizes = sorted({*_listed(info), *_whole_tiles(info, width, height)})
    # Nearly all services that fail to say their level are full servers; static files list their sizes.
    stated = _LEVEL.search(words)
    level = int(stated[1]) if stated else int(not sizes)
    return Service(version, level, width, height, _most(info | options, width, height), tuple(sizes))


def choose_sizes(service: Service, shorter_side: int) -> list[str]:
    """Returns the ends of addresses, `/full/{size}/0/default.jpg`, to try one after the other.

    Each gives the whole picture with its shorter side at least `shorter_side` pixels long, or as long as can
    be had.
    """
    quality = "native" if service.version == 1 else "default"
    return [f"/full/{size}/0/{quality}.jpg" for size in dict.fromkeys(_sizes(service, shorter_side))]


def _sizes(service: Service, shorter_side: int) -> Iterator[str]:
    if service.level == 0:
        yield from _fixed_sizes(service, shorter_side)
        return
    shorter = min(service.width, service.height)
    allowed = min(1.0, service.most[0] / service.width, service.most[1] / service.height)
    scale = min(shorter_side / shorter, allowed)
    if scale >= 1:
        yield _full(service)
        return
    # Rounded up, so that the shorter side decides in "!w,h"; but never beyond what is allowed.
    width = min(math.ceil(service.width * scale - 1e-9), service.most[0])
    height = min(math.ceil(service.height * scale - 1e-9), service.most[1])
    if service.version == 3:
        yield f"{width},{height}"  # canonical, and in the third version part of level 1
    elif service.level == 2:
        yield f"!{width},{height}"
    else:
        yield f"{width},"  # of levels 1 and 2 of all versions


def _fixed_sizes(service: Service, shorter_side: int) -> Iterator[str]:
    """Level 0: files. The full picture ought to exist but may not, nor is the form of names certain."""
    enough = [size for size in service.sizes if min(size) >= shorter_side]
    best = enough[0] if enough else service.sizes[-1] if service.sizes else None
    full = _full(service)
    if best is None or (not enough and min(best) < shorter_side * _ENOUGH):
        yield full
    if best is not None:
        width, height = best
        if best == (service.width, service.height):
            yield full
        yield f"{width},{height}"
        yield f"{width},"
    yield full


def _full(service: Service) -> str:
    """Returns the word for the largest picture: "full" of versions 1 and 2 is "max" in 3."""
    return "max" if service.version == 3 else "full"


def _version(info: Mapping[str, Any]) -> int:
    """Tells the version by its context, type or protocol; what has none of them is of the first."""
    context = json.dumps([info.get("@context"), info.get("profile")])
    if "image/3" in context or info.get("type") == "ImageService3":
        return 3
    if "image/2" in context or info.get("protocol") == "http://iiif.io/api/image":
        return 2
    if "image-api/1" in context or "@id" not in info or "scale_factors" in info:
        return 1
    return 2


def _profile(info: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the words and the options of `profile`: a string, an object, or a list of both."""
    profile = info.get("profile")
    parts = profile if isinstance(profile, list) else [profile]
    words = " ".join(part for part in parts if isinstance(part, str))
    options: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, dict):
            words += " " + str(part.get("@id") or part.get("id") or "")
            options |= part
    return words, options


def _most(limits: Mapping[str, Any], width: int, height: int) -> tuple[int, int]:
    """Returns the largest (width, height) under the limits; a lone maxWidth is for both sides."""
    most_wide = _number(limits.get("maxWidth")) or math.inf
    most_high = _number(limits.get("maxHeight")) or most_wide
    area = _number(limits.get("maxArea")) or math.inf
    scale = min(1.0, most_wide / width, most_high / height, math.sqrt(area / (width * height)))
    return max(1, int(width * scale + 1e-9)), max(1, int(height * scale + 1e-9))


def _listed(info: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    for size in _objects(info.get("sizes")):
        width, height = _number(size.get("width")), _number(size.get("height"))
        if width and height:
            yield width, height


def _whole_tiles(info: Mapping[str, Any], width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yields the sizes at which one tile shows the whole picture: as good as listed."""
    for tile in _objects(info.get("tiles")):
        tile_width = _number(tile.get("width"))
        tile_height = _number(tile.get("height")) or tile_width
        factors = tile.get("scaleFactors")
        for factor in factors if isinstance(factors, list) else []:
            number = _number(factor)
            size = (-(-width // number), -(-height // number)) if number else (width, height)
            if size[0] <= tile_width and size[1] <= tile_height:
                yield size


def _objects(value: object) -> list[dict[str, Any]]:
    entries = cast(list[object], value) if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _number(value: object) -> int:
    """Returns a positive number, which some services write as a string or float; 0 for anything else."""
    try:
        return max(0, int(float(value))) if isinstance(value, int | float | str) else 0
    except (ValueError, OverflowError):
        return 0
