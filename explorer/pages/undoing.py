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
    """The button: which decisions it takes back, and where it leads then."""

    decision: str
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
    """What was decided, in a sentence, with the way back; None when there is nothing to take back."""
    numbers = read_numbers(words)
    if not numbers:
        return None
    found = [Decision(**row) for row in rows(connection, QUERIES["decisions"], {"ids": numbers})]
    if not found:
        return None
    return Undo(write_numbers(found), _sentence(found), back)


def last_decision(connection: Connection, key: str) -> Decision | None:
    """What somebody said last of an image in the explorer, and nobody took back."""
    found = rows(connection, QUERIES["last_decision"], {"key": key})
    return Decision(**found[0]) if found else None


def _sentence(decisions: list[Decision]) -> str:
    first = decisions[0]
    verdict = _VERDICTS.get(first.verdict, first.verdict)
    if len(decisions) > 1:
        return f"{len(decisions)} images: {verdict}."
    return f"{' and '.join(first.subject)}: {verdict}."
