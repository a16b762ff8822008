"""`lookalike delete` and `restore`: takes images out of the archive by hand, and brings them back."""

from typing import Annotated

import typer

from cli import output
from cli.options import Json
from cli.session import open_session
from lookalike import deletion
from lookalike.images import Removal

Keys = Annotated[list[str] | None, typer.Argument(help="Keys of images.")]


def delete(
    keys: Keys = None,
    work: Annotated[list[str] | None, typer.Option(help="All images of this work.")] = None,
    as_json: Json = False,
) -> None:
    """Deletes images: out of every search at once, and no source brings them back until `lookalike restore` does."""
    if not (keys or work):
        raise typer.BadParameter("name images, or a --work")
    removals = [Removal(key=key) for key in keys or []] + [Removal(work=name) for name in work or []]
    with open_session().connect() as connection:
        deleted = sum(deletion.remove(connection, removal, by_hand=True) for removal in removals)
    if as_json:
        output.print_json({"deleted": deleted})
    else:
        kept = "" if deleted else ": none of them was registered (keys are remembered all the same)"
        print(f"{deleted} images are deleted{kept}")


def restore(keys: Keys = None, as_json: Json = False) -> None:
    """Brings deleted images back: registered with what was known of them, and to be embedded again."""
    if not keys:
        raise typer.BadParameter("name images")
    session = open_session()
    with session.connect() as connection:
        restored = deletion.restore(connection, keys, session.settings.chunk_size)
    if as_json:
        output.print_json({"forgotten": restored.forgotten, "registered": restored.registered})
    else:
        print(
            f"{restored.registered} images are registered again"
            if restored.forgotten
            else "none of these images was deleted: see the table deleted_images"
        )
