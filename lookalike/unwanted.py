"""Unwanted images, such as colour charts, blank pages and covers: learned from examples, decided upon by people.

A set has examples and a threshold. Images within the threshold of any example are candidates until somebody says that
they are unwanted (accepted) or fine. No machine decides: only accepted images leave the searches.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import psycopg
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from lookalike import held_out
from lookalike.errors import ConfigurationError, SourceError
from lookalike.held_out import HeldOut, Threshold
from lookalike.queries import load_queries
from lookalike.search import Neighbour, active_encoder
from lookalike.unwanted_rows import (
    NAMED,
    KnownSet,
    VectorTable,
    accepted_among,
    draw_sample,
    examples_of,
    find_keys,
    find_set,
    find_table,
    get_set,
    keys_of,
    load_vectors,
    measured,
    name_some,
)

Connection = psycopg.Connection[tuple[Any, ...]]
State = Literal["candidate", "accepted", "fine"]
OnProgress = Callable[[int, int], None]
QUERIES = load_queries("unwanted")

PRECISION = 0.95
SAMPLE = 10_000
# How many neighbours of an example are asked for, until some lie beyond the threshold. More would take minutes.
STEPS = (100, 1000, 10_000, 100_000)
# Neighbours in a row of a contact sheet.
COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Found:
    """What a search for candidates left behind. Of so many `unfinished` examples more images may lie within the
    threshold than a search returns: once these are accepted, a refresh finds those behind them."""

    candidates: int
    unfinished: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a set was learned from, by numbers of images, and what its threshold does.

    `curve` holds some of the thresholds there were, with the chosen one. `doubtful` are images of the sample within
    it, nearest first: they are unwanted, or the reason for a lower precision.
    """

    chosen: Threshold
    curve: list[Threshold]
    examples: int
    fine: int
    sample: int
    archive: int
    doubtful: list[str]


@dataclass(frozen=True, slots=True)
class Learned:
    """A set as it was learned, and its candidates."""

    name: str
    encoder: str
    report: Report
    found: Found


@dataclass(frozen=True, slots=True)
class Unwanted:
    """An image of a set: what people say of it, and how far it is from the nearest example."""

    set: str
    image: str
    state: State
    distance: float
    nearest_example: str | None
    example: bool
    threshold: float
    encoder: str
    decided_by: str | None
    decided_at: datetime | None
    work: str | None
    title: str | None
    url: str


@dataclass(frozen=True, slots=True)
class SetCounts:
    """A set, and how many images it has in each state; examples are among the accepted ones."""

    name: str
    encoder: str
    threshold: float
    examples: int
    candidates: int
    accepted: int
    fine: int
    report: dict[str, Any]
    learned_at: datetime


# Learning -------------------------------------------------------------------------------------------------------------


