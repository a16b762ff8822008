"""What stands for a picture that no browser can be shown: its colours, in its shape."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from explorer.archive import AnArchive
from explorer.pages.shapes import size
from explorer.pages.undoing import QUERIES
from explorer.reading import rows
from explorer.thumbnails import SMALL
from lookalike.errors import UnknownImageError

router = APIRouter()

PLAIN = "#9a968c"


@router.get("/thumbnails/{key:path}", response_class=Response)
def show(request: Request, archive: AnArchive, key: str) -> Response:  # noqa: ARG001
    """The colours of an image, each as high as its share. No file of this machine is ever read for it."""
    with archive.reading() as connection:
        found = rows(connection, QUERIES["colours"], {"key": key})
    if not found:
        raise UnknownImageError(f"no image has the key {key!r}")
    drawing = draw(
        found[0]["aspect_ratio"], found[0]["palette"] or [PLAIN], found[0]["palette_shares"] or [1.0]
    )
    return Response(drawing, media_type="image/svg+xml", headers={"Cache-Control": "public, max-age=300"})


def draw(aspect_ratio: float | None, colours: list[str], shares: list[float]) -> str:
    """An SVG of stripes."""
    width, height = size(aspect_ratio, SMALL)
    stripes, top = [], 0.0
    for colour, share in zip(colours, shares, strict=True):
        stripes.append(
            f'<rect y="{top:.1f}" width="{width}" height="{share * height + 0.5:.1f}" fill="{colour}"/>'
        )
        top += share * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"{''.join(stripes)}</svg>"
    )
