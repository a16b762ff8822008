"""`lookalike status`, `failures` and `retry`: what is done, what is not, and why."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from cli import output
from cli.hosts import find_hosts, print_hosts
from cli.options import Encoder, Json
from cli.session import open_session
from lookalike import analyses, awaited, books, index, removal, search
from lookalike.database import Connection
from lookalike.limits import list_workers
from lookalike.reasons import Reason
from orchestrator.progress import list_sources
from orchestrator.sources.records import without_secrets

# A check is old after so many days, or when the archive has grown by this share since.
OLD_DAYS = 30
OLD_GROWTH = 0.2


def status(as_json: Json = False) -> None:
    """Shows for each encoder what is registered, done, failed (and why) and open, and how fast it goes."""
    session = open_session()
    with session.connect() as connection:
        shown = {name: _describe(connection, name) for name in books.encoder_names(connection)}
        sources = list_sources(connection)
        manifests = awaited.count_awaited(connection)
        leaving = removal.list_leaving(connection)
    hosts = find_hosts(session.endpoints.broker_url)
    if as_json:
        output.print_json(
            {
                "encoders": shown,
                "leaving": leaving,
                "sources": sources,
                "manifests": manifests,
                "hosts": hosts,
            }
        )
        return
    if sources:
        print_sources(sources)
    print_manifests(manifests)
    if not shown:
        print("nothing is registered yet: lookalike add SOURCE, or lookalike run SOURCE")
    for name, one in shown.items():
        _print_encoder(name, one, session.settings.recall_floor)
    print_leaving(leaving)
    if hosts:
        print_hosts(hosts)


def print_leaving(leaving: list[removal.Leaving]) -> None:
    """Says which encoders are being taken out, and how that goes on where it was interrupted."""
    for one in leaving:
        output.console.print(
            f"{one.encoder} is being taken out since {one.since:%Y-%m-%d %H:%M}, {one.vectors_bytes >> 20:,} MB of its"
            f" vectors are left; `lookalike encoders remove {one.encoder}` goes on with it where it was stopped",
            highlight=False,
        )


def _describe(connection: Connection, name: str) -> dict[str, Any]:
    """All that is said of one encoder."""
    counted = books.count_books(connection, name)
    speed = books.count_last_minute(connection, name) / 60
    last = index.last_check(connection, name)
    return {
        **as_dict(counted),
        "failures": books.count_reasons(connection, name),
        "images_per_second": round(speed, 2),
        "seconds_left": round(counted.open / speed) if speed and counted.open else None,
        "chunks": [
            {"lane": lane, "state": state, "chunks": count}
            for lane, state, count in books.count_chunks(connection, name)
        ],
        "index": last and index.as_json(last),
        "analyses": analyses.list_standing(connection, name),
        "workers": [
            {**asdict(one), "images_per_second": round(one.images_per_second, 2), "limit": one.limit}
            for one in list_workers(connection, name)
        ],
    }


def _print_encoder(name: str, one: dict[str, Any], recall_floor: float) -> None:
    output.print_table(
        name, ("registered", "done", "failed", "open", "lost", "faults", "complete", "images/s", "seconds left"),
        [[one.get(c, 0) for c in ("registered", "done", "failed", "open", "lost", "faults")]
         + ["yes" if one["complete"] else "no", one["images_per_second"], one["seconds_left"]]],
    )  # fmt: skip
    if one["failures"]:
        output.print_table("", ("reason", "images"), one["failures"].items())
    if one["chunks"]:
        output.print_table("", ("lane", "state", "chunks"), [list(chunk.values()) for chunk in one["chunks"]])
    if one["workers"]:
        print_workers(one["workers"])
    if one["analyses"]:
        output.print_table(
            "", ("analysis", "", "images left", "summed up"),
            [(a.kind, a.scope, a.left, f"{a.settled_at:%Y-%m-%d %H:%M}" if a.settled_at else "not yet")
             for a in one["analyses"]],
        )  # fmt: skip
    if one["index"]:
        print_recall(one["index"], one["done"], recall_floor)


def print_sources(sources: list[dict[str, Any]]) -> None:
    """Shows how far each source has been read, and what it announced."""
    output.print_table(
        "sources",
        ("source", "new", "changed", "unchanged", "deleted", "refused", "read"),
        [
            [
                s["name"],
                s["new"],
                s["changed"],
                s["unchanged"],
                s["deleted"],
                sum(s["refused"].values()),
                _read(s),
            ]
            for s in sources
        ],
    )


def _read(source: dict[str, Any]) -> str:
    """How far a source is read, in words."""
    if source["error"]:
        return f"broke off: {source['error']}"
    if source["ended_at"] is None:
        return f"goes on, last {source['read_at']:%Y-%m-%d %H:%M:%S}"
    return f"to its end, {source['ended_at']:%Y-%m-%d %H:%M:%S}"


def print_manifests(manifests: dict[str, int]) -> None:
    """Shows how many manifests are still to come, and how many did not in time, where there are any."""
    if any(manifests.values()):
        output.print_table("", ("manifests awaited", "failed"), [list(manifests.values())])


def print_recall(check: dict[str, Any], vectors: int, floor: float) -> None:
    """Shows the latest figure of what searches find, and warns of one that is low or old."""
    recall, poor = check["recall"]["10"], check["poor"]
    warnings = [] if recall >= floor else [f"under {floor}: see `lookalike index tune`"]
    age = datetime.now(UTC) - check["checked_at"]
    if age > timedelta(days=OLD_DAYS) or vectors > check["vectors"] * (1 + OLD_GROWTH):
        warnings.append(f"old, there are {vectors:,} vectors now: see `lookalike index check`")
    output.console.print(
        f"searches find {recall:.1%} of the true ten nearest, {poor:.1%} of them less than half"
        f" (checked {check['checked_at']:%Y-%m-%d}, {check['vectors']:,} vectors)"
        + "".join(f"; {warning}" for warning in warnings),
        highlight=False,
    )


def print_workers(workers: list[dict[str, Any]]) -> None:
    """Shows how busy the stages of each worker are, and in words what limits it."""
    stages = ("fetch", "decode", "encode", "store")
    output.print_table(
        "",
        (
            "worker",
            "device",
            "images/s",
            *(f"{stage} busy" for stage in stages),
            "batch fill",
            "it waits for",
        ),
        [
            [w["name"], w["device"], w["images_per_second"]]
            + [f"{w[f'{stage}_busy']:.0%}" for stage in stages]
            + [f"{w['batch_fill']:.0%}", w["limit"]]
            for w in workers
        ],
    )
    for w in workers:
        if w["thumbnails_missed"]:
            output.console.print(
                f"{w['name']} missed {w['thumbnails_missed']:,} thumbnails, and its log says why:"
                " `lookalike thumbnails make`",
                highlight=False,
            )
        if w["refused"]:
            output.console.print(
                f"{w['name']} dropped {w['refused']:,} messages that are not ours: somebody else writes to the broker,"
                " see docs/security.md",
                highlight=False,
            )


def as_dict(counted: books.Books) -> dict[str, Any]:
    """The books as JSON; faults that an audit has found, and manifests that are awaited, where there are any."""
    return {
        "registered": counted.registered,
        "done": counted.done,
        "failed": counted.failed,
        "open": counted.open,
        "lost": counted.lost,
        **({"faults": counted.faults} if counted.faults else {}),
        **({"awaited": counted.awaited} if counted.awaited else {}),
        "complete": counted.complete,
    }


def print_books(encoder: str, counted: books.Books, reasons: dict[str, int]) -> None:
    state = "complete" if counted.complete else "NOT complete"
    if counted.awaited:
        state += f", {counted.awaited:,} manifests are awaited"
    if not counted.balanced:
        state += f": {counted.lost + counted.faults:,} faults, see `lookalike audit`"
    output.console.print(
        f"{encoder}: {counted.registered:,} registered = {counted.done:,} done + {counted.failed:,} failed"
        f" + {counted.open:,} open: {state}",
        highlight=False,
    )
    if reasons:
        output.print_table("", ("reason", "images"), reasons.items())


def failures(
    reason: Annotated[list[Reason] | None, typer.Option(help="Only these reasons.")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 100,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Lists failed images with their reasons, the latest first, manifests that did not appear, and those awaited."""
    with open_session().connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        found = books.list_failures(connection, chosen, reason, limit)
        missing = awaited.list_missing(connection, reason, limit)
        waiting = awaited.list_waiting(connection, reason, limit)
    # A signed address is a key to the image: lists are mailed and pasted.
    rows = [replace(row, url=without_secrets(row.url)) for row in found]
    missing = [replace(row, address=without_secrets(row.address)) for row in missing]
    waiting = [replace(row, address=without_secrets(row.address)) for row in waiting]
    if as_json:
        output.print_json({"encoder": chosen, "failures": rows, "manifests": missing, "awaited": waiting})
    else:
        output.print_table(
            "", ("image", "reason", "detail", "tries", "address"),
            [(f.image, f.reason, f.detail, f.attempts, f.url) for f in rows],
        )  # fmt: skip
        for title, manifests in (("manifests", missing), ("manifests that are awaited", waiting)):
            if manifests:
                output.print_table(
                    title, ("manifest", "reason", "detail", "tries"),
                    [(m.address, m.reason, m.detail, m.tries) for m in manifests],
                )  # fmt: skip


def retry(
    keys: Annotated[list[str] | None, typer.Argument(help="Images to try again.")] = None,
    reason: Annotated[list[Reason] | None, typer.Option(help="All images with these reasons.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All failed images.")] = False,
    manifests: Annotated[bool, typer.Option(help="Manifests that did not appear in time.")] = False,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Makes failed images pending again, or has failed manifests read again."""
    if manifests and not (keys or reason or everything):
        _retry_manifests(as_json)
        return
    if manifests or not (keys or reason or everything):
        raise typer.BadParameter("name images, a --reason, or --all; --manifests stands alone")
    session = open_session()
    with session.connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        count = books.retry(connection, chosen, session.settings.chunk_size, reason or None, keys or None)
    if as_json:
        output.print_json({"encoder": chosen, "retried": count})
    else:
        print(
            f"{count} images are pending again; `lookalike run` or a worker takes them up"
            if count
            else "no failed image matches: see `lookalike failures`"
        )


def _retry_manifests(as_json: bool) -> None:
    with open_session().connect() as connection:
        count = awaited.retry(connection)
    if as_json:
        output.print_json({"retried_manifests": count})
    else:
        print(f"{count} manifests are read again as soon as `lookalike orchestrate` or `lookalike run` runs")
