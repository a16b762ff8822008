"""Near-duplicates: found in chunks, linked into groups, kept up to date as images arrive, change and are judged."""

from dataclasses import replace

import numpy as np
import pytest

from lookalike import analyses, archive, duplicates, kinds, ledger, search
from lookalike import groups as linking
from lookalike.analyses import Analysis
from lookalike.database import Connection
from lookalike.duplicates import Criteria
from lookalike.errors import UnknownEncoderError, UnknownImageError
from lookalike.groups import components
from lookalike.images import Image
from lookalike.ledger import Failure, RetryPolicy
from lookalike.reasons import Reason
from lookalike.turns import Turn
from tests.factories import TINY, make_vectors, unit_vector

SPEC = replace(TINY, dimension=64)
NEAR = Criteria(0.02, 0.9)


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """Pictures a, b and c with three near-copies each, and 40 that are like nothing else."""
    archive.add_encoder(connection, SPEC, chunk_size=64)
    embed(connection, [f"{name}/{copy}" for name in "abc" for copy in range(3)])
    embed(connection, [f"other-{number}/0" for number in range(40)])
    return connection


def embed(connection: Connection, keys: list[str], content: str | None = None) -> None:
    """Registers and embeds images; the part before the slash says what they show, the rest which copy it is."""
    ledger.register(connection, [Image(key, f"file:///{key}", content=content) for key in keys])
    for claim in ledger.lease(connection, "tiny", "backfill", 100, 60):
        chunk = ledger.start(connection, claim, "w", 60)
        assert chunk is not None
        made = make_vectors(chunk.images, connection)
        vectors = np.array([vector_of(image.key) for image in chunk.images])
        codes = archive.load_calibration(connection, "tiny").codes(vectors)
        ledger.finish(connection, chunk, replace(made, vectors=vectors, codes=codes), [], RetryPolicy(1, 1))


def vector_of(key: str) -> np.ndarray:
    shows, copy = key.split("/")
    vector = unit_vector(shows, 64) + (0.1 * unit_vector(key, 64) if copy != "0" else 0)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def work(connection: Connection, turned: analyses.TurnedVectors = lambda _: [], chunks: int = 1000) -> int:
    """Does what workers and the upkeep do, for so many chunks; returns how many there were."""
    done = 0
    while done < chunks:
        claims = ledger.lease(connection, "tiny", "analysis", 1000, 60, batch=1)
        if not claims:
            break
        chunk = ledger.start(connection, claims[0], "w", 60)
        assert chunk is not None
        assert chunk.analysis is not None
        analysis = analyses.find(connection, chunk.analysis)
        found = duplicates.find(connection, analysis, chunk.images, turned)

        def store(
            connection: Connection, chunk: ledger.Chunk, a: Analysis = analysis, f: object = found
        ) -> None:
            kinds.KINDS[a.kind].store(connection, a, chunk.images, f)

        ledger.finish_analysis(connection, chunk, store)
        done += 1
    kinds.settle(connection)
    return done


def groups(connection: Connection) -> set[frozenset[str]]:
    rows = connection.execute('select array_agg(image) from duplicates group by "group"').fetchall()
    return {frozenset(row[0]) for row in rows}


def group(name: str, *copies: int) -> frozenset[str]:
    return frozenset(f"{name}/{copy}" for copy in copies)


def test_near_copies_make_groups_and_others_none(archived: Connection) -> None:
    """Each picture's copies are one group with a representative; what has no copy is in none."""
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)

    assert groups(archived) == {group("a", 0, 1, 2), group("b", 0, 1, 2), group("c", 0, 1, 2)}
    assert duplicates.count(archived, "tiny") == (3, 9)
    standing = archived.execute("select image from duplicates where representative order by 1").fetchall()
    # The original is nearer to both copies than these are to one another.
    assert standing == [("a/0",), ("b/0",), ("c/0",)]
    first = duplicates.list_members(archived, "tiny")[0]
    assert (first.size, first.representative) == (3, True)
    assert first.distance == pytest.approx(search.similar(archived, "a/0", 1)[0].distance, abs=1e-6)


