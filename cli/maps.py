"""`lookalike map`: a sample of the archive laid out in the plane, for the explorer's map."""

import time
from typing import Annotated

import typer

from cli import output
from cli.options import Encoder, Json
from cli.session import open_session
from lookalike import maps, search

map_app = typer.Typer(help="The map of the archive: look-alikes lie near each other.", no_args_is_help=True)


@map_app.command("make")
def map_make(
    images: Annotated[int, typer.Option(min=1, max=maps.MOST, help="How many, drawn at random.")] = maps.IMAGES,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws another sample.")] = 0,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Makes the map anew; the one of before is shown until then. Images that come later are not on it."""
    session = open_session()
    since = time.monotonic()
    with session.connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        output.errors.print(
            f"laying out up to {images:,} images of {chosen}: minutes for 20,000", highlight=False
        )
        made = maps.make(connection, chosen, images, seed)
    if as_json:
        output.print_json(made)
    else:
        print(f"{made.images:,} images are on the map of {chosen}, after {time.monotonic() - since:.0f} s")


@map_app.command("show")
def map_show(encoder: Encoder = None, as_json: Json = False) -> None:
    """Says which map there is."""
    with open_session().connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        found = maps.find(connection, chosen)
    if as_json:
        output.print_json({"encoder": chosen, "map": found})
    elif found is None:
        print(f"{chosen} has no map: `lookalike map make`")
    else:
        print(f"{found.images:,} images of {chosen}, made {found.made_at:%Y-%m-%d %H:%M}")
