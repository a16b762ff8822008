"""`lookalike index`: builds the index of an encoder, and measures what searches through it find."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cli import output
from cli.options import Encoder, Json
from cli.session import open_session
from lookalike import index, search

index_app = typer.Typer(help="The index that makes searches quick, and its recall.", no_args_is_help=True)

Queries = Annotated[int, typer.Option(min=1, max=10_000, help="Random images to search for.")]
Floor = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Recall of the ten nearest to reach; else LOOKALIKE_RECALL_FLOOR."),
]


@index_app.command("build")
def index_build(
    encoder: Encoder = None,
    memory: Annotated[int, typer.Option(help="MB for the graph of one partition; 0: as estimated.")] = 0,
    parallel: Annotated[int, typer.Option(min=0, help="Helping processes of the server.")] = 2,
    rebuild: Annotated[
        bool,
        typer.Option(help="Also what is there, as after many deletions; the old index serves meanwhile."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Builds the index while writes and searches go on. Stopped at any moment, it goes on where it was."""
    session = open_session()
    with session.connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        planned = index.estimate(connection, chosen)
        available = index.memory_limit(connection, session.settings.database_url is None)
    wanted = memory << 20 or planned.memory_bytes
    if wanted > available:
        output.errors.print(f"its graph wants {wanted >> 20:,} MB, it may have {available >> 20:,} MB")
    output.errors.print(
        f"{planned.rows:,} vectors: about {planned.core_seconds:,.0f} s of one core, {wanted >> 20:,} MB of memory for"
        f" a partition, {planned.disk_bytes >> 20:,} MB of disk", highlight=False,
    )  # fmt: skip
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.errors, disable=as_json) as progress:
        task = progress.add_task("", total=1.0)

        def show(now: index.Progress) -> None:
            done = (now.finished + now.share) / now.partitions
            progress.update(
                task, completed=done, description=f"{now.finished} of {now.partitions}, {now.phase}"
            )

        built = index.build(session.connect, chosen, min(wanted, available), parallel, show, rebuild=rebuild)
    if as_json:
        output.print_json({"encoder": chosen, "built": built, "estimate": asdict(planned)})
    else:
        print(f"{built} partitions indexed" if built else "the index is complete")


@index_app.command("check")
def index_check(encoder: Encoder = None, queries: Queries = 100, as_json: Json = False) -> None:
    """Measures recall at 1, 10 and 100 against the exact answer, and keeps it."""
    with open_session().connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        found = index.check(connection, chosen, queries)
    if as_json:
        output.print_json({"encoder": chosen, **index.as_json(found)})
    else:
        print_checks(chosen, [found])


@index_app.command("tune")
def index_tune(
    encoder: Encoder = None, floor: Floor = None, queries: Queries = 100, as_json: Json = False
) -> None:
    """Finds the fewest candidates whose recall reaches the floor, and sets them. Exit code 1 when none does."""
    session = open_session()
    floor = session.settings.recall_floor if floor is None else floor
    with session.connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        checks = index.tune(connection, chosen, floor, queries)
    if as_json:
        output.print_json({"encoder": chosen, "checks": [index.as_json(one) for one in checks]})
    else:
        print_checks(chosen, checks)
    raise typer.Exit(0 if checks[-1].recall_10 >= floor else 1)


@index_app.command("drop")
def index_drop(encoder: Encoder = None) -> None:
    """Takes the index away, as before a large backfill: searches go on, only slower."""
    with open_session().connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        print(f"{index.drop(connection, chosen)} partitions of {chosen} have no index now")


def print_checks(encoder: str, checks: list[index.Check]) -> None:
    """Shows checks, one in a row."""
    output.print_table(
        encoder,
        ("vectors", "index", "candidates", "queries", "recall@1", "@10", "@100", "poor", "p50 ms", "p95 ms"),
        [
            (
                *(c.vectors, "yes" if c.indexed else "no", c.candidates, c.queries),
                *(c.recall_1, c.recall_10, c.recall_100, c.poor, c.p50_ms, c.p95_ms),
            )
            for c in checks
        ],
    )
