"""The command `lookalike`: its words, and how errors reach the terminal."""

import sys
from typing import Annotated

import typer

from cli import output, search, state, work
from cli.encoders import encoders_app
from cli.index import index_app
from cli.services import migrate, services_app
from lookalike import __version__
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
    work.orchestrate,
    work.worker,
    state.status,
    state.audit,
    state.failures,
    state.retry,
    search.similar,
    search.search,
    search.labels,
    migrate,
):
    app.command()(command)
app.add_typer(services_app, name="services")
app.add_typer(encoders_app, name="encoders")
app.add_typer(index_app, name="index")


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if show:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """The entry point: errors of ours are one line on standard error and exit code 1, Ctrl-C is 130."""
    try:
        app()
    except LookalikeError as error:
        output.errors.print(f"[red]lookalike:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
