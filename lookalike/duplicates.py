"""Near-duplicates: pairs of images within a distance, found through the index chunk by chunk, and the groups they link.

Two images are near-duplicates when their vectors are near and their miniatures match. Neither is enough: in vectors, a
grey copy is as far away as another picture of the same place, and in 12 x 12 greys many pictures look alike. With the
option `turned` the seven other ways to lay a picture are embedded and looked for as well.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from lookalike import analyses
from lookalike.analyses import Analysis, TurnedVectors
from lookalike.errors import ConfigurationError, UnknownEncoderError
from lookalike.groups import link, relink
from lookalike.ledger import ChunkImage, hold_deletions
from lookalike.miniatures import likeness
from lookalike.queries import load_queries
from lookalike.search import find_image
from lookalike.turns import Turn
from lookalike.vectors import MINIATURE

Connection = psycopg.Connection[tuple[Any, ...]]
QUERIES = load_queries("duplicates")

# Images that are compared in one job.
CHUNK = 256
# Candidates by code for each image: near-duplicates are first among them. Larger groups are linked through others.
CANDIDATES = 40
# Until pairs are marked: 1 - cosine, and likeness. See bench/README.md, duplicates, for what they find.
DEFAULT_THRESHOLD = 0.35
DEFAULT_LIKENESS = 0.9
# Without miniatures only what is this near is taken for the same picture.
ALONE = 0.1
# What is tried when they are learned.
LIKENESSES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96)


@dataclass(frozen=True, slots=True)
class Criteria:
    """Near-duplicates are no farther apart than `threshold` (0..1), and match at least as well as `likeness` (..1)."""

    threshold: float
    likeness: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of images, a < b by id, found with what the database held at `since`."""

    since: datetime
    a: list[int]
    b: list[int]
    distance: list[float]
    likeness: list[float | None]
    turn: list[str]


@dataclass(frozen=True, slots=True)
class Member:
    """An image of a group; `distance` is that to the nearest other image of it."""

    group: int
    size: int
    image: str
    representative: bool
    distance: float | None
    work: str | None
    title: str | None
    url: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """What criteria would have said of the marked pairs: precision and recall of "the same picture"."""

    threshold: float
    likeness: float
    precision: float
    recall: float


def begin(
    connection: Connection,
    encoder: str,
    criteria: Criteria,
    turned: bool,
    other_works: bool = False,
    again: bool = False,
) -> Analysis:
    """Begins to look for near-duplicates among all images, and goes on as images arrive.

    With `other_works` the pages of one work are not compared with each other: those of a book look alike by nature. A
    search with the same settings is gone on with, unless `again` is asked for; any other starts over, without the pairs
    and groups of the last one.
    """
    _table(connection, encoder)
    settings = {**asdict(criteria), "turned": turned, "other_works": other_works}
    standing = analyses.find_standing(connection, "duplicates", encoder, settings)
    if standing is not None and not again:
        return standing
    return analyses.begin(
        connection, "duplicates", encoder, settings, CHUNK, partial(_clear, encoder=encoder)
    )


def _clear(connection: Connection, _: int, encoder: str) -> None:
    """Forgets the pairs and groups of an encoder, but not what people say of pairs."""
    asked = {"encoder": encoder}
    for query in ("lock_groups", "clear_members", "clear_groups", "clear_pairs"):
        connection.execute(QUERIES[query], asked)
    same = connection.execute(QUERIES["marked_same"]).fetchall()
    link(connection, encoder, [(int(a), int(b)) for a, b in same])


def find(
    connection: Connection, analysis: Analysis, images: Sequence[ChunkImage], turned: TurnedVectors
) -> Pairs:
    """The near-duplicates of some images. `turned` embeds them in other positions, where that is asked for."""
    table = _table(connection, analysis.encoder)
    with connection.cursor(row_factory=scalar_row) as cursor:
        since: datetime | None = cursor.execute(QUERIES["now"]).fetchone()
    assert since is not None
    asked = {
        "ids": [image.id for image in images],
        "form": table.form,
        "threshold": analysis.settings["threshold"],
        "candidates": CANDIDATES,
        "other_works": analysis.settings["other_works"],
    }
    candidates: dict[tuple[int, int], tuple[float, Turn]] = {}
    with connection.transaction(), connection.cursor() as cursor:
        connection.execute(QUERIES["keep_the_index"])
        for a, b, distance in cursor.execute(table.format("find_pairs"), asked):
            candidates[a, b] = (distance, Turn.UPRIGHT)
    ways = tuple(Turn) if analysis.settings["turned"] else (Turn.UPRIGHT,)
    if analysis.settings["turned"]:
        for image, turn, vector, code in turned(images):
            for other, distance in _find_turned(connection, table, asked, image, vector, code):
                pair, way = ((image, other), turn) if image < other else ((other, image), turn.inverse)
                if distance < candidates.get(pair, (2.0, way))[0]:
                    candidates[pair] = (distance, way)
    return _compare(connection, candidates, ways, analysis.settings["likeness"], since)


