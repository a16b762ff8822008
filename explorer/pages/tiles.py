"""Images as the pages show them: where the picture is, what it is called, how large its place is.

A place has the shape of its picture before the picture comes, so that nothing jumps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from explorer.pages.rendering import compare_address, image_address
from explorer.pages.shapes import shape, size
from explorer.records import Picture
from explorer.thumbnails import LARGE, SMALL, thumbnail, under

# Pixels of a picture that is looked at through a loupe.
SHARPER = 2400
# The key of the image that a picture was found for, and by which encoder; None: the active one.
Beside = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Tile:
    """An image on a page. `number` is what stands below it, such as a distance; `small_next` are addresses for when the
    first does not answer, `large_next` likewise; `compare` shows it beside what it was found for; `sharper` is a
    picture for a loupe."""

    key: str
    name: str
    alt: str
    work: str | None
    href: str
    shape: str
    small: str
    large: str
    small_next: tuple[str, ...]
    large_next: tuple[str, ...]
    width: int
    height: int
    large_width: int
    large_height: int
    number: str | None = None
    by_query: bool = False
    compare: str | None = None
    sharper: str | None = None


def tile(picture: Picture, root: str, number: str | None = None, beside: Beside | None = None) -> Tile:
    """A picture for a page."""
    ours = root + thumbnail(picture.key)
    small, large = (under(root, one) for one in (picture.thumbnail.small, picture.thumbnail.large))
    href = image_address(picture.key, root)
    return Tile(
        picture.key,
        picture.title or picture.key,
        picture.title or f"Image {picture.key}",
        picture.work,
        href,
        shape(picture.aspect_ratio),
        small or ours,
        large or ours,
        (ours,) if small else (),
        (ours,) if large else (),
        *size(picture.aspect_ratio, SMALL),
        *size(picture.aspect_ratio, LARGE),
        number,
        "/image?" in href,
        beside and compare_address(beside[0], picture.key, root, beside[1]),
        picture.iiif and f"{picture.iiif.rstrip('/')}/full/!{SHARPER},{SHARPER}/0/default.jpg",
    )


def tiles(pictures: Iterable[Picture], root: str, beside: Beside | None = None) -> list[Tile]:
    """Pictures for a wall; those that have a distance show it."""
    return [tile(one, root, _number(getattr(one, "distance", None)), beside) for one in pictures]


def _number(distance: float | None) -> str | None:
    return None if distance is None else f"{distance:.3f}"
