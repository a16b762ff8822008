"""Clusters on a real Postgres: what is found, assigned, labelled and kept, with blobs of vectors made by code."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from sklearn.metrics import adjusted_rand_score

from lookalike import analyses, archive, clusters, kinds, ledger
from lookalike.analyses import Analysis
from lookalike.clusters import Wish
from lookalike.database import Connection, connect
from lookalike.errors import ConfigurationError, LostLeaseError, UnknownClusterError, UnknownEncoderError
from lookalike.images import Image
from lookalike.ledger import Chunk, RetryPolicy
from lookalike.vectors import Vectors
from tests.factories import TINY, checksum, unit_vector

BLOBS = 8
EACH = 40
EIGHT = Wish(clusters=BLOBS)
ROOT = Path(__file__).parents[2]


def blob_of(key: str) -> int:
    """Keys are `blob/number`."""
    return int(key.split("/")[0])


def make_blobs(blobs: Iterable[int], numbers: Iterable[int], works: int = 4) -> list[Image]:
    """Images that look alike within a blob; so many to a work, all of the same blob. Their titles name the blob."""
    numbers = list(numbers)
    return [
        Image(
            f"{blob}/{number:04}",
            f"http://localhost/{blob}/{number}.jpg",
            work=f"{blob}-{number // works}",
            title=f"The view of blob{'abcdefghijklmnop'[blob]} {number}",
        )
        for blob in blobs
        for number in numbers
    ]


def vector_of(key: str, noise: float = 0.12) -> np.ndarray:
    """A unit vector near the middle of the blob that the key names, float32 (16,)."""
    vector = unit_vector(f"blob {blob_of(key)}", 16) + noise * unit_vector(key, 16) * 4 * 0.5
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def embed(connection: Connection, images: list[Image]) -> None:
    """Registers images and stores their vectors, as a worker does."""
    ledger.register(connection, images, chunk_size=200)
    calibration = archive.load_calibration(connection, "tiny")
    while claims := ledger.lease(connection, "tiny", "backfill", 100, 60):
        for claim in claims:
            chunk = ledger.start(connection, claim, "w", 60)
            assert chunk is not None
            vectors = np.array([vector_of(image.key) for image in chunk.images], np.float32)
            made = Vectors(
                np.array([image.id for image in chunk.images], np.int64),
                np.array([image.revision for image in chunk.images], np.int32),
                np.array([checksum(image.key) for image in chunk.images], np.uint8).reshape(-1, 32),
                calibration.codes(vectors),
                vectors,
            )
            ledger.finish(connection, chunk, made, [], RetryPolicy(1, 1))


def start_chunk(connection: Connection) -> Chunk | None:
    for claim in ledger.lease(connection, "tiny", "analysis", 100, 60, batch=1):
        return ledger.start(connection, claim, "w", 60)
    return None


def work_on(connection: Connection, chunk: Chunk) -> None:
    """Does one chunk of an analysis, as a worker does."""
    assert chunk.analysis is not None
    analysis = analyses.find(connection, chunk.analysis)
    found = clusters.find(connection, analysis, chunk.images, lambda _: [])
    ledger.finish_analysis(
        connection, chunk, lambda opened, done: clusters.store(opened, analysis, done.images, found)
    )


def work_off(connection: Connection) -> list[Analysis]:
    """Does all chunks of analyses, and settles what can be settled."""
    while chunk := start_chunk(connection):
        work_on(connection, chunk)
    return kinds.settle(connection)


def make(connection: Connection, wish: Wish = EIGHT) -> Analysis:
    analysis = clusters.begin(connection, clusters.plan(connection, "tiny", wish))
    work_off(connection)
    return analysis


def members(connection: Connection, of: str = "images", method: str = "kmeans") -> dict[str, int]:
    """The stable number of the cluster of each image, or work."""
    rows = connection.execute(
        "select coalesce(image, work), cluster from cluster_members where of = %s and method = %s",
        [of, method],
    )
    return {str(item): int(cluster) for item, cluster in rows}


def clusters_of_blobs(found: dict[str, int]) -> dict[int, int]:
    """The cluster that most of each blob is in."""
    blobs = {blob_of(key.replace("-", "/")) for key in found}
    return {
        blob: int(
            np.bincount([c for key, c in found.items() if blob_of(key.replace("-", "/")) == blob]).argmax()
        )
        for blob in blobs
    }


@pytest.fixture
def blobs(connection: Connection) -> Connection:
    """An archive of eight blobs of forty images, in works of four."""
    archive.add_encoder(connection, TINY, chunk_size=200)
    embed(connection, make_blobs(range(BLOBS), range(EACH)))
    return connection


def test_blobs_are_clusters(blobs: Connection) -> None:
    """Images that look alike are in one cluster, and each image is in one."""
    make(blobs)
    found = members(blobs)

    assert len(found) == BLOBS * EACH
    assert adjusted_rand_score([blob_of(key) for key in found], list(found.values())) > 0.95


def test_the_number_is_chosen(blobs: Connection) -> None:
    """Without a number there are as many clusters as blobs."""
    planned = clusters.plan(blobs, "tiny", Wish())

    assert len(planned.centres) == BLOBS
    assert planned.silhouette == pytest.approx(max(planned.tried.values()), abs=0.1)


def test_a_cluster_tells_what_it_is(blobs: Connection) -> None:
    """Size, exemplars nearest to the centre, distances as in SQL, and a label from classes and titles."""
    blobs.execute(
        "insert into labels select 'tiny', id, 1, 'class ' || split_part(key, '/', 1), 0.8 from images"
        " union all select 'tiny', id, 2, 'picture', 0.2 from images"
    )
    make(blobs)

    for cluster in clusters.list_clusters(blobs, "tiny"):
        nearest = clusters.list_members(blobs, cluster.cluster, 100)
        blob = blob_of(cluster.exemplars[0])
        assert len(nearest) == cluster.size == EACH
        assert cluster.exemplars == [member.image for member in nearest[:5]]
        assert cluster.spread == pytest.approx(np.mean([member.distance for member in nearest]), abs=1e-6)
        assert cluster.classes == [f"class {blob}"]
        assert cluster.words == [f"blob{'abcdefghijklmnop'[blob]}"]
        assert cluster.label == f"class {blob}: blob{'abcdefghijklmnop'[blob]}"
    assert blobs.execute(
        """select max(abs(m.distance - as_distance(v.v::vector <=> c.centre, 'halved')))
        from clustered_images m join vectors_tiny v using (image_id) join cluster_centres c using (analysis, number)"""
    ).fetchone() == (pytest.approx(0, abs=1e-5),)


def test_identity_stays_with_another_seed_and_more_images(blobs: Connection) -> None:
    """A new run keeps the numbers and names of clusters that it finds again; a new blob gets a new number."""
    make(blobs)
    before = clusters_of_blobs(members(blobs))
    clusters.name(blobs, before[3], "Portraits")

    embed(blobs, make_blobs(range(BLOBS), range(EACH, EACH + 4)))
    embed(blobs, make_blobs([BLOBS], range(EACH)))
    make(blobs, Wish(clusters=BLOBS + 1, seed=7))
    after = clusters_of_blobs(members(blobs))

    assert {blob: after[blob] for blob in before} == before
    assert after[BLOBS] not in before.values()
    assert clusters.find_cluster(blobs, before[3]).name == "Portraits"
    assert clusters.find_cluster(blobs, after[BLOBS]).name is None


def test_half_of_a_cluster_is_another_one(blobs: Connection) -> None:
    """Of two blobs that were one cluster and are two now, none keeps its number where neither has more than half."""
    make(blobs, Wish(clusters=2))
    before = set(members(blobs).values())
    make(blobs, Wish(clusters=BLOBS))
    after = members(blobs)

    sizes = {cluster: list(after.values()).count(cluster) for cluster in set(after.values())}
    assert len(sizes) == BLOBS
    assert before & set(sizes) == set()


def test_a_name_can_be_taken_away(blobs: Connection) -> None:
    """An empty name is none; an unknown number is said to be unknown."""
    make(blobs)
    number = clusters.list_clusters(blobs, "tiny")[0].cluster
    clusters.name(blobs, number, "Maps")
    clusters.name(blobs, number, "")

    assert clusters.find_cluster(blobs, number).name is None
    with pytest.raises(UnknownClusterError, match="no cluster has the number 999"):
        clusters.name(blobs, 999, "Maps")
    with pytest.raises(UnknownClusterError, match="clusters list"):
        clusters.find_cluster(blobs, 999)


def test_later_images_are_assigned(blobs: Connection) -> None:
    """An image that arrives after the clusters were made is in the right one, and is counted."""
    make(blobs)
    before = clusters_of_blobs(members(blobs))
    blobs.execute("update clusterings set seconds = 0")
    embed(blobs, make_blobs([2], [EACH]))
    settled = work_off(blobs)

    assert len(settled) == 1
    assert members(blobs)[f"2/{EACH:04}"] == before[2]
    assert clusters.find_cluster(blobs, before[2]).size == EACH + 1


def test_summaries_leave_time_for_work(blobs: Connection) -> None:
    """After a summary that took long, images are assigned at once, but sizes are counted later."""
    make(blobs)
    before = clusters_of_blobs(members(blobs))
    blobs.execute("update clusterings set seconds = 3600")
    embed(blobs, make_blobs([2], [EACH]))
    work_off(blobs)

    assert members(blobs)[f"2/{EACH:04}"] == before[2]
    assert clusters.find_cluster(blobs, before[2]).size == EACH


def test_the_old_clusters_are_shown_until_the_new_are_complete(blobs: Connection) -> None:
    """While a new run assigns, the views show the old one; then nothing of the old one is left but its numbers."""
    old = make(blobs)
    before = members(blobs)
    new = clusters.begin(blobs, clusters.plan(blobs, "tiny", Wish(clusters=BLOBS, seed=3)))

    assert members(blobs) == before
    assert kinds.settle(blobs) == []
    work_off(blobs)
    assert members(blobs) == before
    assert blobs.execute("select analysis, shown from clusterings").fetchall() == [(new.id, True)]
    assert blobs.execute("select distinct analysis from cluster_centres").fetchall() == [(new.id,)]
    assert blobs.execute(
        "select to_regclass(%s), to_regclass(%s) is not null",
        [f"clustered_images_{old.id}", f"clustered_images_{new.id}"],
    ).fetchone() == (None, True)


def test_a_run_that_was_given_up_leaves_nothing(blobs: Connection) -> None:
    """A clustering that was superseded before it was complete is never shown, and goes with the old one."""
    make(blobs)
    clusters.begin(blobs, clusters.plan(blobs, "tiny", Wish(clusters=3)))
    last = make(blobs, Wish(clusters=4))

    assert blobs.execute("select analysis from clusterings").fetchall() == [(last.id,)]
    assert len(set(members(blobs).values())) == 4


def test_an_old_clustering_that_is_read_is_deleted_later(blobs: Connection, database_url: str) -> None:
    """Who reads the old clusters does not hold up the new ones; what is left of the old goes with the next run."""
    old = make(blobs)
    with connect(database_url, application_name="reader") as reader, reader.transaction():
        reader.execute("select count(*) from cluster_members").fetchone()
        new = make(blobs, Wish(clusters=4))
        assert blobs.execute("select shown from clusterings where analysis = %s", [new.id]).fetchone() == (
            True,
        )
        assert blobs.execute("select shown from clusterings where analysis = %s", [old.id]).fetchone() == (
            False,
        )
    make(blobs, Wish(clusters=5))
    assert blobs.execute("select count(*) from clusterings").fetchone() == (1,)


def test_works_are_clusters_too(blobs: Connection) -> None:
    """Each work is in one cluster by the mean of its images, beside the clusters of images."""
    make(blobs)
    make(blobs, Wish(of="works", clusters=BLOBS))
    found = members(blobs, "works")

    assert len(found) == BLOBS * EACH // 4
    assert adjusted_rand_score([blob_of(w.replace("-", "/")) for w in found], list(found.values())) > 0.95
    assert len(members(blobs)) == BLOBS * EACH
    cluster = clusters.list_clusters(blobs, "tiny", "works")[0]
    assert cluster.size == EACH // 4
    assert cluster.words == [f"blob{'abcdefghijklmnop'[blob_of(cluster.exemplars[0].replace('-', '/'))]}"]


def test_a_work_follows_its_images(blobs: Connection) -> None:
    """A work is assigned anew when it gets images, wherever they stand; its distance is that of their mean."""
    make(blobs, Wish(of="works", clusters=BLOBS))
    before = members(blobs, "works")
    more = [Image(f"5/9{number:03}", f"http://localhost/9{number}.jpg", work="1-0") for number in range(12)]
    embed(blobs, more)
    work_off(blobs)
    after = members(blobs, "works")

    assert before["1-0"] == clusters_of_blobs(before)[1]
    assert after["1-0"] == clusters_of_blobs(after)[5]
    assert blobs.execute("select images from clustered_works where work = '1-0'").fetchone() == (16,)
    assert blobs.execute(
        """select abs(m.distance - as_distance((
            select avg(v.v::vector) from images i join vectors_tiny v on v.image_id = i.id where i.work = '1-0'
        ) <=> c.centre, 'halved'))
        from clustered_works m join cluster_centres c using (analysis, number) where m.work = '1-0'"""
    ).fetchone() == (pytest.approx(0, abs=1e-5),)


def test_a_work_over_several_chunks_is_done_once(blobs: Connection) -> None:
    """A work whose images lie in several chunks is one row, and later chunks have nothing left to do for it."""
    analysis = clusters.begin(blobs, clusters.plan(blobs, "tiny", Wish(of="works", clusters=2)))
    images = (chunk := start_chunk(blobs)) and chunk.images
    assert images
    assert chunk
    first = clusters.find(blobs, analysis, images[:2], lambda _: [])
    clusters.store(blobs, analysis, images[:2], first)
    second = clusters.find(blobs, analysis, images[2:4], lambda _: [])

    assert (first.items, first.images) == (["0-0"], [4])
    assert second.items == []
    clusters.store(blobs, analysis, images[2:4], second)


def test_an_earlier_mean_never_replaces_a_later_one(blobs: Connection) -> None:
    """What a slow worker found of a work is dropped when a quicker one has seen more of its images."""
    analysis = clusters.begin(blobs, clusters.plan(blobs, "tiny", Wish(of="works", clusters=2)))
    chunk = start_chunk(blobs)
    assert chunk
    slow = clusters.find(blobs, analysis, chunk.images[:1], lambda _: [])
    embed(blobs, [Image("5/9000", "http://localhost/9.jpg", work="0-0")])
    quick = clusters.find(blobs, analysis, chunk.images[:1], lambda _: [])
    clusters.store(blobs, analysis, chunk.images, quick)
    clusters.store(blobs, analysis, chunk.images, slow)

    assert blobs.execute("select images from clustered_works").fetchall() == [(5,)]


def test_an_image_that_changed_meanwhile_is_not_assigned(blobs: Connection) -> None:
    """A cluster that was found for an earlier vector is not stored: the image is looked at again."""
    analysis = clusters.begin(blobs, clusters.plan(blobs, "tiny", Wish(clusters=2)))
    chunk = start_chunk(blobs)
    assert chunk
    found = clusters.find(blobs, analysis, chunk.images[:2], lambda _: [])
    blobs.execute("update vectors_tiny set stored_at = now() where image_id = %s", [chunk.images[0].id])
    clusters.store(blobs, analysis, chunk.images[:2], found)

    assert blobs.execute("select image_id from clustered_images").fetchall() == [(chunk.images[1].id,)]


def test_interrupted_work_goes_on(blobs: Connection) -> None:
    """A chunk whose worker died is done by another one, the late one changes nothing, and the same wish goes on."""
    wish = Wish(clusters=BLOBS)
    analysis = clusters.begin(blobs, clusters.plan(blobs, "tiny", wish))
    late = start_chunk(blobs)
    assert late
    blobs.execute("update chunks set lease_until = now() - interval '1 second' where lease is not null")
    from lookalike.sweeping import sweep

    assert sweep(blobs).crashed == 1
    assert clusters.find_unfinished(blobs, "tiny", wish) == analysis
    assert work_off(blobs) == [analysis]
    with pytest.raises(LostLeaseError):
        work_on(blobs, late)
    assert len(members(blobs)) == BLOBS * EACH
    assert clusters.find_unfinished(blobs, "tiny", wish) is None


def test_a_sample_is_bounded_and_repeatable(blobs: Connection) -> None:
    """A sample has no more vectors than asked for, each once, the same for the same seed, and overlaps when the
    archive has grown."""
    from lookalike.cluster_samples import draw, find_table

    table = find_table(blobs, "tiny")
    first = draw(blobs, table, "images", 100, seed=1)
    works = draw(blobs, table, "works", 30, seed=1)
    embed(blobs, make_blobs([8], range(EACH)))

    assert len(set(first)) == 100
    assert len(set(works)) == 30
    assert len(set(first) & set(draw(blobs, table, "images", 100, seed=1))) > 80
    assert set(first) != set(draw(blobs, table, "images", 100, seed=2))
    assert len(draw(blobs, table, "images", 1000, seed=1)) == (BLOBS + 1) * EACH


@pytest.mark.parametrize("of", ["images", "works"])
def test_hdbscan_clusters_a_sample(blobs: Connection, of: str) -> None:
    """HDBSCAN finds the blobs and their number, beside the clusters of k-means, and later images are in none."""
    make(blobs)
    wish = Wish(of=of, method="hdbscan", sample=5000)
    analysis = clusters.begin(blobs, clusters.plan(blobs, "tiny", wish))
    assert kinds.settle(blobs) == [analysis]
    found = members(blobs, of, "hdbscan")
    embed(blobs, make_blobs([2], [EACH]))
    work_off(blobs)

    assert len(found) > 0.9 * BLOBS * EACH / (1 if of == "images" else 4)
    assert len(set(found.values())) == BLOBS
    assert adjusted_rand_score([blob_of(key.replace("-", "/")) for key in found], list(found.values())) > 0.95
    assert members(blobs, of, "hdbscan") == found
    assert len(members(blobs)) == BLOBS * EACH + 1


def test_impossible_wishes_are_refused(blobs: Connection) -> None:
    """Fewer vectors than clusters, an encoder that is not there, and numbers that HDBSCAN finds by itself."""
    with pytest.raises(ConfigurationError, match="500 clusters cannot be made of 320 vectors"):
        clusters.plan(blobs, "tiny", Wish(clusters=500))
    with pytest.raises(UnknownEncoderError, match="no vectors of 'other'"):
        clusters.plan(blobs, "other", Wish())
    with pytest.raises(ConfigurationError, match="leave it out"):
        clusters.plan(blobs, "tiny", Wish(method="hdbscan", clusters=3))


def test_an_empty_archive_has_no_clusters(connection: Connection) -> None:
    """Without vectors nothing is begun."""
    archive.add_encoder(connection, TINY, chunk_size=10)
    with pytest.raises(ConfigurationError, match="of 0 vectors"):
        clusters.plan(connection, "tiny", Wish())


def test_analysts_read_clusters(blobs: Connection) -> None:
    """The role analyst reads the views and tables, and writes none."""
    make(blobs)
    with blobs.transaction(force_rollback=True):
        blobs.execute("set local role analyst")
        assert blobs.execute("select sum(size) from clusters").fetchone() == (BLOBS * EACH,)
        assert blobs.execute("select count(*) from cluster_members").fetchone() == (BLOBS * EACH,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            blobs.execute("update cluster_identities set name = 'x'")


def test_everything_of_clusters_explains_itself(connection: Connection) -> None:
    """Each table and view of clusters, and each of their columns, has a comment."""
    rows = connection.execute(
        """select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum >= 0
           or a.attrelid = c.oid and a.attname = 'tableoid'
        where c.relnamespace = 'lookalike'::regnamespace and c.relname ~ '^cluster' and c.relkind in ('r', 'p', 'v')
          and not a.attisdropped and a.attnum > 0
          and (col_description(c.oid, a.attnum) is null or obj_description(c.oid, 'pg_class') is null)"""
    ).fetchall()
    assert rows == []


def run_command(database_url: str, home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    # Kept small: the command must not read settings of whoever runs the tests.
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")},
        "DATABASE_URL": database_url,
        "LOOKALIKE_HOME": str(home),
    }
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_makes_lists_shows_and_names(
    blobs: Connection, database_url: str, broker_url: str, settings_home: Path
) -> None:
    """`clusters make --enqueue --json`, then list, show and name speak of the same clusters."""
    made = run_command(
        database_url, settings_home, "clusters", "make", "--clusters", str(BLOBS), "--enqueue", "--json"
    )
    assert made.returncode == 0, made.stderr
    answer = json.loads(made.stdout)
    assert (answer["settled"], answer["sampled"], answer["of"]) == (False, BLOBS * EACH, "images")
    work_off(blobs)

    listed = json.loads(run_command(database_url, settings_home, "clusters", "list", "--json").stdout)
    first = listed["clusters"][0]
    assert len(listed["clusters"]) == BLOBS
    named = run_command(database_url, settings_home, "clusters", "name", str(first["cluster"]), "Maps")
    assert named.returncode == 0, named.stderr
    shown = json.loads(
        run_command(database_url, settings_home, "clusters", "show", str(first["cluster"]), "--json").stdout
    )
    assert shown["cluster"]["name"] == "Maps"
    assert [member["image"] for member in shown["members"][:5]] == first["exemplars"]


@pytest.mark.slow
def test_the_command_looks_at_a_sample(
    blobs: Connection, database_url: str, broker_url: str, settings_home: Path
) -> None:
    """`clusters make --method hdbscan` needs no worker; a wrong wish is one line and exit code 1."""
    made = run_command(
        database_url, settings_home, "clusters", "make", "--method", "hdbscan", "--of", "works", "--json"
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["settled"] is True
    assert len(json.loads(made.stdout)["clusters"]) == BLOBS

    refused = run_command(database_url, settings_home, "clusters", "make", "--clusters", "500")
    assert refused.returncode == 1
    assert "500 clusters cannot be made of 320 vectors" in refused.stderr
