"""`lookalike duplicates`: groups of near-duplicates, and what people say of pairs."""

import csv
import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import Encoder, Json
from cli.session import log_to_terminal, open_session
from lookalike import analyses, duplicates, search
from lookalike.errors import ConfigurationError

duplicates_app = typer.Typer(
    help="Near-duplicates: the same picture twice, cropped, rescanned, in grey.", no_args_is_help=True
)

Enqueue = Annotated[
    bool, typer.Option(help="Only enqueue: `lookalike orchestrate` and workers elsewhere do it.")
]
By = Annotated[str | None, typer.Option(help="Who says so; else the login name.")]
SAME = {"same": True, "different": False}


@duplicates_app.command("find")
def duplicates_find(
    max_distance: Annotated[
        float | None, typer.Option(min=0, max=1, help="Threshold, 0..1; else as learned.")
    ] = None,
    likeness: Annotated[
        float | None, typer.Option(min=-1, max=1, help="How well miniatures must match; else as learned.")
    ] = None,
    turned: Annotated[
        bool,
        typer.Option(help="Also mirrored or rotated by 90 degrees: fetches and embeds all images again."),
    ] = False,
    other_works: Annotated[
        bool, typer.Option(help="Only pairs of different works: pages of one book look alike by nature.")
    ] = False,
    again: Annotated[bool, typer.Option(help="Start over, though the same search was made before.")] = False,
    enqueue: Enqueue = False,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Compares all images, and from then on those that arrive. Can be stopped; a second run goes on."""
    log_to_terminal(30)
    session = open_session()
    with session.connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        learned = duplicates.criteria(connection, chosen)
        criteria = duplicates.Criteria(
            learned.threshold if max_distance is None else max_distance,
            learned.likeness if likeness is None else likeness,
        )
        analysis = duplicates.begin(connection, chosen, criteria, turned, other_works, again)
    if not enqueue:
        from cli.analysis import run_analysis

        run_analysis(session, analysis, quiet=as_json)
    with session.connect() as connection:
        groups, images = duplicates.count(connection, chosen)
        missed = analyses.count_missed(connection, analysis.id)
    found = {"encoder": chosen, **asdict(criteria), "groups": groups, "images": images, "missed": missed}
    if as_json:
        output.print_json({**found, "analysis": analysis.id, "settled": not enqueue})
    elif enqueue:
        print(f"analysis {analysis.id} is enqueued: `lookalike duplicates list` shows what is found so far")
    else:
        print(f"{images:,} images in {groups:,} groups within a distance of {criteria.threshold:.3f}")
        if missed:
            print(f"{missed:,} images could not be fetched to be turned; --again tries once more")


@duplicates_app.command("list")
def duplicates_list(
    limit: Annotated[int, typer.Option("-n", min=1, help="How many groups, the largest first.")] = 20,
    least: Annotated[int, typer.Option(min=2, help="Only groups of so many images or more.")] = 2,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Lists groups of near-duplicates; the image that stands for a group comes first."""
    with open_session().connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        members = duplicates.list_members(connection, chosen, least, limit)
    if as_json:
        output.print_json({"encoder": chosen, "members": members})
        return
    output.print_table(
        chosen, ("group", "size", "image", "stands for it", "distance", "work", "title"),
        [(str(m.group), m.size, m.image, "yes" if m.representative else "", m.distance, m.work, m.title)
         for m in members],
    )  # fmt: skip


@duplicates_app.command("mark")
def duplicates_mark(
    first: str, second: str,
    verdict: Annotated[str, typer.Argument(metavar="same|different")],
    by: By = None,
) -> None:  # fmt: skip
    """Says that two images are the same picture, or different ones. Different ones are never paired again."""
    if verdict not in SAME:
        raise typer.BadParameter("say `same` or `different`")
    with open_session().connect() as connection:
        duplicates.mark(connection, first, second, SAME[verdict], by or getpass.getuser())
    print(f"{first} and {second}: {verdict}")


@duplicates_app.command("learn")
def duplicates_learn(
    pairs: Annotated[
        Path | None, typer.Option(help="CSV of marked pairs: two keys, and same or different.", exists=True)
    ] = None,
    precision: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pairs within the threshold that must be the same.")
    ] = 0.95,
    by: By = None,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Learns the threshold from marked pairs. Exit code 1 when no threshold reaches the precision."""
    with open_session().connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        for first, second, same in _read_pairs(pairs) if pairs else ():
            duplicates.mark(connection, first, second, same, by or getpass.getuser())
        curve, learned = duplicates.learn(connection, chosen, precision)
    if as_json:
        output.print_json({"encoder": chosen, "threshold": learned, "curve": curve})
    else:
        rows = [(c.threshold, c.likeness, c.precision, c.recall, "*" if c == learned else "") for c in curve]
        output.print_table(chosen, ("threshold", "likeness", "precision", "recall", ""), rows)
        if learned is None:
            print("no threshold was learned: mark more pairs, or ask for less precision")
    raise typer.Exit(0 if learned else 1)


def _read_pairs(path: Path) -> list[tuple[str, str, bool]]:
    """The lines of a CSV file, all or none. Raises ConfigurationError that names the line at fault."""
    pairs = []
    with path.open(newline="", encoding="utf-8-sig") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            if not row:
                continue
            if len(row) != 3 or row[2].strip().lower() not in SAME:
                raise ConfigurationError(f"{path}, line {number}: two keys, and same or different")
            pairs.append((row[0].strip(), row[1].strip(), SAME[row[2].strip().lower()]))
    return pairs
