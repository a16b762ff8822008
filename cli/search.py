"""`lookalike similar`, `search` and `labels`: neighbours of images and of pictures from outside, and classes."""

from typing import Annotated

import typer

from cli import output
from cli.options import Count, Encoder, Json, MaxDistance, Sheet
from cli.session import open_session
from lookalike import search as searching


def similar(
    key: str,
    k: Count = 10,
    max_distance: MaxDistance = None,
    encoder: Encoder = None,
    sheet: Sheet = None,
    as_json: Json = False,
) -> None:
    """Shows the neighbours of a known image."""
    session = open_session()
    with session.connect() as connection:
        chosen = encoder or searching.active_encoder(connection)
        found = searching.similar(connection, key, k, max_distance, chosen)
        _show_neighbours(key, chosen, found, as_json)
        if sheet:
            from cli.sheet import write_sheet

            write_sheet(sheet, [(key, found)], connection, session.settings)


def search(
    picture: Annotated[str, typer.Argument(metavar="FILE_OR_URL")],
    k: Count = 10,
    max_distance: MaxDistance = None,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Shows the images of the archive that look most like a picture from outside."""
    from workers.picture import embed_picture

    session = open_session()
    with session.connect() as connection:
        chosen = encoder or searching.active_encoder(connection)
        vector = embed_picture(picture, chosen, session.settings)
        found = searching.nearest(connection, vector, k, max_distance, chosen)
        _show_neighbours(picture, chosen, found, as_json)


def colour(
    wanted: Annotated[
        str, typer.Argument(metavar="HEX", help="Red, green and blue: c83c32 or '#c83c32' (mind the quotes).")
    ],
    k: Count = 10,
    max_distance: MaxDistance = None,
    as_json: Json = False,
) -> None:
    """Shows the images that hold most of a colour. Distance 0 is a picture all of this colour."""
    with open_session().connect() as connection:
        found = searching.by_colour(connection, wanted, k, max_distance)
    if as_json:
        output.print_json({"query": wanted, "neighbours": found})
    else:
        output.print_table(wanted, _COLUMNS, _rows(found))


def _show_neighbours(query: str, encoder: str, found: list[searching.Neighbour], as_json: bool) -> None:
    if as_json:
        output.print_json({"query": query, "encoder": encoder, "neighbours": found})
        return
    output.print_table(f"{query} ({encoder})", _COLUMNS, _rows(found))


_COLUMNS = ("rank", "image", "distance", "work", "title", "licence")


def _rows(found: list[searching.Neighbour]) -> list[tuple[object, ...]]:
    return [(n.rank, n.image, n.distance, n.work, n.title, n.licence) for n in found]


def labels(
    key: str,
    everything: Annotated[bool, typer.Option("--all", help="All classes, computed now.")] = False,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Shows what an image shows: its five most probable classes, or all of them."""
    session = open_session()
    with session.connect() as connection:
        chosen = encoder or searching.active_encoder(connection)
        image = searching.find_image(connection, key)
        stored = searching.labels(connection, image, chosen)
    if everything:
        from lookalike.encoders import class_names
        from workers.picture import classify_picture

        probabilities = classify_picture(
            image.url, image.protocol, chosen, session.settings, outside=image.outside
        )
        stored = [
            searching.Label(rank, name, float(probability))
            for rank, (name, probability) in enumerate(
                sorted(zip(class_names(chosen), probabilities, strict=True), key=lambda pair: -pair[1]), 1
            )
        ]
    if as_json:
        output.print_json({"image": key, "encoder": chosen, "labels": stored})
    else:
        rows = [(one.rank, one.label, one.probability) for one in stored]
        output.print_table(f"{key} ({chosen})", ("rank", "label", "probability"), rows)
