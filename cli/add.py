"""`lookalike add`: registers sources, or lists what they hold."""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict

from rich.progress import Progress, SpinnerColumn, TextColumn

from cli import output
from cli.session import Session, ensure_encoder
from lookalike.images import Image, Refused
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
                "awaited": intake.awaited,
                "refused": dict(intake.refused),
                "details": dict(intake.words),
            }
        )
        return
    print(_sentence(intake))
    if intake.awaited:
        print(
            "manifests whose hosts fail for the moment are read later, by `lookalike orchestrate` or `lookalike run`"
        )
    print_refusals(intake)


def dry_run(sources: Sequence[str], settings: Settings, as_json: bool) -> None:
    """Lists what the sources hold by the address of each image; touches no database.

    Images go through a file: there may be more of them than memory holds, and JSON is only printed when it is whole.
    """
    refused: list[Refused] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as listed:
        for source in sources:
            for announcement in open_source(source, settings):
                if isinstance(announcement, Refused):
                    refused.append(announcement)
                elif as_json:
                    comma = "," if listed.tell() else ""
                    listed.write(f"{comma}\n    {json.dumps(_listed(announcement), ensure_ascii=False)}")
                else:
                    print(announcement.key, announcement.url, announcement.work or "", sep="\t")
        if as_json:
            listed.seek(0)
            print('{\n  "images": [', end="")
            shutil.copyfileobj(listed, sys.stdout)
            shown = json.dumps([asdict(each) for each in refused], ensure_ascii=False)
            print(f'\n  ],\n  "refused": {shown}\n}}')
        elif refused:
            rows = [(r.where, r.reason, r.detail) for r in refused]
            output.print_table("refused", ("where", "reason", ""), rows)


def _listed(image: Image) -> dict[str, str | None]:
    return {name: getattr(image, name) for name in ("key", "url", "work", "title", "licence", "protocol")}


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
        "manifests awaited": intake.awaited,
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
