"""The map: look-alikes lie together, it is replaced as a whole, and a browser reads it in one piece."""

import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.testclient import TestClient

from explorer.app import create_app
from lookalike import archive, deletion, ledger, maps, projection
from lookalike.database import Connection, connect
from lookalike.errors import ConfigurationError
from lookalike.images import Removal
from lookalike.ledger import RetryPolicy
from lookalike.settings import Settings
from lookalike.vectors import Vectors
from tests.factories import TINY, checksum, make_images, unit_vector

GROUPS = 6
IMAGES = 180


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """180 images whose vectors lie around six places."""
    archive.add_encoder(connection, TINY, chunk_size=IMAGES)
    ledger.register(connection, make_images(IMAGES), chunk_size=IMAGES)
    (claim,) = ledger.lease(connection, "tiny", "backfill", 10, 60)
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    calibration = archive.load_calibration(connection, "tiny")
    around = np.array([unit_vector(f"group {n % GROUPS}", 16) for n in range(IMAGES)])
    vectors = around + 0.1 * np.array([unit_vector(image.key, 16) for image in chunk.images])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    stored = Vectors(
        np.array([image.id for image in chunk.images], np.int64),
        np.ones(IMAGES, np.int32),
        np.array([checksum(image.key) for image in chunk.images], np.uint8),
        calibration.codes(vectors),
        vectors,
    )
    ledger.finish(connection, chunk, stored, [], RetryPolicy(1, 1))
    connection.execute("update images set average_colour = '#c83c32', aspect_ratio = 1.5")
    return connection


