"""Writes a contact sheet: each query on the left, its neighbours with their distances on the right."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont, ImageOps

from lookalike.database import Connection
from lookalike.errors import ImageError, UnknownImageError
from lookalike.search import Neighbour, find_image
from lookalike.settings import Settings
from workers.fetch import Fetcher

TILE = 168
CAPTION = 34
GAP = 10
PAPER = "#fbfaf7"
INK = "#222222"
QUERY = "#b3432b"


def write_sheet(
    path: Path, rows: Sequence[tuple[str, Sequence[Neighbour]]], connection: Connection, settings: Settings
) -> None:
    """Draws one row for each query (its key and its neighbours) and writes the picture to `path`."""
    columns = 1 + max((len(neighbours) for _, neighbours in rows), default=0)
    size = (columns * (TILE + GAP) + 2 * GAP, len(rows) * (TILE + CAPTION + GAP) + GAP)
    sheet = Pictures.new("RGB", size, PAPER)
    fetcher = Fetcher(settings)
    for line, (key, neighbours) in enumerate(rows):
        top = GAP + line * (TILE + CAPTION + GAP)
        tiles = [(key, "query", QUERY)] + [(n.image, f"{n.distance:.3f}", INK) for n in neighbours]
        for column, (image, caption, colour) in enumerate(tiles):
            # The query stands a little apart from its neighbours.
            left = GAP + column * (TILE + GAP) + (GAP if column else 0)
            _draw_tile(sheet, (left, top), _picture(image, connection, fetcher), image, caption, colour)
    fetcher.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _draw_tile(
    sheet: Pictures.Image,
    corner: tuple[int, int],
    picture: Pictures.Image | None,
    key: str,
    caption: str,
    colour: str,
) -> None:
    draw = ImageDraw.Draw(sheet)
    left, top = corner
    if picture is None:
        draw.rectangle((left, top, left + TILE, top + TILE), outline=colour)
    else:
        x, y = left + (TILE - picture.width) // 2, top + (TILE - picture.height)
        sheet.paste(picture, (x, y))
        if colour == QUERY:
            draw.rectangle(
                (x - 2, y - 2, x + picture.width + 1, y + picture.height + 1), outline=colour, width=2
            )
    font = ImageFont.load_default(12)
    draw.text((left, top + TILE + 3), caption, fill=colour, font=font)
    name = key if len(key) <= 28 else "…" + key[-27:]
    draw.text((left, top + TILE + 18), name, fill="#777777", font=ImageFont.load_default(10))


def _picture(key: str, connection: Connection, fetcher: Fetcher) -> Pictures.Image | None:
    """The picture, fitted into a tile; None when it cannot be had now, which the sheet shows as a frame."""
    try:
        image = find_image(connection, key)
        data = fetcher.fetch(image.url, image.protocol, TILE, outside=image.outside).data
        with Pictures.open(io.BytesIO(data)) as picture:
            picture.draft("RGB", (2 * TILE, 2 * TILE))
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (UnknownImageError, ImageError, OSError, ValueError):
        return None
    upright.thumbnail((TILE, TILE), Pictures.Resampling.LANCZOS)
    return upright
