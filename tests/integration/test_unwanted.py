"""Unwanted images: candidates by examples through the index, decisions that stay, and searches without them."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from cli.main import app
from lookalike import archive, index, ledger, unwanted
from lookalike.database import Connection, connect
from lookalike.errors import ConfigurationError, UnknownImageError, UnknownSetError
from lookalike.images import Image
from lookalike.ledger import RetryPolicy
from tests.factories import TINY, make_vectors, unit_vector
from tests.integration.test_index import scans

SPEC = replace(TINY, dimension=256)
PHOTOGRAPHS, CHARTS = 600, 40
EXAMPLES = [f"chart/{number:05}" for number in range(6)]
OTHERS = {f"chart/{number:05}" for number in range(6, CHARTS)}


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """600 photographs, every 10th with licence `tenth`, and 40 colour charts that look alike."""
    archive.add_encoder(connection, SPEC, chunk_size=1000)
    store(connection, "photo", range(PHOTOGRAPHS))
    store(connection, "chart", range(CHARTS))
    return connection


def store(connection: Connection, kind: str, numbers: range, content: str | None = None) -> None:
    """Registers and embeds images. Charts lie about one direction, photographs anywhere."""
    images = [
        Image(
            f"{kind}/{number:05}", f"file:///{kind}/{number}", content=content,
            licence="tenth" if number % 10 == 0 else "common",
        )
        for number in numbers
    ]  # fmt: skip
    ledger.register(connection, images, chunk_size=1000)
    for claim in ledger.lease(connection, "tiny", "backfill", 100, 60):
        chunk = ledger.start(connection, claim, "w", 60)
        assert chunk is not None
        made = make_vectors(chunk.images, connection)
        vectors = made.vectors
        if content != "photograph":
            alike = np.array([image.key.startswith("chart") for image in chunk.images])[:, None]
            vectors = np.where(alike, unit_vector("chart", 256) + 0.3 * vectors, vectors)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        codes = archive.load_calibration(connection, "tiny").codes(vectors)
        ledger.finish(connection, chunk, replace(made, vectors=vectors, codes=codes), [], RetryPolicy(1, 1))


def build(url: str) -> None:
    index.build(lambda: connect(url, application_name="build"), "tiny", 64 << 20, 0, lambda _: None)


def images(connection: Connection, state: unwanted.State | None = "candidate") -> set[str]:
    return {one.image for one in unwanted.list_images(connection, "charts", state, 10_000)}


def learn(connection: Connection, examples: list[str] = EXAMPLES, **options) -> unwanted.Learned:
    """Learns the charts, by default within a distance that all charts are and no photograph is."""
    return unwanted.learn(connection, "charts", examples, by="ann", **{"threshold": 0.2, **options})


def found(connection: Connection, call: str) -> list[str]:
    return [row[0] for row in connection.execute(f"select image from {call}".encode())]


# Learning ----------


@pytest.mark.parametrize("indexed", [True, False])
def test_from_a_few_examples_the_others_are_found(
    archived: Connection, database_url: str, indexed: bool
) -> None:
    """Six charts find nearly all others and nothing else, nearest first; the examples are accepted at once."""
    if indexed:
        build(database_url)
    learned = learn(archived, threshold=None)

    assert images(archived) <= OTHERS
    assert len(images(archived)) >= 0.8 * len(OTHERS)
    assert images(archived, "accepted") == set(EXAMPLES)
    assert learned.found == unwanted.Found(len(images(archived)), 0)
    report = learned.report
    assert report.chosen.precision >= 0.95
    assert report.chosen.at_least < 0.3
    assert (report.examples, report.fine, report.sample, report.archive) == (6, 0, 634, 640)
    assert report.chosen.expected == pytest.approx(learned.found.candidates, abs=1)
    assert set(report.doubtful) < OTHERS
    listed = unwanted.list_images(archived, "charts", limit=5)
    assert [one.distance for one in listed] == sorted(one.distance for one in listed)
    for one in listed:
        exact = archived.execute("select distance(%s, %s)", [one.image, one.nearest_example]).fetchone()
        nearest = archived.execute(
            "select min(distance(%s, k)) from unnest(%s::text[]) k", [one.image, EXAMPLES]
        )
        assert (one.distance,) == exact == nearest.fetchone()


def test_what_is_called_fine_limits_the_threshold(archived: Connection) -> None:
    """Where a fine image lies among the charts, the largest threshold that reaches the precision stays before it."""
    wide = learn(archived, threshold=None).report.chosen
    fine = [unwanted.list_images(archived, "charts")[-1].image]
    narrow = learn(archived, [], fine=fine, threshold=None, precision=1).report

    assert narrow.fine == 1
    assert narrow.chosen.threshold < wide.threshold
    assert narrow.chosen.fine == 0
    assert images(archived, "fine") == set(fine)


def test_an_unreachable_precision_is_refused_with_a_way_out(archived: Connection) -> None:
    """The error names the best threshold and the nearest images; a threshold of one's own is taken."""
    fine = [f"photo/{number:05}" for number in range(3, 500)]
    with pytest.raises(ConfigurationError, match=r"the best is 0\.\d+ at 0\.\d+.*name those") as error:
        learn(archived, ["photo/00001", "photo/00002"], fine=fine, threshold=None)
    assert "photo/" in str(error.value)
    assert unwanted.list_sets(archived) == []
    assert learn(archived, ["photo/00001", "photo/00002"], threshold=0.01).found.candidates == 0