def groups(connection: Connection, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The places (n, 2) of a map's points and the group of each."""
    found = maps.points(connection, number)
    keys = dict(connection.execute("select id, key from images").fetchall())
    places = np.array([(point.x, point.y) for point in found]) / 65535
    return places, np.array([int(str(keys[point.image]).rpartition("/")[2]) % GROUPS for point in found])


def test_look_alikes_lie_together(archived: Connection) -> None:
    """The nearest on the map are of the same group, and the map fills its square."""
    made = maps.make(archived, "tiny", IMAGES)
    places, group = groups(archived, made.id)

    away = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(away, 9)
    assert (group[away.argmin(axis=1)] == group).mean() > 0.95
    assert (made.images, made.method, len(places)) == (IMAGES, "tsne", IMAGES)
    span = places.max(axis=0) - places.min(axis=0)
    assert span.max() > 0.999
    assert places.min() >= 0
    assert places.max() <= 1


def test_it_is_made_anew_as_a_whole(archived: Connection, database_url: str) -> None:
    """One map for each encoder: whoever reads meanwhile sees the one of before, also when two make it at once."""
    first = maps.make(archived, "tiny", 50)
    with connect(database_url, application_name="test") as other:
        threads = [
            threading.Thread(target=maps.make, args=(one, "tiny", 60, seed))
            for seed, one in enumerate((archived, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    found = maps.find(archived, "tiny")
    assert found is not None
    assert found.id > first.id
    assert archived.execute("select count(*), count(distinct map) from map_points").fetchone() == (60, 1)


def test_the_same_seed_draws_the_same_map(archived: Connection) -> None:
    """A map that is made again of the same vectors is the same."""
    one, _ = groups(archived, maps.make(archived, "tiny", 40, seed=3).id)
    other, _ = groups(archived, maps.make(archived, "tiny", 40, seed=3).id)
    assert (one == other).all()


def test_what_is_deleted_or_unwanted_leaves_it(archived: Connection) -> None:
    """At once, from points, squares and rectangles; an unwanted image that is fine after all comes back."""
    made = maps.make(archived, "tiny", IMAGES)
    deletion.remove(archived, Removal(key="image/00000"))
    archived.execute(
        "insert into unwanted_sets (name, encoder, threshold, report) values ('x', 'tiny', 0.1, '{}');"
        "insert into unwanted_images (set_id, image_id, example, distance, state, decided_by, decided_at, revision)"
        " select s.id, i.id, false, 0, 'accepted', 'ann', now(), 1 from unwanted_sets s, images i"
        " where i.key = 'image/00001'"
    )
    assert len(maps.points(archived, made.id)) == IMAGES - 2
    assert len(maps.region(archived, made.id, (0, 0, 1, 1), 1000)) == IMAGES - 2
    assert sum(square["images"] for square in maps.regions(archived, made.id, 6)) == IMAGES - 2
    archived.execute("update unwanted_images set state = 'fine'")
    assert len(maps.points(archived, made.id)) == IMAGES - 1


def test_an_empty_archive_has_nothing_to_lay_out(connection: Connection) -> None:
    """It says so, and the map of before stays."""
    archive.add_encoder(connection, TINY, chunk_size=8)
    with pytest.raises(ConfigurationError, match="no vectors of tiny"):
        maps.make(connection, "tiny")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 11, 12, 13, 40])
def test_few_images_are_laid_out_as_well(count: int) -> None:
    """However few, or all alike, each has a place in the square."""
    vectors = np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)
    for one in (vectors, np.ones_like(vectors)):
        places, _ = projection.lay_out(one, 0)
        assert places.shape == (count, 2)
        assert np.isfinite(places).all()
        assert 0 <= places.min() <= places.max() <= 1


# Through the explorer ----------------------------------------------------------------------------------------------


@pytest.fixture
def client(archived: Connection, database_url: str) -> Iterator[TestClient]:
    """An app over the archive, which has no map yet."""
    with TestClient(
        create_app(Settings(_env_file=None), database_url), base_url="http://localhost"
    ) as opened:
        yield opened


def test_the_points_come_in_one_piece(client: TestClient, archived: Connection) -> None:
    """Binary, with an ETag that gets 304; numbers, places and colours are those of the map."""
    assert client.get("/api/v1/map/points").status_code == 404
    made = maps.make(archived, "tiny", IMAGES)
    got = client.get("/api/v1/map/points")
    magic, version, count, _ = struct.unpack_from("<4sIII", got.content)
    assert (magic, version, count) == (b"LKMP", 1, IMAGES)
    assert len(got.content) == 16 + 15 * IMAGES
    images = np.frombuffer(got.content, "<f8", count, 16)
    xs = np.frombuffer(got.content, "<u2", count, 16 + 8 * count)
    points = maps.points(archived, made.id)
    assert images.tolist() == [point.image for point in points]
    assert xs.tolist() == [point.x for point in points]
    assert got.content[-3:] == bytes.fromhex("c83c32")
    again = client.get("/api/v1/map/points", headers={"If-None-Match": got.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_images_come_as_they_are_wanted(client: TestClient, archived: Connection) -> None:
    """By numbers or by a rectangle; nonsense is refused, and so is a map that is not there."""
    made = maps.make(archived, "tiny", IMAGES)
    assert client.get("/map", headers={"Accept": "application/json"}).json()["map"] == made.id
    first = maps.points(archived, made.id)[0]
    (item,) = client.get(f"/api/v1/map/images?ids={first.image},999999").json()["items"]
    assert (item["id"], item["key"]) == (first.image, "image/00000")
    assert item["x"] == pytest.approx(first.x / 65535, abs=1e-4)
    box = {"left": item["x"] - 1e-6, "right": 1, "top": 0, "bottom": 1}
    assert len(client.get("/api/v1/map/region", params={**box, "limit": 5}).json()["items"]) <= 5
    for wrong in ("ids=", "ids=1;2", "ids=-1", "ids=" + "9" * 30, "ids=" + ",".join(["1"] * 1001)):
        assert client.get(f"/api/v1/map/images?{wrong}").status_code == 422
    assert client.get("/api/v1/map?encoder=nobody").status_code == 404


def test_the_page_shows_the_map_in_squares(client: TestClient, archived: Connection) -> None:
    """Without script, each square is a link to what lies in it; without a map the page says how it is made."""
    assert "lookalike map make" in client.get("/map", headers={"Accept": "text/html"}).text
    maps.make(archived, "tiny", IMAGES)
    page = client.get("/map", headers={"Accept": "text/html"}).text
    number = page.split("/map?square=")[1].split('"')[0]
    inside = client.get(f"/map?square={number}", headers={"Accept": "text/html"}).text
    assert inside.count('href="/images/image/') >= 1
    assert client.get("/map?square=36", headers={"Accept": "text/html"}).status_code == 422


def test_those_who_wait_for_the_points_hold_no_connection(
    archived: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one packs the map for many, the connections are there for all others."""
    maps.make(archived, "tiny")
    packing, go_on, pack = threading.Event(), threading.Event(), maps.pack

    def slowly(points: Sequence[maps.Point]) -> bytes:
        packing.set()
        assert go_on.wait(20)
        return pack(points)

    monkeypatch.setattr(maps, "pack", slowly)
    app = create_app(Settings(_env_file=None, explorer_rate=0, explorer_connections=2), database_url)
    with TestClient(app) as client, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.get, "/api/v1/map/points") for _ in range(4)]
        assert packing.wait(10)
        time.sleep(0.3)
        assert client.get("/api/v1/random").status_code == 200
        go_on.set()
        assert [one.result().status_code for one in asked] == [200] * 4
