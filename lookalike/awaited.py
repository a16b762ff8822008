"""Manifests that an event has promised, or whose host failed while a source was read: each is read as soon as it can
be, or ends as a named failure.

A row goes when its manifest has been read, in the transaction that registers the images; it is never lost before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row, dict_row, scalar_row
from psycopg.types.json import Json

from lookalike.images import AwaitedManifest
from lookalike.ledger import Connection
from lookalike.queries import load_queries
from lookalike.reasons import Reason

QUERIES = load_queries("awaited")


@dataclass(frozen=True, slots=True)
class DueManifest:
    """A manifest that is to be read now, for the `tries`-th time since it was promised; see AwaitedManifest."""

    address: str
    identifier: str
    version: str | None
    as_of: datetime | None
    outside: bool
    whole: bool
    moved_from: str | None
    described: dict[str, str]
    source: str | None
    promised_at: datetime
    tries: int
    expired: bool


@dataclass(frozen=True, slots=True)
class MissingManifest:
    """A manifest that could not be read in time, or not yet (then it has not failed), as people read it."""

    address: str
    identifier: str
    version: str | None
    reason: str
    detail: str
    tries: int
    failed_at: datetime | None


def await_manifests(connection: Connection, manifests: Sequence[AwaitedManifest]) -> None:
    """Notes manifests to be read. The latest event of each counts, and begins its tries anew.

    A source that is read again does not: what fails for ever ends as a failure, and is tried once when it is named
    again. What a catalogue says of a manifest and what an event says of it are kept side by side.
    """
    for each in sorted(manifests, key=lambda manifest: manifest.address):
        connection.execute(
            QUERIES["await"],
            {
                "address": each.address,
                "identifier": each.identifier,
                "version": each.version,
                "as_of": each.as_of,
                "outside": each.outside,
                "whole": each.whole,
                "moved_from": each.moved_from,
                "described": Json(dict(each.described)),
                "source": each.source,
                "reason": str(Reason.UNREACHABLE) if each.detail else None,
                "detail": _plain(each.detail),
            },
        )


def claim_due(connection: Connection, seconds: float, hours: float) -> DueManifest | None:
    """Takes the manifest that is due for longest; nobody else gets it for so many seconds. None: none is due.

    It is `expired` when its event is longer ago than so many hours: this is its last try.
    """
    with connection.cursor(row_factory=class_row(DueManifest)) as cursor:
        return cursor.execute(QUERIES["claim"], {"seconds": seconds, "hours": hours}).fetchone()


def hold(connection: Connection, due: DueManifest, seconds: float) -> None:
    """Nobody else gets it for so many seconds more: it is still being read."""
    connection.execute(QUERIES["hold"], {**_claim(due), "seconds": seconds})


def settle(connection: Connection, due: DueManifest) -> bool:
    """Ends the waiting, in the caller's transaction. False when there has been another event meanwhile."""
    return connection.execute(QUERIES["settle"], _claim(due)).rowcount == 1


def postpone(connection: Connection, due: DueManifest, seconds: float, reason: Reason, detail: str) -> None:
    """Has it tried again after so many seconds."""
    connection.execute(
        QUERIES["postpone"],
        {**_claim(due), "seconds": seconds, "reason": str(reason), "detail": _plain(detail)},
    )


def give_up(connection: Connection, due: DueManifest, reason: Reason, detail: str) -> None:
    """Makes it a failure with a name, which stays until somebody says `retry` or another event comes."""
    connection.execute(QUERIES["give_up"], {**_claim(due), "reason": str(reason), "detail": _plain(detail)})


def forget(connection: Connection, address: str, source: str, as_of: str | None) -> None:
    """Ends the waiting for what the same source has said later to be gone, or has read by then."""
    connection.execute(QUERIES["forget"], {"address": address, "source": source, "as_of": as_of})


def list_missing(
    connection: Connection, reasons: Sequence[Reason] | None = None, limit: int = 100
) -> list[MissingManifest]:
    """Manifests that could not be read in time, the latest first."""
    return _list(connection, "list_missing", reasons, limit)


def list_waiting(
    connection: Connection, reasons: Sequence[Reason] | None = None, limit: int = 100
) -> list[MissingManifest]:
    """Manifests that are still awaited, the longest first."""
    return _list(connection, "list_waiting", reasons, limit)


def _list(
    connection: Connection, query: str, reasons: Sequence[Reason] | None, limit: int
) -> list[MissingManifest]:
    codes = None if reasons is None else [str(reason) for reason in reasons]
    with connection.cursor(row_factory=class_row(MissingManifest)) as cursor:
        return cursor.execute(QUERIES[query], {"reasons": codes, "limit": limit}).fetchall()


def count_awaited(connection: Connection) -> dict[str, int]:
    """How many manifests are `awaited`, and how many have `failed`."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(QUERIES["count"]).fetchone() or {}


def retry(connection: Connection) -> int:
    """Has the failed ones read again, as if their events had come now. Returns how many."""
    return connection.execute(QUERIES["retry"]).rowcount


def works_of(connection: Connection, keys: Sequence[str]) -> dict[str, str]:
    """The works under which images are registered, by their keys."""
    rows = connection.execute(QUERIES["works"], {"keys": list(keys)}).fetchall()
    return {str(key): str(work) for key, work in rows}


def siblings(connection: Connection, works: Sequence[str], beginning: str) -> list[str]:
    """The keys of the images of these works that begin so."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES["siblings"], {"works": list(works), "beginning": beginning}).fetchall()


def _claim(due: DueManifest) -> dict[str, object]:
    return {"address": due.address, "promised_at": due.promised_at, "tries": due.tries}


def _plain(detail: str) -> str:
    """What Postgres takes of a server's words."""
    return detail.replace("\0", "")[:1000]
