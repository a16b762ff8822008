"""`lookalike services` and `lookalike migrate`: the embedded servers and the schema."""

from typing import Annotated

import typer
from pydantic import SecretStr

from cli import output
from cli.options import Json
from cli.session import open_session
from lookalike import services
from lookalike.database import connect
from lookalike.logins import chosen_passwords, give_logins
from lookalike.migrate import build
from lookalike.migrate import migrate as apply_migrations
from lookalike.settings import load_settings

services_app = typer.Typer(help="The embedded Postgres and Valkey.", no_args_is_help=True)


@services_app.command("up")
def services_up(as_json: Json = False) -> None:
    """Starts the embedded services that are not running, and migrates their database."""
    session = open_session()
    if as_json:
        output.print_json(services.status(session.settings))
    else:
        _print_services()


@services_app.command("down")
def services_down() -> None:
    """Stops the embedded services. Their data stay."""
    services.down(load_settings())


@services_app.command("status")
def services_status(as_json: Json = False) -> None:
    """Shows whether the embedded services run."""
    if as_json:
        output.print_json(services.status(load_settings()))
    else:
        _print_services()


def _print_services() -> None:
    rows = [
        (s.name, "running" if s.running else "stopped", s.pid and str(s.pid), s.version, s.folder, s.detail)
        for s in services.status(load_settings())
    ]
    output.print_table("", ("service", "state", "pid", "version", "data", ""), rows)


def migrate(
    logins: Annotated[
        bool,
        typer.Option(
            "--logins",
            help="Then give the programs their logins, with the passwords that the settings have; to be run by an"
            " administrator of the database.",
        ),
    ] = False,
    indexes: Annotated[
        bool,
        typer.Option(
            help="Last, build indexes on large tables that are missing; programs need not wait for them."
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Brings the database to this version of lookalike. Safe to repeat and to run twice at once."""
    settings = load_settings()
    passwords = chosen_passwords(settings) if logins else {}
    database_url = services.up_database(settings)
    advice: list[str] = []
    built: list[str] = []

    def show(index: str) -> None:
        built.append(index)
        output.errors.print(f"building the index {index}: everybody may work meanwhile", highlight=False)

    def tell(line: str) -> None:
        output.errors.print(line, highlight=False, soft_wrap=True)

    applied = apply_migrations(database_url, advise=advice.append, on_wait=tell, indexes=False)
    given = _give(database_url, passwords) if passwords else []
    if not as_json:
        # Before the indexes: they may take hours, or be what this login may not make.
        for line in [f"applied {name}" for name in applied] + (
            [f"logins: {', '.join(given)}"] if given else []
        ):
            print(line, flush=True)
        for line in advice:
            tell(line)
    if indexes:
        build(database_url, on_build=show, on_wait=tell)
    if as_json:
        output.print_json({"applied": applied, "built": built, "advice": advice, "logins": given})
    elif built:
        print("\n".join(f"built the index {name}" for name in built))
    elif not applied:
        print("nothing to apply")


def _give(database_url: str, passwords: dict[str, SecretStr]) -> list[str]:
    with connect(database_url, application_name="lookalike migrate") as connection:
        return give_logins(connection, passwords)