def _compare(
    connection: Connection,
    candidates: dict[tuple[int, int], tuple[float, Turn]],
    ways: Sequence[Turn],
    least: float,
    since: datetime,
) -> Pairs:
    """The candidates whose miniatures match, in whichever of these turns they match best."""
    ids = sorted({image for pair in candidates for image in pair})
    miniatures: dict[int, bytes] = (
        dict(connection.execute(QUERIES["miniatures"], {"ids": ids}).fetchall()) if ids else {}
    )
    pairs = Pairs(since, [], [], [], [], [])
    for (a, b), (distance, way) in candidates.items():
        match: float | None = None
        if a in miniatures and b in miniatures:
            match, way = max((turned_likeness(miniatures[a], miniatures[b], turn), turn) for turn in ways)
        if (distance <= ALONE) if match is None else match >= least:
            for column, value in zip(
                (pairs.a, pairs.b, pairs.distance, pairs.likeness, pairs.turn),
                (a, b, distance, match, str(way)),
                strict=True,
            ):
                column.append(value)  # type: ignore[attr-defined]
    return pairs


def turned_likeness(first: bytes, second: bytes, turn: Turn) -> float:
    """How well a picture that is turned matches another, by their miniatures; see miniatures.likeness."""
    side = np.frombuffer(first, np.uint8).reshape(MINIATURE, MINIATURE, 1)
    return likeness(second, turn.apply(side))


def _find_turned(
    connection: Connection,
    table: "_Table",
    asked: dict[str, Any],
    image: int,
    vector: NDArray[np.floating],
    code: NDArray[np.uint8],
) -> list[tuple[int, float]]:
    bits = "".join(map(str, np.unpackbits(code)[: table.dimension]))
    with connection.transaction(), connection.cursor() as cursor:
        connection.execute(QUERIES["keep_the_index"])
        query = {**asked, "image": image, "vector": HalfVector(vector), "code": bits}
        return [(int(row[0]), float(row[1])) for row in cursor.execute(table.format("find_turned"), query)]


def store(connection: Connection, analysis: Analysis, images: Sequence[ChunkImage], pairs: Pairs) -> None:
    """Writes the pairs of a chunk and links them into groups, in the caller's transaction."""
    encoder = analysis.encoder
    table = _table(connection, encoder)
    connection.execute(QUERIES["lock_groups"], {"encoder": encoder})
    ids = [image.id for image in images]
    asked = {"encoder": encoder, "ids": ids}
    stale = connection.execute(table.format("delete_stale_pairs"), asked).fetchall()
    merged = {
        "encoder": encoder,
        "since": pairs.since,
        "a": pairs.a,
        "b": pairs.b,
        "distance": pairs.distance,
        "likeness": pairs.likeness,
        "turn": pairs.turn,
    }
    fresh = connection.execute(table.format("merge_pairs"), merged).fetchall()
    if stale:
        relink(connection, encoder, {int(image) for pair in stale for image in pair}, ids)
    link(connection, encoder, [(int(a), int(b)) for a, b in fresh])


def settle(connection: Connection, analysis: Analysis) -> bool:  # noqa: ARG001 - as every kind has it
    """Nothing is left to do: the groups grow with every chunk."""
    return True


# Marked pairs and thresholds ------------------------------------------------------------------------------------------


def mark(connection: Connection, first: str, second: str, same: bool, by: str) -> None:
    """Keeps what somebody says of two images, by their keys; groups follow at once.

    Raises UnknownImageError, and ConfigurationError for one image twice.
    """
    a, b = sorted((find_image(connection, first).id, find_image(connection, second).id))
    if a == b:
        raise ConfigurationError(f"{first} is one image: name two")
    with connection.transaction():
        encoders = _lock_all(connection)
        connection.execute(QUERIES["mark"], {"a": a, "b": b, "same": same, "by": by})
        if not same:
            connection.execute(QUERIES["delete_pair"], {"a": a, "b": b})
        for encoder in encoders:
            if same:
                link(connection, encoder, [(a, b)])
            else:
                relink(connection, encoder, {a, b})


