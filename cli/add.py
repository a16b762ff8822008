"""`lookalike add`: registers sources, or lists what they hold."""

from collections.abc import Sequence

from rich.progress import Progress, SpinnerColumn, TextColumn

from cli import output
from cli.session import Session, ensure_encoder
from lookalike.images import Refused
from lookalike.settings import Settings
from orchestrator.intake import read_in
from orchestrator.progress import Intake
from orchestrator.sources import open_source


def register_sources(session: Session, sources: Sequence[str], as_json: bool, anew: bool) -> None:
    """Registers every source and prints what was new, changed, unchanged and refused."""
    intake = Intake()
    with session.connect() as connection, _counting(quiet=as_json) as progress:
        ensure_encoder(session, connection)
        task = progress.add_task("")
        for source in sources:
            read_in(
                connection,
                source,
                session.settings,
                intake,
                lambda so_far: progress.update(task, description=_sentence(so_far)),
                anew=anew,
            )
    if as_json:
        registered = intake.registered
        output.print_json(
            {
                "new": registered.new,
                "changed": registered.changed,
                "unchanged": registered.unchanged,
                "gone": registered.gone,
                "deleted": intake.deleted,
                "refused": dict(intake.refused),
                "details": dict(intake.words),
            }
        )
        return
    print(_sentence(intake))
    print_refusals(intake)


def dry_run(sources: Sequence[str], settings: Settings, as_json: bool) -> None:
    """Lists what the sources hold by the address of each image; touches no database."""
    images, refused = [], []
    for source in sources:
        for announcement in open_source(source, settings):
            if isinstance(announcement, Refused):
                refused.append(announcement)
            else:
                images.append(announcement)
    if as_json:
        output.print_json(
            {
                "images": [
                    {
                        "key": image.key,
                        "url": image.url,
                        "work": image.work,
                        "title": image.title,
                        "licence": image.licence,
                        "protocol": image.protocol,
                    }
                    for image in images
                ],
                "refused": refused,
            }
        )
        return
    output.print_table("", ("key", "address", "work"), [(i.key, i.url, i.work) for i in images])
    if refused:
        output.print_table(
            "refused", ("where", "reason", ""), [(r.where, r.reason, r.detail) for r in refused]
        )


def print_refusals(intake: Intake) -> None:
    """Shows how many records were refused and why, with the first few as examples."""
    if intake.refused:
        counts = [*intake.refused.most_common(), *intake.words.most_common()]
        output.print_table("refused", ("reason", "records"), counts)
        output.print_table(
            "for example", ("where", "reason", ""), [(r.where, r.reason, r.detail) for r in intake.examples]
        )


def _sentence(intake: Intake) -> str:
    registered = intake.registered
    counts = {
        "new": registered.new,
        "changed": registered.changed,
        "unchanged": registered.unchanged,
        "refused": intake.refused.total(),
        "deleted": intake.deleted,
        "not brought back, as they were deleted since": registered.gone,
    }
    always = ("new", "changed", "unchanged", "refused")
    return ", ".join(f"{count:,} {word}" for word, count in counts.items() if count or word in always)


def _counting(quiet: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        console=output.errors,
        transient=True,
        disable=quiet,
    )