def test_unknown_examples_are_refused_as_a_whole(archived: Connection) -> None:
    """Keys that nobody knows and images without a vector are told apart and counted; nothing is stored."""
    ledger.register(archived, [Image("waiting", "file:///w")], chunk_size=10)
    with pytest.raises(
        UnknownImageError,
        match="of 4 images 2 unknown to the archive: no/1, no/2; 1 without a vector: waiting",
    ):
        learn(archived, [EXAMPLES[0], "no/1", "waiting", "no/2"])
    with pytest.raises(ConfigurationError, match="as fine: chart/00000"):
        learn(archived, EXAMPLES, fine=EXAMPLES[:1])
    with pytest.raises(ConfigurationError, match="no examples"):
        learn(archived, [])
    with pytest.raises(ConfigurationError, match="one example cannot be held out"):
        learn(archived, EXAMPLES[:1])
    assert unwanted.list_sets(archived) == []


def test_the_sample_is_random_and_repeatable(archived: Connection) -> None:
    """A small sample is the same for the same seed, and tells about how many vectors there are."""
    first, again, other = (learn(archived, sample=50, seed=seed).report for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.sample <= 50
    assert first.archive == pytest.approx(640, rel=0.1)


# Decisions ----------


def test_decisions_stay(archived: Connection) -> None:
    """A second, wider learning adds candidates and measures anew, and leaves what people said as they said it."""
    learn(archived, EXAMPLES[:2], threshold=0.05)
    before = images(archived)
    assert before < OTHERS | set(EXAMPLES)
    accepted, fine = sorted(before - set(EXAMPLES))[:2]
    assert unwanted.decide(archived, "charts", "accepted", [accepted], "bob") == 1
    assert unwanted.decide(archived, "charts", "fine", [fine], "cid") == 1
    learn(archived)
    unwanted.refresh(archived, "charts")

    assert images(archived) == OTHERS - {accepted, fine}
    stored = {one.image: one for one in unwanted.list_images(archived, "charts", None, 100)}
    assert (stored[accepted].state, stored[accepted].decided_by) == ("accepted", "bob")
    assert (stored[fine].state, stored[fine].decided_by) == ("fine", "cid")
    for one in (stored[accepted], stored[fine], *list(stored.values())[:3]):
        exact = archived.execute(
            "select min(distance(%s, k)) from unnest(%s::text[]) k", [one.image, EXAMPLES]
        ).fetchone()
        assert exact == (pytest.approx(one.distance, abs=1e-6),)

    learn(archived, [], threshold=0.001)
    assert images(archived) == set()
    assert images(archived, "fine") == {fine}
    assert images(archived, "accepted") == {accepted, *EXAMPLES}


def test_candidates_are_accepted_by_distance_or_all(archived: Connection) -> None:
    """`within` takes the nearest ones, 1 all that are left; what is fine is not among them."""
    learn(archived)
    listed = unwanted.list_images(archived, "charts")
    unwanted.decide(archived, "charts", "fine", [listed[0].image], "ann")
    assert unwanted.accept_within(archived, "charts", listed[9].distance, "ann") == 9
    assert unwanted.accept_within(archived, "charts", 1, "ann") == len(listed) - 10
    (counts,) = unwanted.list_sets(archived)
    assert (counts.examples, counts.candidates, counts.accepted, counts.fine) == (6, 0, CHARTS - 1, 1)


def test_any_image_can_be_decided_about(archived: Connection) -> None:
    """An image that was no candidate is accepted with its distance; taken back, it goes with the next search."""
    learn(archived)
    unwanted.decide(archived, "charts", "accepted", ["photo/00001"], "ann")
    assert "photo/00001" in images(archived, "accepted")
    unwanted.decide(archived, "charts", "candidate", ["photo/00001"], "ann")
    (one,) = (one for one in unwanted.list_images(archived, "charts") if one.image == "photo/00001")
    assert (one.decided_by, one.decided_at) == (None, None)
    unwanted.refresh(archived, "charts")
    assert images(archived) == OTHERS
    with pytest.raises(UnknownImageError, match="nobody"):
        unwanted.decide(archived, "charts", "fine", ["nobody"], "ann")


def test_an_example_that_is_fine_is_none_any_more(archived: Connection) -> None:
    """A photograph among the examples by mistake brings candidates; called fine, they go, and the last one stays."""
    learn(archived, [*EXAMPLES[:2], "photo/00001"], threshold=0.44)
    assert images(archived) & {f"photo/{n:05}" for n in range(PHOTOGRAPHS)}
    unwanted.decide(archived, "charts", "fine", ["photo/00001"], "ann")
    counts = unwanted.list_sets(archived)[0]
    assert (counts.examples, counts.fine) == (2, 1)
    for one in unwanted.list_images(archived, "charts", None, 1000):
        assert one.nearest_example in EXAMPLES[:2]
    unwanted.decide(archived, "charts", "candidate", EXAMPLES[:1], "ann")
    assert EXAMPLES[0] in images(archived)
    with pytest.raises(ConfigurationError, match="no example with a vector"):
        unwanted.decide(archived, "charts", "fine", EXAMPLES[1:2], "ann")


def test_sets_are_known_by_name(archived: Connection) -> None:
    """An unknown set is refused with the names there are; a dropped one is gone with its decisions."""
    learn(archived)
    for ask in (unwanted.refresh, unwanted.list_images, unwanted.drop):
        with pytest.raises(UnknownSetError, match="there are: charts"):
            ask(archived, "rulers")
    unwanted.drop(archived, "charts")
    assert unwanted.list_images(archived, state=None) == []
    assert set(EXAMPLES[1:]) < set(found(archived, "similar('chart/00000', 39)"))


# As the archive changes ----------


def test_images_that_arrive_later_become_candidates(archived: Connection, database_url: str) -> None:
    """A refresh finds the new charts, whether or not the earlier ones have been accepted."""
    build(database_url)
    learn(archived)
    unwanted.accept_within(archived, "charts", 1, "ann")
    store(archived, "photo", range(PHOTOGRAPHS, PHOTOGRAPHS + 20))
    store(archived, "chart", range(CHARTS, CHARTS + 5))
    refreshed = unwanted.refresh(archived, "charts")

    assert refreshed == unwanted.Found(5, 0)
    assert images(archived) == {f"chart/{n:05}" for n in range(CHARTS, CHARTS + 5)}


def test_a_replaced_picture_is_looked_at_again(archived: Connection) -> None:
    """A decision about an earlier picture does not hold for another one under the same key, nor does an example."""
    store(archived, "chart", range(CHARTS), content="first")
    learn(archived)
    unwanted.accept_within(archived, "charts", 1, "ann")
    store(archived, "chart", range(5, 8), content="photograph")
    store(archived, "chart", range(8, 9), content="second")
    unwanted.refresh(archived, "charts")

    assert images(archived) == {"chart/00008"}
    assert images(archived, "accepted") == {f"chart/{n:05}" for n in range(CHARTS) if not 5 <= n <= 8}
    assert unwanted.list_sets(archived)[0].examples == 5


def test_more_candidates_than_a_search_returns(archived: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said that more may exist; once those found are accepted, a refresh finds the ones behind them."""
    monkeypatch.setattr(unwanted, "STEPS", (5, 10))
    first = learn(archived, EXAMPLES[:2]).found
    assert first.unfinished == 2
    assert 10 <= first.candidates < CHARTS - 2
    rounds = 0
    while unwanted.refresh(archived, "charts").candidates:
        unwanted.accept_within(archived, "charts", 1, "ann")
        rounds += 1
    assert rounds >= 3
    assert images(archived, "accepted") == {*EXAMPLES, *OTHERS}
    assert unwanted.list_sets(archived)[0].report["unfinished"] == 0


# Searches ----------

WAYS = {
    "similar": "similar('chart/00000', 20{})",
    "like_these": "like_these(array['chart/00000', 'photo/00001'], k => 20{})",
    "nearest": "nearest(vector_of('chart/00000')::vector::real[]::float8[], 20{})",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("exact_rows", [200_000, 10], ids=["exact among few", "index scan among many"])
def test_accepted_images_leave_the_searches(
    archived: Connection, database_url: str, way: str, exact_rows: int
) -> None:
    """With a filter and without, through the index and exactly: 20 images as before, none of them accepted, and all
    of them again on demand. Candidates stay."""
    build(database_url)
    archived.execute("select set_config('lookalike.exact_rows', %s, false)", [str(exact_rows)])
    before = found(archived, WAYS[way].format(""))
    tenth = found(archived, WAYS[way].format(", licence => 'tenth'"))
    learn(archived, EXAMPLES[:2])
    assert set(before) - set(EXAMPLES[:2]) <= set(found(archived, WAYS[way].format("")))
    unwanted.accept_within(archived, "charts", 1, "ann")

    for filters in ("", ", licence => 'tenth'", ", within => array(select id from images where id % 2 = 0)"):
        without = found(archived, WAYS[way].format(filters))
        assert len(without) == 20
        assert all(key.startswith("photo/") for key in without)
    assert found(archived, WAYS[way].format(", include_unwanted => true")) == before
    assert found(archived, WAYS[way].format(", include_unwanted => true, licence => 'tenth'")) == tenth


def test_searches_without_unwanted_images_use_the_index(archived: Connection, database_url: str) -> None:
    """With accepted images nothing reads a partition in full, neither in searches nor in a refresh."""
    build(database_url)
    learn(archived)
    unwanted.accept_within(archived, "charts", 1, "ann")
    before = scans(archived)
    with connect(database_url, application_name="fresh") as fresh:
        for way in WAYS.values():
            fresh.execute(f"select * from {way.format('')}".encode())
        unwanted.refresh(fresh, "charts")
    after = scans(archived)

    assert after[0] == before[0]
    assert after[1] >= before[1] + (len(WAYS) + len(EXAMPLES)) * 8


def test_an_analyst_reads_what_is_unwanted(archived: Connection) -> None:
    """The role joins the view and searches without the accepted images, but decides nothing."""
    learn(archived)
    archived.execute("set role analyst")
    assert archived.execute("select count(*) from unwanted where state = 'accepted'").fetchone() == (6,)
    assert not set(EXAMPLES) & set(found(archived, "similar('chart/00007', 30)"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        archived.execute("update unwanted_images set state = 'fine'")


# The command ----------


@pytest.fixture
def command(archived: Connection, database_url: str, broker_url: str) -> Callable[..., str]:
    """Runs `lookalike unwanted ...` and returns what it prints."""
    environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, ["unwanted", *words], env=environment, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def test_a_cataloguer_at_the_command(command: Callable[..., str], tmp_path) -> None:
    """Learn, review, decide, refresh: every step from the terminal, listings as tables and as JSON."""
    keys = tmp_path / "keys.txt"
    keys.write_text("# charts\n" + "\n".join(EXAMPLES))
    said = command("learn", "charts", "--examples", str(keys), "--threshold", "0.2")
    assert "34 candidates" in said
    assert "at least" in said

    listed = json.loads(command("list", "charts", "-n", "3", "--json"))["unwanted"]
    assert [one["state"] for one in listed] == ["candidate"] * 3
    keys = [one["image"] for one in listed]
    assert "1 images of charts: fine" in command("fine", "charts", keys[0])
    command("accept", "charts", keys[1], "--by", "bob")
    assert "1 images" in command("accept", "charts", "--within", str(listed[2]["distance"] + 1e-6))
    command("undecided", "charts", keys[1])
    assert keys[1] in command("list", "charts")
    assert json.loads(command("refresh", "--json"))["sets"] == [
        {"name": "charts", "found": {"candidates": 32, "unfinished": 0}}
    ]
    command("accept", "charts", "--all")
    (counts,) = json.loads(command("sets", "--json"))["sets"]
    assert (counts["accepted"], counts["fine"], counts["candidates"]) == (39, 1, 0)
    assert "charts" in command("sets")
    with pytest.raises(ConfigurationError, match="one of them"):
        command("accept", "charts", "--all", "--within", "0.1")
    assert "forgotten" in command("drop", "charts", "--yes")
