"""What the orchestrator does beside dispatching: indexes after backfills, analyses gated, swept and settled."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lookalike import analyses, archive, duplicates, index, kinds, ledger, sweeping, unwanted
from lookalike.database import Connection, connect
from lookalike.errors import UnknownSetError
from lookalike.ledger import RetryPolicy
from lookalike.queue import Broker, make_app
from lookalike.settings import Settings
from orchestrator import upkeep
from orchestrator.dispatch import Dispatcher
from orchestrator.upkeep import build_due_indexes, keeping_up, refresh_unwanted
from tests.factories import TINY, make_images, make_vectors
from tests.servers import wait_until

IMAGES = 400
NEAR = duplicates.Criteria(0.01, 0.9)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An archive of more than 100 vectors is a large one."""
    return Settings(_env_file=None, home=tmp_path, index_rows=100)


@pytest.fixture
def archived(connection: Connection) -> Connection:
    archive.add_encoder(connection, TINY, chunk_size=100)
    embed(connection, "image", IMAGES)
    return connection


def embed(connection: Connection, prefix: str, count: int) -> None:
    ledger.register(connection, make_images(count, prefix), chunk_size=100)
    for claim in ledger.lease(connection, "tiny", "backfill", 100, 60):
        chunk = ledger.start(connection, claim, "w", 60)
        assert chunk is not None
        ledger.finish(connection, chunk, make_vectors(chunk.images, connection), [], RetryPolicy(1, 1))


@pytest.fixture
def build_indexes(archived: Connection, database_url: str, settings: Settings) -> Callable[[], int]:
    """Runs the building of indexes once; returns how many partitions have one."""

    def run() -> int:
        archived.execute("analyze")  # as autovacuum does within a minute
        build_due_indexes(
            settings,
            lambda: connect(database_url, application_name="test"),
            archived,
            stop=threading.Event(),
        )
        return sum(bool(partition.valid) for partition in index.list_partitions(archived, "tiny"))

    return run


def test_a_large_archive_gets_its_index_when_the_backfill_ends(
    archived: Connection, build_indexes: Callable[[], int]
) -> None:
    """Not while images are open; then all partitions at once, and the recall is measured."""
    ledger.register(archived, make_images(1, "open"))
    assert build_indexes() == 0
    archived.execute("update chunks set state = 'done', done_at = now() where state = 'pending'")
    assert build_indexes() == 8
    assert index.last_check(archived, "tiny") is not None


def test_an_index_that_was_dropped_comes_back_after_the_next_backfill(
    archived: Connection, build_indexes: Callable[[], int]
) -> None:
    """An operator drops it before a backfill, so it is not built before that has begun and ended."""
    assert build_indexes() == 8
    index.drop(archived, "tiny")
    assert build_indexes() == 0
    embed(archived, "more", 50)
    assert build_indexes() == 8


def test_a_small_archive_gets_none(archived: Connection, build_indexes: Callable[[], int]) -> None:
    """Up to the number that the setting names, searches do without an index."""
    archived.execute("delete from vectors_tiny where image_id > 90")
    assert build_indexes() == 0


def test_analyses_wait_for_the_index_of_a_large_archive(
    archived: Connection, settings: Settings, broker_url: str, database_url: str
) -> None:
    """Their chunks are handed out once searches are quick."""
    dispatcher = Dispatcher(settings, archived, make_app(broker_url, "tiny"), Broker(broker_url))
    archived.execute("analyze")
    duplicates.begin(archived, "tiny", NEAR, turned=False)
    assert dispatcher.step() == 0
    index.build(lambda: connect(database_url, application_name="b"), "tiny", 64 << 20, 0, lambda _: None)
    dispatcher._searchable.clear()
    assert dispatcher.step() == 2


def test_a_chunk_of_an_analysis_that_crashes_workers_is_halved(archived: Connection) -> None:
    """It stays with its analysis and lane; no image fails for it, and the books do not see it."""
    analysis = duplicates.begin(archived, "tiny", NEAR, turned=False)
    for _ in range(2):
        for claim in ledger.lease(archived, "tiny", "analysis", 100, 60):
            assert ledger.start(archived, claim, "w", -1) is not None
        sweeping.sweep(archived)
    rows = archived.execute(
        "select state, lane, count(*) from chunks where analysis = %s group by 1, 2 order by 1", [analysis.id]
    ).fetchall()
    assert rows == [("pending", "analysis", 4), ("split", "analysis", 2)]
    assert analyses.progress(archived, analysis.id).left == IMAGES
    assert archived.execute("select done, open, lost from books('tiny')").fetchone() == (IMAGES, 0, 0)


