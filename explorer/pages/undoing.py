"""Offers to take back what was just decided: its numbers travel in the address of the page that follows."""

from dataclasses import dataclass

from explorer.reading import rows
from explorer.records import Decision
from lookalike.database import Connection
from lookalike.queries import load_queries

QUERIES = load_queries("pages")

# As many as a page can decide about at once.
MOST = 200
_VERDICTS = {
    "same": "the same picture",
    "different": "not the same picture",
    "unwanted": "unwanted",
    "fine": "fine",
}


@dataclass(frozen=True, slots=True)
class Undo:
    """The button: which decisions it takes back, and where it leads then. None: they were taken back already."""

    decision: str | None
    sentence: str
    back: str


def write_numbers(decisions: list[Decision]) -> str:
    """Decisions as they stand in an address."""
    return ".".join(str(one.id) for one in decisions)


def read_numbers(words: str | None) -> list[int]:
    """The numbers of decisions in an address; what is none is left out."""
    parts = (words or "").split(".")[:MOST]
    return [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 19]


def offer_undo(connection: Connection, words: str | None, back: str) -> Undo | None:
    """What was decided, in a sentence, with the way back; None when nothing was."""
    numbers = read_numbers(words)
    if not numbers:
        return None
    found = [Decision(**row) for row in rows(connection, QUERIES["decisions"], {"ids": numbers})]
    if not found:
        return None
    holding = [one for one in found if one.undone_at is None]
    if not holding:
        return Undo(None, f"{_sentence(found)} {_taken_back(found[-1])}", back)
    return Undo(write_numbers(holding), _sentence(holding), back)


def last_decision(connection: Connection, key: str) -> Decision | None:
    """What somebody said last of an image in the explorer, and nobody took back."""
    found = rows(connection, QUERIES["last_decision"], {"key": key})
    return Decision(**found[0]) if found else None


def say_undone(connection: Connection, words: str | None) -> str | None:
    """That a decision in the address of a page was taken back already; None when it was not, or there is none."""
    undo = offer_undo(connection, words, "")
    return undo.sentence if undo is not None and undo.decision is None else None


def _taken_back(decision: Decision) -> str:
    assert decision.undone_at is not None
    when = f"{decision.undone_at:%-d %B %Y at %H:%M}"
    return f"{decision.undone_by} took this back already, on {when}; nothing more was changed."


def _sentence(decisions: list[Decision]) -> str:
    first = decisions[0]
    verdict = _VERDICTS.get(first.verdict, first.verdict)
    if len(decisions) > 1:
        return f"{len(decisions)} images: {verdict}."
    return f"{' and '.join(first.subject)}: {verdict}."
