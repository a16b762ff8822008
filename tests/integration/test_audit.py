"""The audit: it finds each fault by its name, counts and repairs it, and goes on where it was stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from lookalike import archive, audit, books, deletion, ledger
from lookalike.audit import Audit, Wish
from lookalike.database import Connection, connect
from lookalike.errors import ServiceError
from lookalike.faults import Fault
from lookalike.images import Removal
from lookalike.ledger import Failure, RetryPolicy
from lookalike.reasons import Reason
from tests.conftest import new_database
from tests.factories import TINY, make_images, make_vectors

POLICY = RetryPolicy(1, 1)
IMAGES = 40
ROOT = Path(__file__).parents[2]


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """An archive of this test, as `make_archive` makes it."""
    make_archive(connection)
    return connection


@pytest.fixture(scope="module")
def shared_database(server_url: str, template_database: str) -> Iterator[Connection]:
    """An archive for all tests that take back what they do to it."""
    for url in new_database(server_url, template_database):
        with connect(url, application_name="test") as connection:
            make_archive(connection)
            yield connection


@pytest.fixture
def borrowed(shared_database: Connection) -> Iterator[Connection]:
    """The shared archive, for one test, in a transaction that is rolled back."""
    with shared_database.transaction(force_rollback=True):
        yield shared_database


def make_archive(connection: Connection) -> None:
    """40 images: 32 with a vector, 4 failed, 4 open; every vector has labels, and is in a cluster."""
    archive.add_encoder(connection, TINY, chunk_size=4)
    ledger.register(connection, make_images(IMAGES), chunk_size=4)
    for number, claim in enumerate(ledger.lease(connection, "tiny", "backfill", 9, 60)):
        chunk = ledger.start(connection, claim, "w", 60)
        assert chunk is not None
        failures = [Failure(image, Reason.NOT_FOUND) for image in chunk.images] if number == 8 else []
        found = [] if failures else chunk.images
        ledger.finish(connection, chunk, make_vectors(found, connection), failures, POLICY)
    connection.execute("insert into labels select 'tiny', image_id, 1, 'cat', 0.5 from vectors_tiny")
    connection.execute(
        "with a as (insert into analyses (kind, encoder, scope, settings, standing)"
        "   values ('clusters', 'tiny', 'images kmeans', '{}', false) returning id)"
        " insert into clusterings (analysis, encoder, of, method, seed, sampled)"
        " select id, 'tiny', 'images', 'kmeans', 0, 0 from a"
    )
    connection.execute("create table lookalike.members partition of clustered_images default")
    connection.execute(
        "insert into clustered_images select analysis, image_id, 0, 0 from clusterings, vectors_tiny"
    )


def without_checks(connection: Connection, statement: str) -> None:
    """Runs a statement that the database would refuse: no foreign key and no check of vectors is heeded."""
    constraint = connection.execute(
        "select conname from pg_constraint where conrelid = 'vectors_tiny'::regclass and contype = 'c'"
        " and pg_get_constraintdef(oid) like '%l2_norm%'"
    ).fetchone()
    assert constraint is not None
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        connection.execute(f"alter table vectors_tiny drop constraint {constraint[0]}".encode())
        connection.execute(statement.encode())
        connection.execute("alter table vectors_tiny add check (l2_norm(v) between 0.99 and 1.01) not valid")
        # As a damaged disk would have it: the table says that it holds what it does not.
        connection.execute("update pg_constraint set convalidated = true where conname like 'vectors_tiny%'")


FAULTS = {
    Fault.LOST: "delete from vectors_tiny where image_id <= 3",
    Fault.OUTDATED: "update images set revision = 2 where id <= 3",
    Fault.TWICE: "insert into failures (encoder, image_id, revision, reason, attempts)"
    " select 'tiny', image_id, 1, 'timeout', 1 from vectors_tiny where image_id <= 3",
    Fault.FUTURE_VECTOR: "update vectors_tiny set revision = 2 where image_id <= 3",
    Fault.FUTURE_FAILURE: "insert into failures (encoder, image_id, revision, reason, attempts)"
    " select 'tiny', id, 2, 'timeout', 1 from images where id <= 3",
    Fault.STRAY_VECTOR: "insert into vectors_tiny select image_id + 100, revision, checksum, stored_at, code, v"
    " from vectors_tiny where image_id <= 3",
    Fault.STRAY_FAILURE: "insert into failures (encoder, image_id, revision, reason, attempts)"
    " select 'tiny', id + 100, 1, 'timeout', 1 from images where id <= 3",
    Fault.STRAY_LABEL: "insert into labels select 'tiny', id + 100, 1, 'cat', 0.5 from images where id <= 3",
    Fault.STRAY_MEMBER: "update clustered_images set image_id = image_id + 100 where image_id <= 3",
    Fault.WRONG_DIMENSION: "alter table vectors_tiny alter v type halfvec;"
    " update vectors_tiny set v = '[1,0]' where image_id <= 3",
    Fault.NOT_UNIT: "update vectors_tiny set v = v * array_fill(0.5, array[16])::halfvec where image_id <= 3",
    Fault.WRONG_CODE: "update vectors_tiny set code = set_bit(code, 5, 1 - get_bit(code, 5)) where image_id <= 3",
    Fault.NO_CHECKSUM: "alter table vectors_tiny alter checksum drop not null;"
    " update vectors_tiny set checksum = null where image_id <= 3",
    Fault.EXPIRED_LEASE: "update chunks set state = 'running', worker = 'w', lease = gen_random_uuid(),"
    " lease_until = now() - interval '10 minutes' where state = 'pending'",
    Fault.NOT_DELETED: "insert into deleted_images (key, as_of) select key, now() from images where id <= 3",
}


def found_by(done: Audit) -> dict[Fault, int]:
    return {one.fault: one.found for one in done.findings}


def test_a_sound_archive_balances(borrowed: Connection) -> None:
    """Every image is counted once, every vector compared with its code, and nothing is found."""
    done = audit.audit(borrowed, "tiny")
    assert (done.registered, done.done, done.failed, done.open, done.lost) == (40, 32, 4, 4, 0)
    assert (done.vectors, done.compared) == (32, 32)
    assert done.findings == []
    assert done.balanced


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_name_and_repaired(borrowed: Connection, fault: Fault) -> None:
    """A planted fault is found, counted and named; --repair mends it, a second audit is clean, and nothing is lost."""
    without_checks(borrowed, FAULTS[fault])
    planted = {fault: 1 if fault is Fault.EXPIRED_LEASE else 3}
    if fault is Fault.WRONG_DIMENSION:
        planted[Fault.WRONG_TABLE] = 1
    first = audit.audit(borrowed, "tiny", piece=7)
    assert (found_by(first), first.balanced) == (planted, False)
    if fault is not Fault.EXPIRED_LEASE:  # its image is open: nobody says "complete" anyway
        assert not books.count_books(borrowed, "tiny").balanced

    repaired = audit.audit(borrowed, "tiny", Wish(repairs=True), piece=7)
    assert {one.fault: one.repaired for one in repaired.findings if one.fault is not Fault.WRONG_TABLE} == {
        fault: planted[fault]
    }
    if fault is Fault.WRONG_DIMENSION:
        borrowed.execute("alter table vectors_tiny alter v type halfvec(16)")
    second = audit.audit(borrowed, "tiny", piece=7)
    assert (second.findings, second.balanced) == ([], True)
    assert books.count_books(borrowed, "tiny").balanced


def test_repaired_images_are_embedded_again(borrowed: Connection) -> None:
    """What a repair queues goes the way of all images, and comes out whole."""
    without_checks(borrowed, FAULTS[Fault.WRONG_CODE])
    audit.audit(borrowed, "tiny", Wish(repairs=True))
    assert books.count_books(borrowed, "tiny").open == 4 + 3
    for claim in ledger.lease(borrowed, "tiny", "backfill", 10, 60):
        chunk = ledger.start(borrowed, claim, "w", 60)
        assert chunk is not None
        ledger.finish(borrowed, chunk, make_vectors(chunk.images, borrowed), [], POLICY)
    assert books.count_books(borrowed, "tiny") == books.Books(40, 36, 4, 0, 0)
    assert audit.audit(borrowed, "tiny", Wish(whole=True)).balanced


@pytest.mark.parametrize("value", ["7fff", "7c00"], ids=["NaN", "infinity"])
def test_numbers_that_are_none_are_found(borrowed: Connection, value: str) -> None:
    """Postgres takes no NaN and no infinity into a vector; the audit would see them all the same."""
    from lookalike.verification import Stored, find_faults

    calibration = archive.load_calibration(borrowed, "tiny")
    header = (16).to_bytes(2) + bytes(2)
    vector = bytes.fromhex("3c00" + value) + bytes(28)
    stored = Stored(5, True, header + vector, (16).to_bytes(4) + bytes(2))
    assert list(find_faults([stored], calibration)) == [(Fault.NOT_FINITE, 5)]
    with pytest.raises(psycopg.Error):
        borrowed.execute("update vectors_tiny set v = ('[' || repeat('NaN,', 15) || '1]')::halfvec")


def test_a_damaged_table_is_named_and_left_to_people(borrowed: Connection) -> None:
    """A table whose check of vectors is gone is a fault that no repair takes away."""
    borrowed.execute(
        "do $$ begin execute (select format('alter table vectors_tiny drop constraint %I', conname)"
        " from pg_constraint where conrelid = 'vectors_tiny'::regclass"
        " and pg_get_constraintdef(oid) like '%l2_norm%'); end $$"
    )
    done = audit.audit(borrowed, "tiny", Wish(repairs=True))
    assert found_by(done) == {Fault.WRONG_TABLE: 1}
    assert not done.balanced


def test_an_audit_is_right_while_the_archive_changes(archived: Connection, database_url: str) -> None:
    """Images that are registered, finished and deleted between two pieces are no faults."""
    with connect(database_url, application_name="meanwhile") as other:
        turns = iter(range(100))

        def meanwhile(_: Audit) -> None:
            number = next(turns)
            ledger.register(other, make_images(3, f"new-{number}", content="a"), chunk_size=3)
            ledger.register(other, make_images(2, "image", content=str(number)), chunk_size=3)
            deletion.remove(other, Removal(key=f"image/{number + 10:05}"))
            for claim in ledger.lease(other, "tiny", "backfill", 3, 60):
                chunk = ledger.start(other, claim, "w", 60)
                assert chunk is not None
                ledger.finish(other, chunk, make_vectors(chunk.images, other), [], POLICY)

        done = audit.audit(archived, "tiny", piece=4, on_progress=meanwhile)
    assert (done.findings, done.balanced) == ([], True)


def test_a_stopped_audit_goes_on(borrowed: Connection) -> None:
    """Stopped between two pieces it goes on with the next, counts nothing twice, and remembers what it had found."""
    without_checks(borrowed, FAULTS[Fault.LOST])

    def stop(now: Audit) -> None:
        if now.position >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit.audit(borrowed, "tiny", piece=8, on_progress=stop)
    begun: list[int] = []
    done = audit.audit(borrowed, "tiny", piece=8, on_progress=lambda now: begun.append(now.position))
    assert begun[0] == 16
    assert (done.registered, found_by(done)) == (40, {Fault.LOST: 3})

    with pytest.raises(KeyboardInterrupt):
        audit.audit(borrowed, "tiny", piece=8, on_progress=stop)
    begun.clear()
    audit.audit(borrowed, "tiny", piece=8, anew=True, on_progress=lambda now: begun.append(now.position))
    assert begun[0] == 0


def test_one_audit_at_a_time(archived: Connection, database_url: str) -> None:
    """A second audit of the same encoder says that there is one already."""
    with connect(database_url, application_name="other") as other:

        def interfere(_: Audit) -> None:
            with pytest.raises(ServiceError, match="another process audits tiny"):
                audit.audit(other, "tiny")

        audit.audit(archived, "tiny", on_progress=interfere)
        assert audit.audit(other, "tiny").balanced


def fill(connection: Connection, images: int) -> None:
    """Adds so many images with vectors, by SQL."""
    archive.add_encoder(connection, TINY, chunk_size=1)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((images, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = np.unpackbits(
        archive.load_calibration(connection, "tiny").codes(vectors.astype(np.float16)), axis=1
    )
    connection.execute(
        "insert into images (key, url) select 'k' || n, 'file:///' || n from generate_series(1, %s) n",
        [images],
    )
    with connection.cursor().copy(
        "copy vectors_tiny (image_id, revision, checksum, code, v) from stdin"
    ) as copy:
        for number in range(images):
            copy.write_row(
                (
                    number + 1,
                    1,
                    bytes(32),
                    "".join(map(str, codes[number])),
                    "[" + ",".join(map(str, vectors[number].astype(np.float16))) + "]",
                )
            )
    connection.execute("analyze images, vectors_tiny")


def start_audit(database_url: str, piece: int) -> subprocess.Popen[bytes]:
    """An audit in a process of its own."""
    code = (
        "import sys; from lookalike.audit import audit; from lookalike.database import connect;"
        "audit(connect(sys.argv[1], application_name='audit'), 'tiny', piece=int(sys.argv[2]))"
    )
    return subprocess.Popen([sys.executable, "-c", code, database_url, str(piece)], cwd=ROOT)


def kill_midway_and_go_on(connection: Connection, database_url: str, images: int, piece: int) -> None:
    """Audits so many images, kills the audit with -9 when it is under way, and audits on."""
    fill(connection, images)
    lost = images // 3
    connection.execute("delete from vectors_tiny where image_id = any(%s)", [[2, lost, images - 1]])
    process = start_audit(database_url, piece)
    position = 0
    until = time.monotonic() + 60
    while not 2 * piece <= position:
        assert time.monotonic() < until
        row = connection.execute("select position from audits").fetchone()
        position = int(row[0]) if row else 0
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    row = connection.execute("select position, ended_at from audits").fetchone()
    assert row is not None
    assert 0 < row[0] < images
    assert row[1] is None
    begun: list[int] = []
    # The server notices in a moment that the killed audit, and its lock, are gone.
    done = retry(
        lambda: audit.audit(
            connection, "tiny", piece=piece, on_progress=lambda now: begun.append(now.position)
        )
    )
    assert begun[0] == row[0]
    assert (done.registered, done.done, done.lost) == (images, images - 3, 3)
    assert [(one.fault, one.examples) for one in done.findings] == [(Fault.LOST, [2, lost, images - 1])]


def retry(step: Callable[[], Audit]) -> Audit:
    until = time.monotonic() + 10
    while True:
        try:
            return step()
        except ServiceError:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_a_killed_audit_goes_on(connection: Connection, database_url: str) -> None:
    """Killed with -9 among 4,000 images, an audit goes on behind its last piece, and finds what is lost before it."""
    kill_midway_and_go_on(connection, database_url, 4_000, 50)


@pytest.mark.slow
def test_a_killed_audit_of_many_goes_on(connection: Connection, database_url: str) -> None:
    """The same among 100,000 images, in pieces of a thousand."""
    kill_midway_and_go_on(connection, database_url, 100_000, 1_000)


def test_a_large_archive_is_sampled(borrowed: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many vectors a share of them is compared with their codes, with --full all."""
    monkeypatch.setattr(audit, "SAMPLE", 8)
    borrowed.execute("analyze vectors_tiny")
    sampled = audit.audit(borrowed, "tiny")
    assert 0 < sampled.compared < sampled.vectors == 32
    assert audit.audit(borrowed, "tiny", Wish(whole=True)).compared == 32