def test_an_analysis_begun_meanwhile_misses_no_image(archived: Connection, database_url: str) -> None:
    """It waits for a chunk that is being finished, and covers its images."""
    ledger.register(archived, make_images(1, "late"))
    (claim,) = ledger.lease(archived, "tiny", "backfill", 100, 60)
    chunk = ledger.start(archived, claim, "w", 60)
    assert chunk is not None
    begun: list[analyses.Analysis] = []
    with connect(database_url, application_name="other") as other:
        with archived.transaction():
            ledger.finish(archived, chunk, make_vectors(chunk.images, archived), [], RetryPolicy(1, 1))
            thread = threading.Thread(
                target=lambda: begun.append(duplicates.begin(other, "tiny", NEAR, turned=False))
            )
            thread.start()
            thread.join(0.5)
            assert not begun
        thread.join(10)
    covered = archived.execute("select max(hi) from chunks where analysis = %s", [begun[0].id]).fetchone()
    assert covered == (chunk.images[0].id,)


def test_upkeep_settles_what_is_done(archived: Connection, settings: Settings, database_url: str) -> None:
    """An analysis without open chunks is summed up by itself, and again after later images."""
    analysis = duplicates.begin(archived, "tiny", NEAR, turned=False)
    with keeping_up(settings, lambda: connect(database_url, application_name="upkeep")):
        for extra in ("", "later"):
            if extra:
                embed(archived, extra, 1)
            assert not analyses.is_settled(archived, analysis.id)
            for claim in ledger.lease(archived, "tiny", "analysis", 100, 60):
                chunk = ledger.start(archived, claim, "w", 60)
                assert chunk is not None
                found = duplicates.find(archived, analysis, chunk.images, lambda _: [])
                ledger.finish_analysis(
                    archived,
                    chunk,
                    lambda c, k, f=found: kinds.KINDS["duplicates"].store(c, analysis, k.images, f),  # type: ignore[misc]
                )
            wait_until(lambda: analyses.is_settled(archived, analysis.id), 30)


def test_unwanted_sets_are_searched_again_as_images_arrive(archived: Connection, settings: Settings) -> None:
    """An image like an example becomes a candidate without anybody's asking; nothing new, nothing done."""
    unwanted.learn(archived, "charts", ["image/00001", "image/00002"], by="ann", threshold=0.05)
    everything = settings.model_copy(update={"index_rows": 10_000})
    archived.execute("update chunks set done_at = now() - interval '1 hour' where done_at is not null")
    assert unwanted.outdated(archived) == []

    # The tests' vectors depend on the key: a second image of the same key in another archive would be the same.
    archived.execute("update images set key = 'image/x' where key = 'image/00001'")
    embed(archived, "image", 2)
    refresh_unwanted(everything, archived)
    rows = archived.execute("select image from unwanted where state = 'candidate'").fetchall()
    assert rows == [("image/00001",)]


def test_a_new_analysis_holds_up_no_embedding_while_an_old_one_is_summed_up(
    archived: Connection, database_url: str
) -> None:
    """Chunks are finished while `begin` waits for the summary of the analysis that it takes the place of."""
    analysis = duplicates.begin(archived, "tiny", NEAR, turned=False)
    other = replace(NEAR, threshold=0.02)
    with (
        connect(database_url, application_name="summary") as summary,
        connect(database_url, application_name="begin") as beginning,
    ):
        with summary.transaction():
            summary.execute("select from analyses where id = %s for no key update", [analysis.id])
            thread = threading.Thread(target=duplicates.begin, args=(beginning, "tiny", other, False))
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
            archived.execute("set lock_timeout = '5s'")
            embed(archived, "meanwhile", 1)
        thread.join(10)
    assert not thread.is_alive()
    assert not archived.execute("select standing from analyses where id = %s", [analysis.id]).fetchone()[0]  # type: ignore[index]


def test_a_summary_that_comes_too_early_is_made_later(
    archived: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An analysis that its kind does not sum up yet stays unsettled."""
    analysis = duplicates.begin(archived, "tiny", NEAR, turned=False)
    archived.execute("update chunks set state = 'done', done_at = now() where analysis = %s", [analysis.id])
    monkeypatch.setattr(duplicates, "settle", lambda *_: False)
    assert kinds.settle(archived) == []
    assert not analyses.is_settled(archived, analysis.id)
    monkeypatch.setattr(duplicates, "settle", lambda *_: True)
    assert [one.id for one in kinds.settle(archived)] == [analysis.id]


def test_upkeep_outlives_whatever_goes_wrong(
    archived: Connection, settings: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error, foreseen or not, ends one round and not the thread."""
    rounds: list[int] = []
    errors = [UnknownSetError("dropped meanwhile"), ValueError("unforeseen")]

    def settle(_: Connection) -> list[analyses.Analysis]:
        rounds.append(1)
        if len(rounds) <= len(errors):
            raise errors[len(rounds) - 1]
        return []

    monkeypatch.setattr(kinds, "settle", settle)
    monkeypatch.setattr(upkeep, "SETTLE_SECONDS", 0.01)
    with keeping_up(settings, lambda: connect(database_url, application_name="upkeep")):
        wait_until(lambda: len(rounds) > 4, 10)