def read_keys(path: Path) -> list[str]:
    """The keys in a file, one in a line, each once; blank lines and those that begin with # do not count. Raises
    SourceError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: {error}") from None
    stripped = (line.strip() for line in lines)
    return list(dict.fromkeys(line for line in stripped if line and not line.startswith("#")))


def learn(
    connection: Connection,
    name: str,
    examples: Sequence[str] = (),
    fine: Sequence[str] = (),
    *,
    by: str,
    precision: float = PRECISION,
    threshold: float | None = None,
    encoder: str | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    on_progress: OnProgress = lambda *_: None,
) -> Learned:
    """Learns a set from examples, by their keys, and finds its candidates; all in one transaction.

    A set that is there already keeps its examples and decisions, and learns from these as well. The threshold is the
    given one, or the largest that reaches `precision` on what is held out: see held_out.Threshold. `fine` are images
    that are not unwanted. `on_progress` hears how many examples of all have been searched for. Raises
    UnknownImageError, UnknownEncoderError, and ConfigurationError where nothing can be learned.
    """
    if not name.strip():
        raise ConfigurationError("a set needs a name")
    with connection.transaction():
        connection.execute(QUERIES["lock_set"], {"name": name})
        known = find_set(connection, name)
        encoder = encoder or (known.encoder if known else active_encoder(connection))
        given = _gather(connection, find_table(connection, encoder), known, examples, fine)
        report = _learn_threshold(connection, given, precision, threshold, sample, seed)
        stored = {"name": name, "encoder": encoder, "threshold": report.chosen.threshold}
        connection.execute(QUERIES["merge_set"], {**stored, "report": Jsonb(asdict(report))})
        one = get_set(connection, name)
        said = {"set": one.id, "ids": sorted(given.named), "by": by}
        connection.execute(QUERIES["drop_examples"], {**said, "ids": sorted(given.named_fine)})
        connection.execute(QUERIES["merge_examples"], said)
        _decide(connection, one, sorted(given.named_fine), "fine", by)
        _measure_decided(connection, one)
        return Learned(name, encoder, report, _search(connection, one, on_progress))


@dataclass(frozen=True, slots=True)
class _Given:
    """What people say, by ids: what they named now, all examples, all fine images, and all that is decided."""

    table: VectorTable
    named: set[int]
    named_fine: set[int]
    examples: set[int]
    fine: set[int]
    decided: set[int]


def _gather(
    connection: Connection,
    table: VectorTable,
    known: KnownSet | None,
    examples: Sequence[str],
    fine: Sequence[str],
) -> _Given:
    """What is said now, and what was said before of a set that is known; the latest word counts."""
    named, named_fine = find_keys(connection, table, examples), find_keys(connection, table, fine)
    if both := sorted(set(examples) & set(fine)):
        raise ConfigurationError(f"named both as unwanted and as fine: {name_some(both)}")
    before: set[int] = set()
    decided: dict[int, State] = {}
    if known is not None:
        connection.execute(table.format("reconsider"), {"set": known.id})
        before = set(examples_of(connection, known))
        decided = dict(connection.execute(QUERIES["decided"], {"set": known.id}).fetchall())
    return _Given(
        table,
        named,
        named_fine,
        (before | named) - named_fine,
        ({image for image, state in decided.items() if state == "fine"} | named_fine) - named,
        set(decided),
    )


def _learn_threshold(
    connection: Connection, given: _Given, precision: float, threshold: float | None, sample: int, seed: int
) -> Report:
    """Holds examples out and chooses the threshold, or measures the given one. Raises ConfigurationError."""
    ids, vectors = load_vectors(connection, given.table, given.examples)
    if len(ids) < 2:
        raise ConfigurationError(
            "one example cannot be held out: name more" if len(ids) else "no examples: name unwanted images"
        )
    form = given.table.form
    drawn, archive = draw_sample(connection, given.table, sample, seed)
    known = accepted_among(connection, drawn) | given.examples | given.fine | given.decided
    drawn, others = load_vectors(connection, given.table, set(drawn.tolist()) - known)
    fine = load_vectors(connection, given.table, given.fine)[1]
    distances = held_out.nearest(others, vectors, form)[1]
    held = HeldOut(
        held_out.hold_out(vectors, form, seed),
        held_out.nearest(fine, vectors, form)[1],
        distances,
        archive,
    )
    curve = held_out.curve(held)
    chosen = (
        held_out.choose(curve, precision)
        if threshold is None
        else held_out.measure(held, float(np.float32(threshold)))
    )
    nearest = drawn[np.argsort(distances, kind="stable")]
    if chosen is None:
        raise _unreached(curve, precision, keys_of(connection, nearest[:NAMED]))
    doubtful = keys_of(connection, nearest[: min(NAMED, chosen.sample)])
    counts = (len(ids), len(fine), len(drawn), archive)
    return Report(chosen, held_out.thin(curve, chosen), *counts, doubtful)


def _unreached(curve: Sequence[Threshold], precision: float, nearest: Sequence[str]) -> ConfigurationError:
    best = max(curve, key=lambda one: (one.precision, one.threshold))
    return ConfigurationError(
        f"no threshold reaches a precision of {precision:g}: the best is {best.precision:.2f} at {best.threshold:.4f},"
        f" with a recall of {best.recall:.2f}. The images nearest to the examples are {', '.join(nearest)}: name those"
        " that are unwanted as examples and the others as fine, or give a threshold"
    )


# Candidates -----------------------------------------------------------------------------------------------------------


def refresh(connection: Connection, name: str, on_progress: OnProgress = lambda *_: None) -> Found:
    """Searches again for the candidates of a set, as images arrive; quick, because it goes out from the examples.

    Decisions stay, unless the image has been replaced since. Raises UnknownSetError.
    """
    with connection.transaction():
        connection.execute(QUERIES["lock_set"], {"name": name})
        one = get_set(connection, name)
        connection.execute(one.table.format("reconsider"), {"set": one.id})
        return _search(connection, one, on_progress)


def outdated(connection: Connection) -> list[tuple[str, str]]:
    """The sets, each with its encoder, that have not been searched since vectors were stored."""
    return [(str(name), str(encoder)) for name, encoder in connection.execute(QUERIES["outdated"])]


def _measure_decided(connection: Connection, one: KnownSet) -> None:
    """Measures what is decided anew, after the examples have changed."""
    decided = [int(row[0]) for row in connection.execute(QUERIES["decided"], {"set": one.id})]
    for ids, nearest, distances in measured(connection, one, decided):
        rows = {"ids": ids, "nearest": nearest, "distances": distances}
        connection.execute(QUERIES["measure"], {"set": one.id, **rows})


def _search(connection: Connection, one: KnownSet, on_progress: OnProgress = lambda *_: None) -> Found:
    """Finds all images within the threshold of any example, and makes candidates of those nobody has decided about."""
    connection.execute(QUERIES["make_found"])
    connection.execute(QUERIES["clear_found"])
    # One that has been replaced waits for its vector.
    examples = load_vectors(connection, one.table, examples_of(connection, one))[0].tolist()
    unfinished = 0
    for done, example in enumerate(examples, 1):
        unfinished += not _search_from(connection, one, example)
        on_progress(done, len(examples))
    asked = {"set": one.id, "unfinished": unfinished}
    for query in ("drop_candidates", "merge_candidates", "set_unfinished", "searched"):
        connection.execute(QUERIES[query], asked)
    with connection.cursor(row_factory=scalar_row) as cursor:
        return Found(int(cursor.execute(QUERIES["count_candidates"], asked).fetchone() or 0), unfinished)


def _search_from(connection: Connection, one: KnownSet, example: int) -> bool:
    """Keeps what lies within the threshold of an example; False when there may be more than a search returns."""
    asked = {"example": example, "encoder": one.encoder, "threshold": one.threshold}
    for k in STEPS:
        row = connection.execute(QUERIES["search"], {**asked, "k": k}).fetchone()
        if row is None or row[0] < k:
            return True
    return False


# Decisions ------------------------------------------------------------------------------------------------------------


def decide(connection: Connection, name: str, state: State, keys: Sequence[str], by: str) -> int:
    """Keeps what somebody says of images, candidates or not; "candidate" takes a decision back. Returns of how many.

    An example that is not unwanted is none any more, and the set is searched for anew. Raises UnknownImageError,
    UnknownSetError, and ConfigurationError when no example would be left.
    """
    with connection.transaction():
        connection.execute(QUERIES["lock_set"], {"name": name})
        one = get_set(connection, name)
        ids = sorted(find_keys(connection, one.table, keys))
        dropped = 0
        if state != "accepted":
            dropped = connection.execute(QUERIES["drop_examples"], {"set": one.id, "ids": ids}).rowcount
        examples = examples_of(connection, one)
        if not len(load_vectors(connection, one.table, examples)[0]):
            raise ConfigurationError(
                f"{name} would have no example with a vector: learn from others first, or drop it"
            )
        _decide(connection, one, ids, state, by)
        if dropped:
            _measure_decided(connection, one)
            _search(connection, one)
    return len(ids)


def _decide(connection: Connection, one: KnownSet, ids: Sequence[int], state: State, by: str) -> None:
    said = {"set": one.id, "state": state, "by": None if state == "candidate" else by}
    for some, nearest, distances in measured(connection, one, ids):
        connection.execute(
            QUERIES["decide"], {**said, "ids": some, "nearest": nearest, "distances": distances}
        )


def accept_within(connection: Connection, name: str, distance: float, by: str) -> int:
    """Accepts all candidates up to a distance; 1 is all of them. Returns how many. Raises UnknownSetError."""
    asked = {"set": get_set(connection, name).id, "within": distance, "by": by}
    return connection.execute(QUERIES["accept_within"], asked).rowcount


def drop(connection: Connection, name: str) -> None:
    """Forgets a set and all that people said of its images, which come back into searches. Raises UnknownSetError."""
    connection.execute(QUERIES["drop_set"], {"set": get_set(connection, name).id})


def as_state(word: str) -> State | None:
    """A state by its word; None is any. Raises ConfigurationError."""
    if word == "any":
        return None
    for state in get_args(State):
        if word == state:
            return cast(State, state)
    raise ConfigurationError(f"no state {word!r}; there are: {', '.join(get_args(State))}, any")


def list_images(
    connection: Connection, name: str | None = None, state: State | None = "candidate", limit: int = 50
) -> list[Unwanted]:
    """Images of a set, or of all sets, in this state or in any, nearest to an example first. Raises UnknownSetError."""
    if name is not None:
        get_set(connection, name)
    with connection.cursor(row_factory=class_row(Unwanted)) as cursor:
        return cursor.execute(QUERIES["list"], {"name": name, "state": state, "limit": limit}).fetchall()


def list_sets(connection: Connection) -> list[SetCounts]:
    """All sets by name, with their counts."""
    with connection.cursor(row_factory=class_row(SetCounts)) as cursor:
        return cursor.execute(QUERIES["sets"]).fetchall()


def sheet_rows(images: Sequence[Unwanted]) -> list[tuple[str, list[Neighbour]]]:
    """The images as rows of a contact sheet: examples, and what is nearest to each, at most COLUMNS in a row."""
    by_example: dict[str, list[Neighbour]] = {}
    for image in images:
        row = by_example.setdefault(image.nearest_example or image.image, [])
        found = (image.image, image.distance, image.work, image.title, None, image.url)
        row.append(Neighbour(len(row) + 1, *found))
    return [
        (example, row[first : first + COLUMNS])
        for example, row in by_example.items()
        for first in range(0, len(row), COLUMNS)
    ]
