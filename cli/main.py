"""The command `lookalike`: its words, and how errors reach the terminal."""

import sys
from typing import Annotated, NoReturn

import psycopg
import redis
import typer
from rich.markup import escape

from cli import deletion, output, search, state, work
from cli.audit import audit
from cli.clusters import clusters_app
from cli.duplicates import duplicates_app
from cli.encoders import encoders_app
from cli.index import index_app
from cli.maps import map_app
from cli.ready import ready
from cli.serve import serve
from cli.services import migrate, services_app
from cli.thumbnails import thumbnails_app
from cli.unwanted import unwanted_app
from lookalike import __version__
from lookalike.database import mask
from lookalike.errors import LookalikeError

app = typer.Typer(
    name="lookalike",
    help="Finds the images in an archive that look alike.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    work.demo,
    work.run,
    work.add,
    work.plan,
    work.orchestrate,
    work.worker,
    serve,
    ready,
    state.status,
    audit,
    state.failures,
    state.retry,
    deletion.delete,
    deletion.restore,
    search.similar,
    search.search,
    search.colour,
    search.labels,
    migrate,
):
    app.command()(command)
app.add_typer(services_app, name="services")
app.add_typer(encoders_app, name="encoders")
app.add_typer(index_app, name="index")
app.add_typer(duplicates_app, name="duplicates")
app.add_typer(clusters_app, name="clusters")
app.add_typer(unwanted_app, name="unwanted")
app.add_typer(thumbnails_app, name="thumbnails")
app.add_typer(map_app, name="map")


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if show:
        print(__version__)
        raise typer.Exit


def one_line(error: Exception) -> str:
    """The message of a foreign error, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str) -> NoReturn:
    # Words of an archive are no markup: a path may hold "[/x]".
    output.errors.print(f"[red]lookalike:[/red] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def main() -> None:
    """The entry point: errors of ours are one line on standard error and exit code 1, Ctrl-C is 130."""
    try:
        app()
    except LookalikeError as error:
        _fail(str(error))
    except psycopg.Error as error:
        _fail(f"Postgres: {mask(one_line(error))}")
    except redis.RedisError as error:
        _fail(f"the broker: {mask(one_line(error))}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
