"""`lookalike thumbnails`: the small cache of pictures that the explorer shows where no image service does."""

import logging
from typing import Annotated

import typer

from cli import output
from cli.options import Json
from cli.session import Session, log_to_terminal, open_session
from lookalike import thumbnails
from lookalike.errors import ConfigurationError
from lookalike.thumbnails import Cache, open_cache

thumbnails_app = typer.Typer(
    help="Thumbnails for the explorer: made by workers where LOOKALIKE_THUMBNAILS says; here those that are missing.",
    no_args_is_help=True,
)


@thumbnails_app.command("make")
def thumbnails_make(
    into: Annotated[
        str | None,
        typer.Option(help="database, local, s3://bucket/prefix or a folder; else what LOOKALIKE_THUMBNAILS says."),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Makes those that are missing, on this machine: each image is fetched again. When stopped, the same command goes
    on with what is still missing."""
    from cli.run import progress_bar
    from workers.thumbnail_making import Maker

    log_to_terminal(logging.ERROR)
    session = open_session()
    cache = _find_cache(session, into)
    images = stored = 0
    maker = Maker(session.settings, cache)
    try:
        with session.connect() as connection, progress_bar(as_json) as progress:
            task = progress.add_task("thumbnails", total=cache.count_lacking(connection))
            for made in maker.run(connection):
                images, stored = images + made.images, stored + made.stored
                progress.update(task, completed=images)
    finally:
        maker.close()
    if as_json:
        output.print_json({"stored": stored, "missing": images - stored})
    else:
        missed = (
            f"; {images - stored:,} images could not be fetched or have changed" if images > stored else ""
        )
        print(f"{stored:,} thumbnails are made{missed}")
    raise typer.Exit(0 if stored == images else 1)


@thumbnails_app.command("status")
def thumbnails_status(as_json: Json = False) -> None:
    """Counts thumbnails by where they lie, and embedded images that should have one and have none."""
    session = open_session()
    cache = open_cache(session.settings)
    with session.connect() as connection:
        found = thumbnails.count(connection)
        missing = cache.count_lacking(connection) if cache else None
    if as_json:
        output.print_json({"thumbnails": found, "missing": missing})
        return
    output.print_table("thumbnails", ("place", "thumbnails"), list(found.items()))
    if missing:
        print(f"{missing:,} are missing: `lookalike thumbnails make`")


@thumbnails_app.command("remove")
def thumbnails_remove(
    place: Annotated[str, typer.Argument(help="database, or a place as `status` names it.")],
    as_json: Json = False,
) -> None:
    """Takes away all thumbnails of a place. Their files go as well, now or by an orchestrator, where
    LOOKALIKE_THUMBNAILS names that place."""
    session = open_session()
    with session.connect() as connection:
        removed = sum(thumbnails.remove(connection, place))
        if cache := open_cache(session.settings):
            cache.sweep(connection)
    if as_json:
        output.print_json({"removed": removed})
    else:
        print(f"{removed:,} thumbnails are removed")


def _find_cache(session: Session, into: str | None) -> Cache:
    settings = session.settings if into is None else session.settings.model_copy(update={"thumbnails": into})
    cache = open_cache(settings)
    if cache is None:
        raise ConfigurationError("LOOKALIKE_THUMBNAILS is off: set it, or say --into database")
    return cache