def unmark(connection: Connection, a: int, b: int, pairs: Sequence[dict[str, Any]]) -> None:
    """Takes back what somebody said of two images, a < b by id; `pairs` are rows that the word had deleted."""
    with connection.transaction():
        encoders = _lock_all(connection)
        connection.execute(QUERIES["unmark"], {"a": a, "b": b})
        connection.execute(QUERIES["restore_pairs"], {"pairs": Jsonb(pairs)})
        for encoder in encoders:
            relink(connection, encoder, {a, b})
            if any(pair["encoder"] == encoder for pair in pairs):
                link(connection, encoder, [(a, b)])


def _lock_all(connection: Connection) -> list[str]:
    """Keeps deletions and others who change groups out, until the transaction ends. Returns the encoders."""
    hold_deletions(connection)
    with connection.cursor(row_factory=scalar_row) as cursor:
        encoders: list[str] = cursor.execute(
            "select name from encoders where leaving_at is null order by name"
        ).fetchall()
    for encoder in encoders:
        connection.execute(QUERIES["lock_groups"], {"encoder": encoder})
    return encoders


def learn(connection: Connection, encoder: str, precision: float) -> tuple[list[Threshold], Threshold | None]:
    """Learns from the marked pairs: of the criteria that keep the precision, those that find most, then the strictest.

    Returns what was tried, and what was kept: None when no pair is marked, or nothing keeps the precision.
    """
    table = _table(connection, encoder)
    with connection.cursor() as cursor:
        rows = cursor.execute(table.format("marked_distances"), {"form": table.form}).fetchall()
    curve = thresholds([(distance, _match(first, second), same) for distance, first, second, same in rows])
    good = [one for one in curve if one.precision >= precision]
    chosen = max(good, key=lambda one: (one.recall, one.likeness, -one.threshold)) if good else None
    if chosen is not None:
        made = {"encoder": encoder, "pairs": len(rows), **asdict(chosen)}
        connection.execute(QUERIES["set_threshold"], made)
    return curve, chosen


def _match(first: bytes | None, second: bytes | None) -> float:
    """The likeness of two miniatures; those that are not known match."""
    return 1.0 if first is None or second is None else turned_likeness(first, second, Turn.UPRIGHT)


def thresholds(marked: Sequence[tuple[float, float, bool]]) -> list[Threshold]:
    """Precision and recall of criteria, from marked pairs as (distance, likeness, same).

    Each likeness of a list is tried with the distance of each pair that is the same picture. A threshold lies halfway
    to the next pair, so that it holds for others like them.
    """
    total = sum(same for _, _, same in marked)
    curve = []
    for least in LIKENESSES:
        passing = sorted((distance, same) for distance, match, same in marked if match >= least)
        found = 0
        for number, (distance, same) in enumerate(passing, 1):
            found += same
            following = passing[number][0] if number < len(passing) else distance
            # Of equal distances the last one counts.
            if same and (following > distance or number == len(passing)):
                curve.append(Threshold((distance + following) / 2, least, found / number, found / total))
    return curve


def criteria(connection: Connection, encoder: str) -> Criteria:
    """What was learned for an encoder, or else the default. Raises UnknownEncoderError."""
    form = _table(connection, encoder).form
    with connection.cursor(row_factory=class_row(Criteria)) as cursor:
        learned = cursor.execute(QUERIES["threshold"], {"encoder": encoder}).fetchone()
    # Distances of the other form are half of 1 - cosine.
    default = Criteria(DEFAULT_THRESHOLD / (1 if form == "clamped" else 2), DEFAULT_LIKENESS)
    return learned or default


def list_members(connection: Connection, encoder: str, least: int = 2, limit: int = 20) -> list[Member]:
    """The images of the largest groups, of at least `least` images each."""
    with connection.cursor(row_factory=class_row(Member)) as cursor:
        asked = {"encoder": encoder, "least": least, "limit": limit}
        return cursor.execute(QUERIES["list"], asked).fetchall()


def count(connection: Connection, encoder: str) -> tuple[int, int]:
    """How many groups there are, and images in them."""
    row = connection.execute(QUERIES["summary"], {"encoder": encoder}).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


@dataclass(frozen=True, slots=True)
class _Table:
    """Where an encoder's vectors are, and how their distances are measured."""

    vectors: str
    dimension: int
    form: str

    def format(self, query: str) -> sql.Composed:
        names = {"vectors": sql.Identifier(self.vectors), "bits": sql.Literal(self.dimension)}
        return sql.SQL(QUERIES[query]).format(**names)


def _table(connection: Connection, encoder: str) -> _Table:
    with connection.cursor(row_factory=class_row(_Table)) as cursor:
        found = cursor.execute(QUERIES["table"], {"encoder": encoder}).fetchone()
    if found is None:
        raise UnknownEncoderError(f"the archive has no vectors of {encoder!r}")
    return found