def test_images_that_arrive_later_join(archived: Connection) -> None:
    """A new copy joins its group, and a copy of a single image makes a new group, without a new search of all."""
    analysis = duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)
    embed(archived, ["a/3", "other-7/1"])

    assert not analyses.is_settled(archived, analysis.id)
    assert [(one.kind, one.left) for one in analyses.list_standing(archived, "tiny")] == [("duplicates", 2)]
    assert work(archived) == 1
    assert groups(archived) >= {group("a", 0, 1, 2, 3), group("other-7", 0, 1)}
    assert analyses.is_settled(archived, analysis.id)


def test_an_image_between_two_groups_makes_them_one(archived: Connection) -> None:
    """Groups that a new image links become one, and the numbers of books stay right."""
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)
    a, b = (search.find_image(archived, key).id for key in ("a/0", "b/0"))
    duplicates.mark(archived, "a/0", "b/0", same=True, by="ann")

    assert groups(archived) == {group("a", 0, 1, 2) | group("b", 0, 1, 2), group("c", 0, 1, 2)}
    assert archived.execute("select sum(size) from duplicate_groups").fetchone() == (9,)
    assert archived.execute("select a, b, same, marked_by from marked_pairs").fetchone() == (
        a,
        b,
        True,
        "ann",
    )


def test_what_people_call_different_is_parted(archived: Connection) -> None:
    """A pair marked as different is never paired again, and the group falls apart where nothing else links it."""
    embed(archived, ["pair/0", "pair/1"])
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)
    assert group("pair", 0, 1) in groups(archived)
    duplicates.mark(archived, "pair/1", "pair/0", same=False, by="ann")
    assert group("pair", 0, 1) not in groups(archived)

    duplicates.begin(archived, "tiny", replace(NEAR, threshold=0.022), turned=False)
    work(archived)
    assert group("pair", 0, 1) not in groups(archived)


def test_a_changed_image_leaves_its_group(archived: Connection) -> None:
    """When an image's content changes, its old pairs go and new ones are looked for."""
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)
    image = search.find_image(archived, "a/2")
    archived.execute("update images set key = 'b/9' where id = %s", [image.id])
    embed(archived, ["b/9"], content="changed")
    work(archived)

    assert groups(archived) == {group("a", 0, 1), group("b", 0, 1, 2, 9), group("c", 0, 1, 2)}


