"""`lookalike audit`: whether the books balance, what is wrong where they do not, and its repair."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from cli import output
from cli.options import Encoder, Json
from cli.session import Session, open_session
from cli.state import print_manifests
from lookalike import books
from lookalike.audit import Audit, Wish
from lookalike.audit import audit as audit_encoder
from lookalike.awaited import count_awaited


def audit(
    encoder: Encoder = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Queue or delete whatever is wrong, and say what was done.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="Compare every vector with its code; otherwise up to some 100,000."),
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin at the beginning, also where an earlier audit was stopped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Proves that the books balance; exit code 1 where they do not. Stopped, it goes on where it was when repeated."""
    session = open_session()
    with session.connect() as connection:
        names = [encoder] if encoder else books.encoder_names(connection)
        manifests = count_awaited(connection)
    done = [_audit(session, name, Wish(full, repair), anew, as_json) for name in names]
    sound = all(one.balanced for one in done)
    if as_json:
        encoders = {one.encoder: _as_dict(one, manifests["awaited"]) for one in done}
        output.print_json({"balanced": sound, "encoders": encoders, "manifests": manifests})
    else:
        for one in done:
            _print(one)
        print_manifests(manifests)
        print("the books balance" if sound else "the books do NOT balance")
    raise typer.Exit(0 if sound else 1)


def _audit(session: Session, encoder: str, wish: Wish, anew: bool, quiet: bool) -> Audit:
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=output.errors,
        disable=quiet,
    )
    with session.connect() as connection, bar:
        task = bar.add_task(f"audit of {encoder}")

        def show(now: Audit) -> None:
            bar.update(task, completed=now.position, total=max(1, now.last))

        return audit_encoder(
            connection,
            encoder,
            wish,
            chunk_size=session.settings.chunk_size,
            anew=anew,
            on_progress=show,
        )


def _as_dict(done: Audit, awaited: int) -> dict[str, Any]:
    plain = asdict(done)
    findings = [{**asdict(one), "meaning": one.fault.meaning} for one in done.findings]
    left_out = ("id", "encoder", "share", "position", "last", "looked_at", "findings")
    return {
        **{name: value for name, value in plain.items() if name not in left_out},
        "balanced": done.balanced,
        "complete": done.balanced and done.open == 0 and awaited == 0,
        "findings": findings,
    }


def _print(done: Audit) -> None:
    output.console.print(
        f"{done.encoder}: {done.registered:,} registered = {done.done:,} done + {done.failed:,} failed"
        f" + {done.open:,} open + {done.lost:,} lost; {done.compared:,} of {done.vectors:,} vectors compared"
        f" with their codes",
        highlight=False,
    )
    if done.findings:
        output.print_table(
            "", ("wrong", "", "found", "repaired", "how", "ids of some"),
            [(str(one.fault), one.fault.meaning, one.found, one.repaired, one.fault.repair if one.repaired else "",
              ", ".join(map(str, one.examples[:3]))) for one in done.findings],
        )  # fmt: skip
