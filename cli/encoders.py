"""`lookalike encoders`: the networks that vectors are made with."""

from typing import Annotated

import typer

from cli import output
from cli.options import Json
from cli.session import open_session
from lookalike import archive, books
from lookalike.encoders import ENCODERS, find_encoder

encoders_app = typer.Typer(help="The networks that vectors are made with.", no_args_is_help=True)


@encoders_app.command("list")
def encoders_list(as_json: Json = False) -> None:
    """Lists the encoders that lookalike knows, and which of them this archive keeps."""
    with open_session().connect() as connection:
        kept = books.encoder_names(connection)
    rows = [
        {
            "name": spec.name,
            "dimension": spec.dimension,
            "licence": spec.licence,
            "in_archive": spec.name in kept,
            "active": kept[:1] == [spec.name],
        }
        for spec in ENCODERS.values()
    ]
    if as_json:
        output.print_json({"encoders": rows})
    else:
        output.print_table("", tuple(rows[0]), [tuple(_yes(value) for value in row.values()) for row in rows])


def _yes(value: object) -> object:
    return {True: "yes", False: ""}.get(value, value) if isinstance(value, bool) else value


@encoders_app.command("add")
def encoders_add(name: str) -> None:
    """Adds an encoder to the archive: all images are embedded with it, while the active one goes on serving."""
    session = open_session()
    with session.connect() as connection:
        added = archive.add_encoder(connection, find_encoder(name), session.settings.chunk_size)
    print(
        f"{name}: {'added; start workers with LOOKALIKE_ENCODER=' + name if added else 'was there already'}"
    )


@encoders_app.command("activate")
def encoders_activate(name: str) -> None:
    """Makes an encoder the one that searches use."""
    with open_session().connect() as connection:
        archive.activate(connection, name)
    print(f"searches use {name} now")


@encoders_app.command("fingerprint")
def encoders_fingerprint(name: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """Checks that an encoder still gives the vectors that the archive was made with; exit code 1 where not."""
    from workers.network import Fingerprint, check_fingerprint, load_encoder

    session = open_session()
    encoder = load_encoder(name or session.settings.encoder, session.settings)
    measured = encoder.fingerprint
    with session.connect() as connection:
        if archive.is_added(connection, encoder.spec.name):
            recorded = archive.recorded_fingerprint(connection, encoder.spec.name, measured.to_json())
            check_fingerprint(encoder, Fingerprint.from_json(recorded))
    if as_json:
        output.print_json({"encoder": encoder.spec.name, **measured.to_json()})
    else:
        print(f"{encoder.spec.name} {measured.digest}")
