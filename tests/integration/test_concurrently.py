"""Upgrades of a database that is in use: indexes are built and tables altered while others write."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from lookalike import ledger
from lookalike import migrate as module
from lookalike.concurrently import build_indexes, missing_indexes, wanted_indexes
from lookalike.database import Connection, connect
from lookalike.errors import ServiceError
from lookalike.migrate import migrate, migrations_folder, unbuilt
from tests.factories import make_images
from tests.meanwhile import meanwhile

FOLDER = migrations_folder()
NAMES = [one.name for one in wanted_indexes(FOLDER) if one.kept]
DROPPED = [one.name for one in wanted_indexes(FOLDER) if not one.kept]
IMAGES = 3000


@pytest.fixture
def lacking(connection: Connection) -> Connection:
    """A database with rows, as it was before there were indexes on large tables."""
    ledger.register(connection, make_images(IMAGES), chunk_size=256)
    for name in NAMES:
        connection.execute(f"drop index {name}".encode())
    connection.execute("create index images_work on images (work)")
    return connection


@contextmanager
def writing(database_url: str) -> Iterator[list[float]]:
    """Registers images one after another for the time of the block; yields how long each registration took."""
    with (
        connect(database_url, application_name="writer") as own,
        meanwhile(
            lambda number: ledger.register(own, make_images(3, f"beside-{number}"), chunk_size=8)
        ) as seconds,
    ):
        yield seconds


def states(connection: Connection) -> dict[str, bool]:
    found = connection.execute(
        "select indexrelid::regclass::text, indisvalid from pg_index where indexrelid::regclass::text = any(%s)",
        [NAMES + DROPPED],
    )
    return dict(found.fetchall())


def test_missing_indexes_are_built_beside_writers(lacking: Connection, database_url: str) -> None:
    """A build that waits for an old transaction lets writers through; in the end all are valid and hold every row."""
    assert unbuilt(database_url) == NAMES
    told: list[str] = []
    with connect(database_url, application_name="analyst") as analyst, writing(database_url) as seconds:
        analyst.execute("begin")
        # Has written, and not committed: a plain build would wait for it, and every writer for the build.
        ledger.register(analyst, make_images(1, "uncommitted"), chunk_size=8)
        done = threading.Timer(1.5, lambda: analyst.execute("commit"))
        done.start()
        since, before = time.perf_counter(), len(seconds)
        assert migrate(database_url, on_build=told.append) == []
        assert time.perf_counter() - since > 1, "it did not meet the transaction"
        assert len(seconds) - before > 10
        done.join()
    assert told == NAMES
    assert unbuilt(database_url) == []
    assert states(lacking) == dict.fromkeys(NAMES, True)
    (images,) = lacking.execute("select count(*) from images").fetchone() or (0,)
    lacking.execute("set enable_seqscan = off")
    by_index = (
        'select count(*) from (select from images where key collate "C" > \'\' order by key collate "C") i'
    )
    assert lacking.execute(by_index).fetchone() == (images,)
    assert migrate(database_url, on_build=told.append) == []
    assert told == NAMES, "the second time there is nothing to build"


def test_what_an_interruption_left_is_built_again(lacking: Connection, database_url: str) -> None:
    """A build that was cancelled in its middle leaves a broken index, which the next call replaces."""
    with (
        connect(database_url, application_name="analyst") as analyst,
        connect(database_url, application_name="b") as builder,
    ):
        analyst.execute("begin")
        ledger.register(analyst, make_images(1, "uncommitted"), chunk_size=8)
        threading.Timer(0.7, builder.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            build_indexes(builder, FOLDER, lambda _: None)
        analyst.execute("rollback")
    assert states(lacking) == {NAMES[0]: False, "images_work": True}
    assert missing_indexes(lacking, FOLDER) == NAMES
    migrate(database_url)
    assert states(lacking) == dict.fromkeys(NAMES, True)


def test_a_build_of_somebody_else_is_waited_for(lacking: Connection, database_url: str) -> None:
    """Whoever was killed may still have a server process that builds: what it makes is taken, not made twice."""
    statement = wanted_indexes(FOLDER)[0].statement
    told: list[str] = []
    with (
        connect(database_url, application_name="analyst") as analyst,
        connect(database_url, application_name="b") as builder,
    ):
        analyst.execute("begin")
        ledger.register(analyst, make_images(1, "uncommitted"), chunk_size=8)
        thread = threading.Thread(target=builder.execute, args=(statement.encode(),))
        thread.start()
        while states(lacking).get(NAMES[0]) is not False:
            time.sleep(0.02)
        threading.Timer(0.7, lambda: analyst.execute("commit")).start()
        migrate(database_url, on_build=told.append)
        thread.join()
    assert told == NAMES[1:]
    assert states(lacking) == dict.fromkeys(NAMES, True)


def test_whoever_holds_up_a_build_is_named(lacking: Connection, database_url: str) -> None:
    """A forgotten session, which a build waits for without end, is said with what ends it; so is another migration."""
    told: list[str] = []
    with connect(database_url, application_name="forgotten") as forgotten, ThreadPoolExecutor() as pool:
        pid = forgotten.info.backend_pid
        forgotten.execute("begin")
        ledger.register(forgotten, make_images(1, "uncommitted"), chunk_size=8)
        first = pool.submit(migrate, database_url, on_wait=told.append)
        while not told:
            time.sleep(0.05)
        second = pool.submit(migrate, database_url, on_wait=told.append)
        while len(told) < 2:
            time.sleep(0.05)
        lacking.execute(told[0].partition("forgotten: ")[2].encode())
        assert (first.result(), second.result()) == ([], [])
        forgotten.close()
    assert f"process {pid} (" in told[0]
    assert ", forgotten, since " in told[0]
    assert told[1].startswith("another process builds indexes")
    assert states(lacking) == dict.fromkeys(NAMES, True)


def test_programs_need_not_wait_for_indexes(lacking: Connection, database_url: str) -> None:
    """Migrations alone leave them to somebody else, and do not wait for who builds them."""
    lacking.execute("select pg_advisory_lock(%s)", [module.BUILD_LOCK])
    told: list[str] = []
    assert migrate(database_url, indexes=False, on_wait=told.append) == []
    assert (unbuilt(database_url), told) == (NAMES, [])


def altering(folder: Path) -> Path:
    """A migration that needs a lock on `images` that nobody else may hold."""
    (folder / "9000_alter.sql").write_text(
        "-- migrate:up\nset local lock_timeout = '100ms';\n"
        "alter table lookalike.images add more text;\n-- migrate:down\n"
    )
    return folder


def test_a_migration_that_waits_lets_others_through(
    connection: Connection, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up its place behind a long query and is tried again, until it gets the lock or there is no hope."""
    folder = altering(tmp_path)
    with connect(database_url, application_name="analyst") as analyst:
        analyst.execute("begin")
        analyst.execute("select count(*) from images")
        with monkeypatch.context() as patch:
            patch.setattr(module, "PATIENCE", 0.1)
            with pytest.raises(ServiceError, match=r"9000_alter\.sql failed.*lock timeout"):
                migrate(database_url, folder)
        threading.Timer(2, lambda: analyst.execute("commit")).start()
        with writing(database_url) as seconds:
            assert migrate(database_url, folder) == ["9000_alter.sql"]
    assert max(seconds) < 1.5
    assert connection.execute("select count(more) from images").fetchone() == (0,)


def test_only_what_can_be_interrupted_stands_in_the_file(tmp_path: Path) -> None:
    """A statement of another form is refused, for it could not be made again."""
    (tmp_path / "concurrently").mkdir()
    (tmp_path / "concurrently" / "indexes.sql").write_text("create index on lookalike.images (work);\n")
    with pytest.raises(ValueError, match="not `create index concurrently if not exists NAME"):
        wanted_indexes(tmp_path)
