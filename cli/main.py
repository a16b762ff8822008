"""The command `lookalike`: one function for each of its words."""

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.session import ensure_encoder, log_to_terminal, open_session
from lookalike import __version__, books, search, services
from lookalike.errors import LookalikeError
from lookalike.migrate import migrate as apply_migrations
from lookalike.reasons import Reason
from lookalike.settings import load_settings

app = typer.Typer(
    name="lookalike",
    help="Finds the images in an archive that look alike.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
services_app = typer.Typer(help="The embedded Postgres and Valkey.", no_args_is_help=True)
encoders_app = typer.Typer(help="The networks that vectors are made with.", no_args_is_help=True)
app.add_typer(services_app, name="services")
app.add_typer(encoders_app, name="encoders")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Encoder = Annotated[str | None, typer.Option(help="Another encoder than the active one.")]
Count = Annotated[int, typer.Option("-k", help="How many neighbours.", min=1, max=1000)]
MaxDistance = Annotated[float | None, typer.Option(help="Only neighbours within this distance (0..1).")]
Sheet = Annotated[Path | None, typer.Option(help="Also write a contact sheet picture to this file.")]
Sources = Annotated[
    list[str] | None,
    typer.Argument(
        help="Folder, CSV or JSONL file, s3://bucket/prefix, IIIF manifest or collection (file or URL),"
        " - for standard input."
    ),
]


def main() -> None:
    """The entry point: errors of ours are one line on standard error and exit code 1, Ctrl-C is 130."""
    try:
        app()
    except LookalikeError as error:
        output.errors.print(f"[red]lookalike:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if show:
        print(__version__)
        raise typer.Exit


# Services -------------------------------------------------------------------------------------------------------------


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
        (s.name, "running" if s.running else "stopped", s.pid, s.version, s.folder, s.detail)
        for s in services.status(load_settings())
    ]
    output.print_table("", ("service", "state", "pid", "version", "data", ""), rows)


@app.command()
def migrate(as_json: Json = False) -> None:
    """Brings the database to this version of lookalike. Safe to repeat and to run twice at once."""
    settings = load_settings()
    applied = apply_migrations(services.up(settings).database_url)
    if as_json:
        output.print_json({"applied": applied})
    else:
        print("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


# Work -----------------------------------------------------------------------------------------------------------------


@app.command()
def add(
    sources: Sources = None,
    dry_run: Annotated[bool, typer.Option(help="Register nothing; list what would be.")] = False,
    as_json: Json = False,
) -> None:
    """Registers the images of one or more sources. Can be stopped and repeated at any moment."""
    from cli.add import dry_run as list_sources
    from cli.add import register_sources

    if not sources:
        raise typer.BadParameter("name at least one source")
    if dry_run:
        list_sources(sources, load_settings(), as_json)
    else:
        register_sources(open_session(), sources, as_json)


@app.command()
def orchestrate() -> None:
    """Runs the orchestrator: leases chunks, hands them to the workers, sweeps. Ends on SIGTERM or Ctrl-C."""
    from lookalike.queue import Broker, make_app
    from orchestrator import dispatch

    log_to_terminal()
    session = open_session()
    with session.connect() as connection:
        ensure_encoder(session, connection)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    broker = Broker(session.endpoints.broker_url)
    dispatch.run(
        session.settings,
        session.connect,
        make_app(session.endpoints.broker_url, session.settings.encoder),
        broker,
        stop,
    )
    broker.close()


@app.command()
def worker(
    leash: Annotated[bool, typer.Option(hidden=True, help="End when standard input closes.")] = False,
) -> None:
    """Runs a Celery worker with the right pool and options. SIGTERM lets it finish what it holds."""
    from cli.worker import run_worker

    run_worker(leash)


@app.command()
def run(
    sources: Sources = None,
    as_json: Json = False,
) -> None:
    """Does the whole job on one machine: services, add, orchestrator and worker, until nothing is left to do.

    Ctrl-C is safe; a second run resumes, with or without the sources.
    """
    from cli import run as running

    log_to_terminal(30)
    session = open_session()
    result, intake = running.run(session, sources or [], quiet=as_json)
    with session.connect() as connection:
        reasons = books.count_reasons(connection, session.settings.encoder)
    if as_json:
        output.print_json({**_books(result), "failures": reasons, "refused": dict(intake.refused)})
    else:
        _print_books(session.settings.encoder, result, reasons)
    raise typer.Exit(0 if result.complete else 1)


@app.command()
def status(as_json: Json = False) -> None:
    """Shows for each encoder what is registered, done, failed (and why) and open, and how fast it goes."""
    session = open_session()
    shown: dict[str, Any] = {}
    with session.connect() as connection:
        for name in books.encoder_names(connection):
            counted = books.count_books(connection, name)
            speed = books.count_last_minute(connection, name) / 60
            shown[name] = {
                **_books(counted),
                "failures": books.count_reasons(connection, name),
                "images_per_second": round(speed, 2),
                "seconds_left": round(counted.open / speed) if speed and counted.open else None,
                "chunks": [
                    {"lane": lane, "state": state, "chunks": count}
                    for lane, state, count in books.count_chunks(connection, name)
                ],
            }
    if as_json:
        output.print_json({"encoders": shown})
        return
    for name, one in shown.items():
        output.print_table(
            name, ("registered", "done", "failed", "open", "lost", "complete", "images/s", "seconds left"),
            [[one[c] for c in ("registered", "done", "failed", "open", "lost")]
             + ["yes" if one["complete"] else "no", one["images_per_second"], one["seconds_left"]]],
        )  # fmt: skip
        if one["failures"]:
            output.print_table("", ("reason", "images"), one["failures"].items())
        if one["chunks"]:
            output.print_table(
                "", ("lane", "state", "chunks"), [list(chunk.values()) for chunk in one["chunks"]]
            )


def _books(counted: books.Books) -> dict[str, Any]:
    return {
        "registered": counted.registered,
        "done": counted.done,
        "failed": counted.failed,
        "open": counted.open,
        "lost": counted.lost,
        "complete": counted.complete,
    }


def _print_books(encoder: str, counted: books.Books, reasons: dict[str, int]) -> None:
    state = "complete" if counted.complete else "NOT complete"
    output.console.print(
        f"{encoder}: {counted.registered:,} registered = {counted.done:,} done + {counted.failed:,} failed"
        f" + {counted.open:,} open: {state}",
        highlight=False,
    )
    if reasons:
        output.print_table("", ("reason", "images"), reasons.items())


@app.command()
def audit(encoder: Encoder = None, as_json: Json = False) -> None:
    """Proves in SQL that the books balance; exit code 1 where they do not."""
    session = open_session()
    with session.connect() as connection:
        names = [encoder] if encoder else books.encoder_names(connection)
        found = {name: books.audit(connection, name) for name in names}
        counted = {name: books.count_books(connection, name) for name in names}
    sound = all(finding.count == 0 for findings in found.values() for finding in findings)
    if as_json:
        output.print_json(
            {"balanced": sound, "encoders": {n: {**_books(counted[n]), "findings": found[n]} for n in names}}
        )
    else:
        for name in names:
            _print_books(name, counted[name], {})
            output.print_table("", ("check", "rows"), [(f.check, f.count) for f in found[name]])
        print("the books balance" if sound else "the books do NOT balance")
    raise typer.Exit(0 if sound else 1)


@app.command()
def failures(
    reason: Annotated[list[Reason] | None, typer.Option(help="Only these reasons.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 100,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Lists failed images with their reasons, the latest first."""
    with open_session().connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        rows = books.list_failures(connection, chosen, reason, limit)
    if as_json:
        output.print_json({"encoder": chosen, "failures": rows})
    else:
        output.print_table(
            "", ("image", "reason", "detail", "tries", "address"),
            [(f.image, f.reason, f.detail, f.attempts, f.url) for f in rows],
        )  # fmt: skip


@app.command()
def retry(
    keys: Annotated[list[str] | None, typer.Argument(help="Images to try again.")] = None,
    reason: Annotated[list[Reason] | None, typer.Option(help="All images with these reasons.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All failed images.")] = False,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Makes failed images pending again."""
    if not (keys or reason or everything):
        raise typer.BadParameter("name images, a --reason, or --all")
    session = open_session()
    with session.connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        count = books.retry(connection, chosen, session.settings.chunk_size, reason or None, keys or None)
    if as_json:
        output.print_json({"encoder": chosen, "retried": count})
    else:
        print(f"{count} images are pending again; `lookalike run` or a worker takes them up")


# Search ---------------------------------------------------------------------------------------------------------------


@app.command()
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
        chosen = encoder or search.active_encoder(connection)
        found = search.similar(connection, key, k, max_distance, chosen)
        _show_neighbours(key, chosen, found, as_json)
        if sheet:
            from cli.sheet import write_sheet

            write_sheet(sheet, [(key, found)], connection, session.settings)


@app.command("search")
def search_outside(
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
        chosen = encoder or search.active_encoder(connection)
        vector = embed_picture(picture, chosen, session.settings)
        found = search.nearest(connection, vector, k, max_distance, chosen)
        _show_neighbours(picture, chosen, found, as_json)


def _show_neighbours(query: str, encoder: str, found: list[search.Neighbour], as_json: bool) -> None:
    if as_json:
        output.print_json({"query": query, "encoder": encoder, "neighbours": found})
        return
    output.print_table(
        f"{query} ({encoder})", ("rank", "image", "distance", "work", "title", "licence"),
        [(n.rank, n.image, n.distance, n.work, n.title, n.licence) for n in found],
    )  # fmt: skip


@encoders_app.command("list")
def encoders_list(as_json: Json = False) -> None:
    """Lists the encoders that lookalike knows, and which of them this archive keeps."""
    from lookalike.encoders import ENCODERS

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
    from lookalike import archive
    from lookalike.encoders import find_encoder

    session = open_session()
    with session.connect() as connection:
        added = archive.add_encoder(connection, find_encoder(name), session.settings.chunk_size)
    print(
        f"{name}: {'added; start workers with LOOKALIKE_ENCODER=' + name if added else 'was there already'}"
    )


@encoders_app.command("activate")
def encoders_activate(name: str) -> None:
    """Makes an encoder the one that searches use."""
    from lookalike import archive

    with open_session().connect() as connection:
        archive.activate(connection, name)
    print(f"searches use {name} now")


@encoders_app.command("fingerprint")
def encoders_fingerprint(name: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """Checks that an encoder still gives the vectors that the archive was made with; exit code 1 where not."""
    from lookalike import archive
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


@app.command()
def demo(
    images: Annotated[Path | None, typer.Option(help="Another folder of photographs.")] = None,
) -> None:
    """Does the main job end to end on bundled photographs, and writes a contact sheet picture."""
    from cli.demo import run_demo

    run_demo(open_session(), images)


if __name__ == "__main__":
    main()