def test_a_giant_group_is_not_taken_apart(archived: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It only loses the image that has changed; if that stood for the group, another one does."""
    monkeypatch.setattr(linking, "COMPARED", 2)
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)
    archived.execute("update images set key = 'other-1/9' where key = 'a/0'")
    embed(archived, ["other-1/9"], content="changed")
    work(archived)

    assert groups(archived) >= {group("a", 1, 2), group("other-1", 0, 9), group("b", 0, 1, 2)}
    stands = archived.execute(
        "select image from duplicates where representative and image like 'a/%'"
    ).fetchall()
    assert len(stands) == 1
    assert archived.execute("select sum(size) from duplicate_groups").fetchone() == (10,)


def test_a_search_that_was_stopped_goes_on(archived: Connection) -> None:
    """The same search begun again does only the chunks that are left; another one takes its place."""
    archived.execute("delete from chunks")
    analysis = duplicates.begin(archived, "tiny", NEAR, turned=False)
    archived.execute("delete from chunks")
    ids = [row[0] for row in archived.execute("select id from images order by id")]
    for part in (ids[:20], ids[20:]):
        archived.execute(
            "insert into chunks (encoder, lane, ids, analysis) values ('tiny', 'analysis', %s, %s)",
            [part, analysis.id],
        )
    assert work(archived, chunks=1) == 1
    assert analyses.progress(archived, analysis.id) == analyses.Progress(len(ids), len(ids) - 20)

    assert duplicates.begin(archived, "tiny", NEAR, turned=False).id == analysis.id
    assert work(archived) == 1
    assert duplicates.begin(archived, "tiny", replace(NEAR, threshold=0.5), turned=False).id != analysis.id


def test_mirrored_and_turned_copies_are_found_by_an_option(archived: Connection) -> None:
    """An image whose turned view is near another's upright one is a pair, with the turn that leads from a to b."""
    ids = dict(archived.execute("select key, id from images").fetchall())
    calibration = archive.load_calibration(archived, "tiny")

    def turned(images: list[ledger.ChunkImage]) -> list[tuple[int, Turn, np.ndarray, np.ndarray]]:
        # other-1, rotated by 90 degrees, looks like other-2.
        vector = vector_of("other-2/0")
        here = [image.id for image in images if image.key == "other-1/0"]
        return [(i, Turn.ROTATED_90, vector, calibration.codes(vector[None])[0]) for i in here]

    duplicates.begin(archived, "tiny", NEAR, turned=True)
    work(archived, turned)
    found = archived.execute(
        "select image, copy, turn, distance from copies where turn <> 'upright'"
    ).fetchall()
    assert ids["other-1/0"] < ids["other-2/0"]
    assert [row[:3] for row in found] == [("other-1/0", "other-2/0", "rotated 90")]
    assert found[0][3] == pytest.approx(0, abs=1e-3)
    assert frozenset({"other-1/0", "other-2/0"}) in groups(archived)


def test_pages_of_one_work_can_be_left_out(archived: Connection) -> None:
    """With other_works only pairs of different works are found, even where a work holds all nearest images."""
    archived.execute("update images set work = 'book' where key like 'a/%'")
    archived.execute("update images set work = 'one' where key in ('b/0', 'b/1')")
    duplicates.begin(archived, "tiny", NEAR, turned=False, other_works=True)
    work(archived)
    assert group("a", 0, 1, 2) not in groups(archived)
    pairs = archived.execute("select image, copy from copies where image like 'b/%' order by 1, 2").fetchall()
    assert pairs == [("b/0", "b/2"), ("b/1", "b/2")]


def test_another_search_takes_the_place_of_the_first(archived: Connection) -> None:
    """Pairs that the new search does not ask for are gone; what people call the same stays together."""
    archived.execute("update images set work = 'book' where key like 'a/%'")
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)
    assert group("a", 0, 1, 2) in groups(archived)
    duplicates.begin(archived, "tiny", NEAR, turned=False, other_works=True)
    work(archived)
    assert groups(archived) == {group("b", 0, 1, 2), group("c", 0, 1, 2)}
    duplicates.mark(archived, "a/0", "other-1/0", same=True, by="ann")
    duplicates.begin(archived, "tiny", NEAR, turned=False, other_works=True, again=True)
    assert groups(archived) == {frozenset({"a/0", "other-1/0"})}


def test_images_that_could_not_be_turned_are_tried_again(archived: Connection) -> None:
    """A host that is away costs another try; what is gone for good is counted, and the next search starts over."""
    analysis = duplicates.begin(archived, "tiny", NEAR, turned=True)
    (claim,) = ledger.lease(archived, "tiny", "analysis", 10, 60)
    chunk = ledger.start(archived, claim, "w", 60)
    assert chunk is not None
    missed = [Failure(chunk.images[0], Reason.UNREACHABLE), Failure(chunk.images[1], Reason.NOT_FOUND)]
    ledger.finish_analysis(archived, chunk, lambda *_: None, missed, RetryPolicy(3, 1))

    rows = archived.execute(
        "select lane, attempts, ids, analysis from chunks where state = 'pending'"
    ).fetchall()
    assert rows == [("analysis", 1, [chunk.images[0].id], analysis.id)]
    assert analyses.count_missed(archived, analysis.id) == 1
    assert duplicates.begin(archived, "tiny", NEAR, turned=True).id == analysis.id
    assert duplicates.begin(archived, "tiny", NEAR, turned=True, again=True).id != analysis.id


