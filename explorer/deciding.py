"""What people decide in the explorer: it changes searches and lists at once, is kept with who and when, and can be
taken back until something else is decided about the same.
"""

from collections.abc import Sequence
from typing import Any, Literal

from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from explorer.reading import QUERIES, rows
from explorer.records import Decision
from lookalike import books, clusters, duplicates, unwanted
from lookalike.database import Connection
from lookalike.errors import OutdatedDecisionError, UnknownDecisionError
from lookalike.ledger import hold_deletions
from lookalike.reasons import Reason
from lookalike.search import active_encoder, find_image

Verdict = Literal["unwanted", "fine"]
STATES: dict[Verdict, unwanted.State] = {"unwanted": "accepted", "fine": "fine"}
# The set of what somebody called unwanted where they met it.
BY_HAND = "by hand"


def mark_pair(connection: Connection, first: str, second: str, same: bool, by: str) -> Decision:
    """Somebody says whether two images, by their keys, are the same picture. Groups of near-duplicates follow.

    Raises UnknownImageError; ConfigurationError for one image twice.
    """
    a, b = sorted((find_image(connection, first).id, find_image(connection, second).id))
    with connection.transaction():
        _lock(connection, "pair", f"{a} {b}")
        before = _one(connection, "pair_before", {"a": a, "b": b})
        duplicates.mark(connection, first, second, same, by)
        return _record(
            connection, "pair", sorted((first, second)), "same" if same else "different", by, before
        )


def decide_unwanted(
    connection: Connection, key: str, verdict: Verdict, by: str, name: str | None = None
) -> Decision:
    """Somebody says that an image is unwanted, or fine: as a member of a set, or, without one, on sight.

    On sight, unwanted images join the set "by hand"; what is fine on sight is so in all sets. Raises
    UnknownImageError, UnknownSetError; ConfigurationError when a set would lose its last example.
    """
    image = find_image(connection, key)
    with connection.transaction():
        _lock(connection, "unwanted", str(image.id))
        hold_deletions(connection)
        before = _one(connection, "unwanted_before", {"image": image.id})
        if name is not None and name != BY_HAND:
            unwanted.decide(connection, name, STATES[verdict], [key], by)
        else:
            if verdict == "fine":
                for one in rows(connection, QUERIES["sets_against"], {"image": image.id, "name": BY_HAND}):
                    unwanted.decide(connection, one["name"], "fine", [key], by)
            _decide_by_hand(connection, image.id, STATES[verdict], by)
        return _record(connection, "unwanted", [key], verdict, by, {"rows": before})


def _decide_by_hand(connection: Connection, image: int, state: unwanted.State, by: str) -> None:
    connection.execute(QUERIES["hand_set"], {"name": BY_HAND, "encoder": active_encoder(connection)})
    said = {"image": image, "name": BY_HAND, "state": state, "by": by}
    connection.execute(QUERIES["decide_by_hand"], said)


def name_cluster(connection: Connection, number: int, words: str | None, by: str) -> Decision:
    """Somebody gives a cluster a name, or takes it away. Raises UnknownClusterError."""
    with connection.transaction():
        _lock(connection, "name", str(number))
        before = _one(connection, "name_before", {"cluster": number})
        clusters.name(connection, number, words)
        return _record(connection, "name", [str(number)], words or "", by, {"name": before})


def retry(
    connection: Connection,
    encoder: str,
    chunk_size: int,
    by: str,
    reasons: Sequence[Reason] | None = None,
    keys: Sequence[str] | None = None,
) -> tuple[Decision, int]:
    """Makes failed images pending again, those of these reasons and keys (None: all). Returns also how many.

    Raises UnknownEncoderError.
    """
    with connection.transaction():
        count = books.retry(connection, encoder, chunk_size, reasons, keys)
        asked = [*(str(reason) for reason in reasons or ()), *(keys or ())]
        verdict = f"{count} images: {', '.join(asked[:10]) or 'all'}"
        return _record(connection, "retry", [encoder], verdict, by, {}), count


