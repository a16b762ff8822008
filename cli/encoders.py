"""`lookalike encoders`: the networks that vectors are made with. Only `fingerprint` loads one."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from cli import output
from cli.options import Json
from cli.session import open_session
from lookalike import archive, books, removal
from lookalike.encoders import ENCODERS, EncoderSpec, find_encoder
from lookalike.errors import ConfigurationError

encoders_app = typer.Typer(help="The networks that vectors are made with.", no_args_is_help=True)

# Of the SHA-256 of weights, as in the names of torchvision's files.
_DIGITS = 8


@encoders_app.command("list")
def encoders_list(as_json: Json = False) -> None:
    """Lists the encoders that lookalike knows, what they do on this machine, and which this archive keeps."""
    session = open_session()
    with session.connect() as connection:
        kept = books.encoder_names(connection)
    rows = [
        {
            **describe(spec, session.settings.home, session.settings.weights_dir),
            "in_archive": spec.name in kept,
            "active": kept[:1] == [spec.name],
        }
        for spec in ENCODERS.values()
    ]
    if as_json:
        output.print_json({"encoders": rows})
        return
    output.print_table(
        "", ("name", "dimension", "licence", "weights", "on this machine", "images/s", "in archive", "active"),
        [
            (
                row["name"], row["dimension"], row["licence"], row["digest"][:_DIGITS], _yes(row["on_machine"]),
                f"{row['images_per_second']:.0f}" if row["images_per_second"] else "",
                _yes(row["in_archive"]), _yes(row["active"]),
            )
            for row in rows
        ],
    )  # fmt: skip


def describe(spec: EncoderSpec, home: Path, weights_dir: Path | None) -> dict[str, Any]:
    """What is known of an encoder without loading it. `digest` is as much as is known of its weights' SHA-256."""
    from workers.measurements import latest
    from workers.weights import locate_weights, promised_digest

    path = locate_weights(spec, weights_dir)
    setup, measured = latest(home, spec.name) or (None, None)
    return {
        "name": spec.name,
        "dimension": spec.dimension,
        "licence": spec.licence,
        "distance": spec.distance,
        "classifies": spec.classifies,
        "weights": spec.weights,
        "digest": measured.weights_digest if measured else promised_digest(spec.weights),
        "on_machine": path is not None,
        "path": path,
        "images_per_second": measured and measured.images_per_second,
        "batch_size": measured and measured.batch_size,
        "device": setup and setup.device,
        "runtime": setup and setup.runtime,
    }


def _yes(value: bool) -> str:
    return "yes" if value else ""


@encoders_app.command("fetch")
def encoders_fetch(
    name: str,
    to: Annotated[
        Path | None, typer.Option(help="Folder to copy the file into: a LOOKALIKE_WEIGHTS_DIR.")
    ] = None,
) -> None:
    """Downloads the weights of an encoder if they are not on this machine yet. Needs neither database nor torch."""
    from workers.weights import digest_weights, find_weights

    spec = find_encoder(name)
    path = find_weights(spec, to)
    digest = digest_weights(path)
    if to is not None and path != to / spec.weights:
        path = copy_weights(path, to / spec.weights)
    print(f"{path}  sha256 {digest}")


def copy_weights(path: Path, target: Path) -> Path:
    """Copies a file and returns the copy; one that breaks off leaves nothing under its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(path, part)
    return part.replace(target)


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


@encoders_app.command("remove")
def encoders_remove(
    name: str,
    stop_work: Annotated[
        bool, typer.Option(help="Give up its open chunks, those of analyses as well.")
    ] = False,
    yes: Annotated[bool, typer.Option(help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Takes an encoder out for good, with its vectors and all that was found with them; searches go on meanwhile.

    Stopped at any moment, the same command goes on. What people decided about images stays.
    """
    session = open_session()
    if name == session.settings.encoder:
        raise ConfigurationError(
            f"LOOKALIKE_ENCODER is still {name}, and `add`, `run` and workers would add it again: set it to another one"
        )
    with session.connect() as connection:
        parts = removal.measure(connection, name, stop_work)
        if not as_json:
            output.print_table(
                "", (f"what goes with {name}", "rows", "MB"), [(p.name, p.rows, p.bytes >> 20) for p in parts]
            )
        if not yes:
            typer.confirm(f"remove {name} and all of this?", abort=True, err=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,} rows"))
        with Progress(*columns, console=output.errors, disable=as_json) as progress:
            # Rows that are deleted; what is dropped as a whole takes no time to speak of.
            total = sum(part.rows for part in parts if part.name not in ("vectors", "clusters"))
            task = progress.add_task("", total=total)
            removed = removal.remove(
                connection,
                name,
                stop_work,
                lambda part, rows: progress.update(task, advance=rows, description=part),
            )
    if as_json:
        output.print_json({"encoder": name, "parts": parts, "sets": removed.sets})
        return
    print(f"{name} is gone")
    if removed.sets:
        print(
            "what was decided about unwanted images stays; to find more of them with the active encoder:"
            f" lookalike unwanted learn {removed.sets[0]}"
            + (f" (likewise {', '.join(removed.sets[1:])})" if removed.sets[1:] else "")
        )


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