def test_accepted_unwanted_images_are_no_duplicates(archived: Connection) -> None:
    """Images that are out of the search are not paired either."""
    archived.execute("insert into unwanted_sets (name, encoder, threshold) values ('charts', 'tiny', 0.1)")
    archived.execute(
        "insert into unwanted_images (set_id, image_id, distance, state)"
        " select s.id, i.id, 0, 'accepted' from unwanted_sets s, images i where i.key like 'a/%'"
    )
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)
    assert groups(archived) == {group("b", 0, 1, 2), group("c", 0, 1, 2)}


def test_the_threshold_is_learned_from_marked_pairs(archived: Connection) -> None:
    """The largest distance that keeps the precision is learned, and used from then on."""
    assert duplicates.criteria(archived, "tiny") == Criteria(0.175, 0.9)
    assert duplicates.learn(archived, "tiny", 0.9) == ([], None)
    for first, second, same in (
        ("a/0", "a/1", True),
        ("b/0", "b/2", True),
        ("c/1", "c/2", True),
        ("other-1/0", "other-2/0", False),
        ("a/0", "b/0", False),
    ):
        duplicates.mark(archived, first, second, same, "ann")
    curve, learned = duplicates.learn(archived, "tiny", 0.9)

    assert learned is not None
    assert (learned.precision, learned.recall) == (1, 1)
    assert learned in curve
    assert 0.01 < learned.threshold < 0.5
    assert duplicates.criteria(archived, "tiny").threshold == pytest.approx(learned.threshold)


def test_precision_and_recall_of_thresholds() -> None:
    """Each same pair gives a threshold halfway to the next pair; a likeness takes out pairs that do not match."""
    marked = [(0.1, 1, True), (0.2, 1, True), (0.3, 0.55, False), (0.3, 1, True), (0.5, 1, False)]
    curve = duplicates.thresholds(marked)
    assert [(c.threshold, c.precision, c.recall) for c in curve if c.likeness == 0.5] == [
        (pytest.approx(0.15), 1, pytest.approx(1 / 3)),
        (pytest.approx(0.25), 1, pytest.approx(2 / 3)),
        (pytest.approx(0.4), 0.75, 1),
    ]
    assert (curve[-1].likeness, curve[-1].precision, curve[-1].recall) == (0.96, 1, 1)


def test_unknown_names_are_refused(archived: Connection) -> None:
    """An encoder or an image that is not there is named in the error."""
    with pytest.raises(UnknownEncoderError, match="nobody"):
        duplicates.begin(archived, "nobody", NEAR, turned=False)
    with pytest.raises(UnknownImageError, match="nobody"):
        duplicates.mark(archived, "a/0", "nobody", True, "ann")


def test_components_of_a_graph() -> None:
    """What is linked through others is one component, sorted."""
    assert sorted(components([(1, 2), (3, 4), (4, 5), (2, 9)])) == [[1, 2, 9], [3, 4, 5]]


def test_every_turn_is_undone_by_its_inverse() -> None:
    """Turning and turning back gives the picture, and no two turns are the same."""
    picture = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    for turn in Turn:
        assert (turn.inverse.apply(turn.apply(picture)) == picture).all(), turn
    assert len({turn.apply(picture).tobytes() for turn in Turn}) == 8


def test_an_analyst_sees_groups_and_pairs(archived: Connection) -> None:
    """The views are for analysts, who change nothing."""
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    work(archived)
    archived.execute("set role analyst")
    assert archived.execute("select count(*) from copies").fetchone() == (9,)
    assert archived.execute("select count(*) from duplicates").fetchone() == (9,)