def undo(connection: Connection, number: int, by: str) -> tuple[Decision, bool]:
    """Takes a decision back: what held before holds again. Returns also whether it was this call that did so.

    One that was taken back already stays as it is, with who did that and when: a second press changes nothing. Raises
    UnknownDecisionError; OutdatedDecisionError when something else was decided about the same since, or images are
    under way again.
    """
    with connection.transaction():
        found = rows(connection, QUERIES["subject"], {"id": number})
        if not found:
            raise UnknownDecisionError(f"no decision has the number {number}")
        # First of all: who decides about the same at this moment is waited for, and then seen.
        _LOCK[found[0]["kind"]](connection, found[0]["subject"])
        (decision,) = rows(connection, QUERIES["take_decision"], {"id": number})
        before, is_outdated = decision.pop("before"), decision.pop("outdated")
        if decision["undone_at"] is not None:
            return Decision(**decision), False
        if is_outdated:
            raise OutdatedDecisionError("something else was decided about this since: take that back first")
        if decision["kind"] == "retry":
            raise OutdatedDecisionError("images that are tried again cannot be called back")
        _RESTORE[decision["kind"]](connection, decision["subject"], before)
        return Decision(**rows(connection, QUERIES["undo_decision"], {"id": number, "by": by})[0]), True


def _restore_pair(connection: Connection, subject: list[str], before: dict[str, Any]) -> None:
    a, b = sorted(find_image(connection, key).id for key in subject)
    mark = before["mark"]
    duplicates.unmark(connection, a, b, before["pairs"])
    if mark is not None:
        duplicates.mark(connection, subject[0], subject[1], mark["same"], mark["marked_by"])
        connection.execute(QUERIES["restore_mark"], {"a": a, "b": b, "at": mark["marked_at"]})


def _restore_unwanted(connection: Connection, subject: list[str], before: dict[str, Any]) -> None:
    image = find_image(connection, subject[0])
    hold_deletions(connection)
    connection.execute(QUERIES["forget_unwanted"], {"image": image.id})
    connection.execute(QUERIES["restore_unwanted"], {"rows": Jsonb(before["rows"])})


def _restore_name(connection: Connection, subject: list[str], before: dict[str, Any]) -> None:
    clusters.name(connection, int(subject[0]), before["name"])


def _lock_pair(connection: Connection, subject: list[str]) -> None:
    a, b = sorted(find_image(connection, key).id for key in subject)
    _lock(connection, "pair", f"{a} {b}")


def _lock_unwanted(connection: Connection, subject: list[str]) -> None:
    _lock(connection, "unwanted", str(find_image(connection, subject[0]).id))


def _lock_name(connection: Connection, subject: list[str]) -> None:
    _lock(connection, "name", subject[0])


def _lock_nothing(_: Connection, __: list[str]) -> None:
    """What is tried again cannot be taken back."""


_LOCK = {"pair": _lock_pair, "unwanted": _lock_unwanted, "name": _lock_name, "retry": _lock_nothing}
_RESTORE = {"pair": _restore_pair, "unwanted": _restore_unwanted, "name": _restore_name}


def hold_images(connection: Connection, keys: Sequence[str]) -> None:
    """Has the caller's transaction wait, before it decides about many images, for all who decide about any of them.

    In one order, whatever that of the keys is: two of these would wait for each other. Raises UnknownImageError.
    """
    _hold(connection, [("unwanted", [key]) for key in keys])


def hold_decisions(connection: Connection, numbers: Sequence[int]) -> None:
    """As `hold_images`, before many decisions are taken back. Raises UnknownImageError."""
    found = [row for number in numbers for row in rows(connection, QUERIES["subject"], {"id": number})]
    _hold(connection, [(row["kind"], row["subject"]) for row in found])


def _hold(connection: Connection, subjects: list[tuple[str, list[str]]]) -> None:
    for kind, subject in sorted(subjects):
        _LOCK[kind](connection, subject)


def _lock(connection: Connection, kind: str, subject: str) -> None:
    connection.execute(QUERIES["lock_subject"], {"subject": f"{kind} {subject}"})


def _one(connection: Connection, query: str, asked: dict[str, Any]) -> Any:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(QUERIES[query], asked).fetchone()


def _record(
    connection: Connection, kind: str, subject: list[str], verdict: str, by: str, before: Any
) -> Decision:
    said = {"kind": kind, "subject": subject, "verdict": verdict, "by": by, "before": Jsonb(before)}
    return Decision(**rows(connection, QUERIES["add_decision"], said)[0])
