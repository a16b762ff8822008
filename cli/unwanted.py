"""`lookalike unwanted`: colour charts, blank pages, covers: learned from examples, reviewed, left out of searches."""

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cli import output
from cli.options import Encoder, Json, Sheet
from cli.session import open_session
from lookalike import unwanted
from lookalike.errors import ConfigurationError
from lookalike.unwanted import State

unwanted_app = typer.Typer(
    help="Unwanted images: learned from examples, decided upon by people, left out of searches.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The set, such as `colour charts`.")]
Keys = Annotated[list[str] | None, typer.Argument(help="Keys of images.")]
KeyFile = Annotated[
    Path | None, typer.Option(help="File with the key of an image in each line.", exists=True, dir_okay=False)
]
By = Annotated[str | None, typer.Option(help="Who says so; else the login name.")]


@unwanted_app.command("learn")
def unwanted_learn(
    name: Name,
    examples: KeyFile = None,
    fine: KeyFile = None,
    precision: Annotated[
        float, typer.Option(min=0, max=1, help="Share that must be unwanted of what the threshold finds.")
    ] = unwanted.PRECISION,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="This distance, whatever its precision.")
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, max=100_000, help="Random images of the archive to compare with.")
    ] = unwanted.SAMPLE,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample and the folds.")] = 0,
    encoder: Encoder = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Learns a set from examples and finds its candidates. Examples and decisions made before stay.

    The distance of an image is that to its nearest example. Every example is held out once: recall is the share of
    them within the threshold; precision the share of examples in all that is held out and within it, which includes
    --fine images, those that people called fine, and a random sample of the archive. The sample may hold unwanted
    images: "at least" counts none of it as unwanted, "precision" as many as the recall of the examples suggests.
    Where unwanted images are rarer in the archive than in this test, so they are among the candidates: see how many
    are expected.
    """
    with open_session().connect() as connection, _progress(as_json) as progress:
        learned = unwanted.learn(
            connection,
            name,
            unwanted.read_keys(examples) if examples else (),
            unwanted.read_keys(fine) if fine else (),
            by=by or getpass.getuser(),
            precision=precision,
            threshold=threshold,
            encoder=encoder,
            sample=sample,
            seed=seed,
            on_progress=_teller(progress, name),
        )
    if as_json:
        output.print_json(learned)
    else:
        _print_report(learned)
        _print_found(name, learned.found)


def _progress(quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=output.errors, disable=quiet, transient=True)


def _teller(progress: Progress, name: str) -> unwanted.OnProgress:
    """Shows how many examples of a set have been searched for."""
    task = progress.add_task(name, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)


def _print_report(learned: unwanted.Learned) -> None:
    report = learned.report
    output.print_table(
        f"{learned.name} ({learned.encoder}): {report.examples:,} examples, {report.fine:,} fine images,"
        f" {report.sample:,} at random of about {report.archive:,}",
        (
            "threshold",
            "recall",
            "precision",
            "at least",
            "fine",
            "sample",
            "candidates expected",
            "at most",
            "",
        ),
        [
            (
                *(f"{one.threshold:.4f}", one.recall, one.precision, one.at_least, one.fine, one.sample),
                *(one.expected, one.at_most, "*" if one == report.chosen else ""),
            )
            for one in report.curve
        ],
    )
    if report.doubtful:
        print(f"of the sample it finds {', '.join(report.doubtful)}: unwanted, or what costs precision")


def _print_found(name: str, found: unwanted.Found) -> None:
    print(f"{name}: {found.candidates:,} candidates")
    if found.unfinished:
        output.errors.print(
            f"[red]more may exist[/red]: {found.unfinished:,} examples have {unwanted.STEPS[-1]:,} images or more"
            " within the threshold. Accept the candidates and refresh to find those behind them,"
            " or lower the threshold.",
            soft_wrap=True, highlight=False,
        )  # fmt: skip


@unwanted_app.command("refresh")
def unwanted_refresh(
    name: Annotated[str | None, typer.Argument(help="The set; else all of them.")] = None,
    as_json: Json = False,
) -> None:
    """Searches again from the examples: images that arrived since become candidates. Decisions stay."""
    refreshed = {}
    with open_session().connect() as connection, _progress(as_json) as progress:
        for one in [name] if name is not None else [known.name for known in unwanted.list_sets(connection)]:
            refreshed[one] = unwanted.refresh(connection, one, _teller(progress, one))
    if as_json:
        output.print_json({"sets": [{"name": one, "found": found} for one, found in refreshed.items()]})
        return
    for one, found in refreshed.items():
        _print_found(one, found)


@unwanted_app.command("list")
def unwanted_list(
    name: Annotated[str | None, typer.Argument(help="The set; else all of them.")] = None,
    state: Annotated[
        str, typer.Option(metavar="candidate|accepted|fine|any", help="What people say of the images.")
    ] = "candidate",
    limit: Annotated[int, typer.Option("-n", min=1, help="How many, nearest to an example first.")] = 50,
    sheet: Sheet = None,
    as_json: Json = False,
) -> None:
    """Lists images for review, nearest to an example first."""
    session = open_session()
    with session.connect() as connection:
        found = unwanted.list_images(connection, name, unwanted.as_state(state), limit)
        if sheet:
            from cli.sheet import write_sheet

            write_sheet(sheet, unwanted.sheet_rows(found), connection, session.settings)
    if as_json:
        output.print_json({"unwanted": found})
        return
    output.print_table(
        name or "",
        ("set", "image", "distance", "nearest example", "state", "by", "work", "title"),
        [
            (o.set, o.image, o.distance, o.nearest_example, o.state, o.decided_by, o.work, o.title)
            for o in found
        ],
    )


@unwanted_app.command("sets")
def unwanted_sets(as_json: Json = False) -> None:
    """Lists the sets, with how many images they have in each state."""
    with open_session().connect() as connection:
        found = unwanted.list_sets(connection)
    if as_json:
        output.print_json({"sets": found})
        return
    output.print_table(
        "",
        ("set", "encoder", "threshold", "examples", "candidates", "accepted", "fine", "learned"),
        [
            (
                *(o.name, o.encoder, f"{o.threshold:.4f}", o.examples, o.candidates, o.accepted, o.fine),
                f"{o.learned_at:%Y-%m-%d %H:%M}",
            )
            for o in found
        ],
    )


@unwanted_app.command("accept")
def unwanted_accept(
    name: Name,
    keys: Keys = None,
    everything: Annotated[bool, typer.Option("--all", help="All candidates.")] = False,
    within: Annotated[
        float | None, typer.Option(min=0, max=1, help="All candidates up to this distance.")
    ] = None,
    by: By = None,
) -> None:
    """Says that images are unwanted: searches leave them out."""
    if sum((bool(keys), everything, within is not None)) != 1:
        raise ConfigurationError("name images, or say --all, or --within a distance: one of them")
    with open_session().connect() as connection:
        who = by or getpass.getuser()
        if keys:
            count = unwanted.decide(connection, name, "accepted", keys, who)
        else:
            count = unwanted.accept_within(connection, name, 1.0 if within is None else within, who)
    print(f"{count:,} images of {name} are accepted as unwanted")


@unwanted_app.command("fine")
def unwanted_fine(name: Name, keys: Annotated[list[str], typer.Argument()], by: By = None) -> None:
    """Says that images are not unwanted: they never come back as candidates."""
    _decide(name, "fine", keys, by)


@unwanted_app.command("undecided")
def unwanted_undecided(name: Name, keys: Annotated[list[str], typer.Argument()]) -> None:
    """Takes decisions back: the images are candidates again."""
    _decide(name, "candidate", keys, None)


def _decide(name: str, state: State, keys: list[str], by: str | None) -> None:
    with open_session().connect() as connection:
        count = unwanted.decide(connection, name, state, keys, by or getpass.getuser())
    print(f"{count:,} images of {name}: {state}")


@unwanted_app.command("drop")
def unwanted_drop(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Forgets a set with all decisions about its images, which come back into searches."""
    if not yes:
        typer.confirm(f"forget {name} and what was decided about its images?", abort=True)
    with open_session().connect() as connection:
        unwanted.drop(connection, name)
    print(f"{name} is forgotten")
