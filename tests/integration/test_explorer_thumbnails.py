"""The route that shows an image: what caches are told, what stands for a picture, and what is never given away."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from explorer.app import create_app
from explorer.placeholders import draw
from explorer.thumbnails import addresses
from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.images import Image
from lookalike.settings import Settings
from lookalike.thumbnail_places import Folder
from lookalike.thumbnails import Cache, Thumbnail, open_cache
from tests.factories import TINY
from tests.servers import watched_server

JPEG = b"\xff\xd8 a thumbnail"
KEYS = ("scans/a b.tif", "dots/../c", "e//f", "web.jpg", "closed.tif", "bare.tif")


@pytest.fixture
def client(connection: Connection, database_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """An app over images of which two have a thumbnail."""
    archive.add_encoder(connection, TINY, chunk_size=8)
    secret = tmp_path / "secret.tif"
    secret.write_bytes(b"II*\0 nobody's business")
    urls = {key: secret.as_uri() for key in KEYS} | {"web.jpg": "https://example.org/web.jpg"}
    images = [Image(key, urls[key], access="closed" if key == "closed.tif" else None) for key in KEYS]
    ledger.register(connection, images)
    connection.execute(
        "update images set aspect_ratio = 2, palette = '{#102030,#c83c32}', palette_shares = '{0.75,0.25}'"
    )
    ids = dict(connection.execute("select key, id from images").fetchall())
    made = [Thumbnail(int(str(ids[key])), 1, JPEG) for key in KEYS[:3]]
    assert Cache(None, local=False).store(connection, made) == 3
    app = create_app(Settings(_env_file=None, allow_networks="private"), database_url)
    with TestClient(app, base_url="http://localhost", follow_redirects=False) as opened:
        yield opened


@pytest.mark.parametrize("key", KEYS[:3])
def test_a_thumbnail_is_kept_for_ever_by_its_version(client: TestClient, key: str) -> None:
    """The address that names the revision is immutable; the bare one is asked for again, with an ETag, and gets 304."""
    address = addresses("file:///x", "file", key, kept=1).small
    assert address is not None
    got = client.get(address)
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, JPEG, "image/jpeg")
    assert got.headers["cache-control"] == "public, max-age=31536000, immutable"

    bare = client.get(address.partition("?")[0])
    assert bare.content == JPEG
    assert bare.headers["cache-control"] == "public, max-age=300"
    again = client.get(address, headers={"If-None-Match": bare.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    # A later revision is not what the cache was told to keep.
    assert "immutable" not in client.get(address.replace("v=1", "v=2")).headers["cache-control"]


def test_without_one_the_colours_stand_for_the_picture(client: TestClient) -> None:
    """404 with an SVG in the shape and the colours of the image, not kept for long; of the file not a byte."""
    got = client.get("/thumbnails/bare.tif")
    assert (got.status_code, got.headers["content-type"]) == (404, "image/svg+xml")
    assert got.headers["cache-control"] == "public, max-age=30"
    assert 'width="400" height="200"' in got.text
    assert got.text.index("#102030") < got.text.index("#c83c32")
    assert "business" not in got.text


def test_nobody_is_told_what_is_there(client: TestClient) -> None:
    """An unknown key gets the grey of no image; a closed image its colours and nothing else."""
    for key in ("nobody", "../../etc/passwd", "%00", "x" * 5000):
        assert client.get(f"/thumbnails/{key}").status_code == 404
    assert client.get("/thumbnails/closed.tif").status_code == 404


def test_an_image_on_the_web_is_shown_from_there(client: TestClient, connection: Connection) -> None:
    """Without a thumbnail, the route leads to the file; what needs a signature stays where it is."""
    got = client.get("/thumbnails/web.jpg")
    assert (got.status_code, got.headers["location"]) == (302, "https://example.org/web.jpg")
    connection.execute(
        "update images set url = 'https://u:secret@example.org/web.jpg?sig=abc' where key = 'web.jpg'"
    )
    assert "secret" not in str(client.get("/thumbnails/web.jpg").headers)
    assert "abc" not in str(client.get("/thumbnails/web.jpg").headers)
    address = "https://example.org/show?page=3&file=a.tif"
    connection.execute("update images set url = %s where key = 'web.jpg'", [address])
    assert client.get("/thumbnails/web.jpg").headers["location"] == address


def test_a_service_of_listed_sizes_is_asked_once(client: TestClient, connection: Connection) -> None:
    """Level 0: the route looks at info.json, leads to a size that exists, and remembers it."""
    info = {
        "@context": "http://iiif.io/api/image/2/context.json",
        "profile": ["http://iiif.io/api/image/2/level0.json"],
        "width": 4000,
        "height": 3000,
        "sizes": [{"width": 100, "height": 75}, {"width": 400, "height": 300}, {"width": 800, "height": 600}],
    }
    with watched_server(lambda _: (200, json.dumps(info).encode(), {})) as server:
        ledger.register(connection, [Image("level0", f"{server.url}/iiif/1", "iiif")])
        for _ in range(3):
            got = client.get("/thumbnails/level0")
            assert got.headers["location"] == f"{server.url}/iiif/1/full/400,300/0/default.jpg"
        assert [path for _, path, _ in server.asked] == ["/iiif/1/info.json"]


def test_a_picture_is_seen_closer_by_the_tiles_of_its_service(
    client: TestClient, connection: Connection
) -> None:
    """As its info.json has them, asked for once; a file, an unknown key and a service that is away have none."""
    info = {"type": "ImageService3", "profile": "level2", "width": 4000, "height": 3000}
    with watched_server(lambda _: (200, json.dumps(info).encode(), {})) as server:
        ledger.register(connection, [Image("tiled", f"{server.url}/iiif/1", "iiif")])
        for _ in range(2):
            found = client.get("/zoom", params={"key": "tiled"}).json()
            assert (found["base"], found["width"], found["factors"]) == (
                f"{server.url}/iiif/1",
                4000,
                [1, 2, 4, 8],
            )
        assert [path for _, path, _ in server.asked] == ["/iiif/1/info.json"]
        # What may not be shown is not told either.
        connection.execute(
            "update images set url = replace(url, 'http://', 'http://u:secret@') where key = 'tiled'"
        )
        assert client.get("/zoom", params={"key": "tiled"}).json() == {}
    for key in ("web.jpg", "nobody", "no\0body"):
        got = client.get("/zoom", params={"key": key})
        assert (got.status_code, got.json()) == (200, {})


def test_a_service_that_hangs_keeps_nobody_else_waiting(client: TestClient, connection: Connection) -> None:
    """A wall of pictures whose host is away leaves room for pages, searches and supervisors."""
    ledger.register(connection, [Image("hangs", "https://iiif.example.org/1", "iiif")])
    back = threading.Event()

    class Hanging:
        def small(self, *_: object) -> None:
            back.wait(20)

    client.app.state.services = Hanging()
    with ThreadPoolExecutor(60) as pool:
        for _ in range(60):
            pool.submit(client.get, "/thumbnails/hangs")
        time.sleep(1)
        try:
            assert status_in_time(client, "/readyz") == 200
        finally:
            back.set()


def status_in_time(client: TestClient, path: str) -> int:
    """The status of an answer that must not take longer than three seconds."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(client.get, path).result(3).status_code
    finally:
        pool.shutdown(wait=False)


def test_services_are_asked_through_the_guard(
    client: TestClient, connection: Connection, database_url: str
) -> None:
    """An address from outside leads into no private network: the colours are shown."""
    with watched_server(lambda _: (200, b"{}", {})) as server:
        ledger.register(connection, [Image("inside", f"{server.url}/iiif/1", "iiif", outside=True)])
        with TestClient(create_app(Settings(_env_file=None), database_url)) as strict:
            assert strict.get("/thumbnails/inside", follow_redirects=False).status_code == 404
            assert strict.get("/zoom", params={"key": "inside"}).json() == {}
        assert server.asked == []


def test_files_of_a_folder_are_shown(connection: Connection, database_url: str, tmp_path: Path) -> None:
    """An explorer with the workers' setting reads the folder; one without it shows colours."""
    archive.add_encoder(connection, TINY, chunk_size=8)
    ledger.register(connection, [Image("a.tif", "/a.tif")])
    (row,) = connection.execute("select id from images").fetchall()
    place = Folder(tmp_path)
    Cache(place, local=False).store(connection, [Thumbnail(int(str(row[0])), 1, JPEG)])
    with_it = Settings(_env_file=None, thumbnails=str(tmp_path))
    assert open_cache(with_it) is not None
    with TestClient(create_app(with_it, database_url)) as client:
        assert client.get("/thumbnails/a.tif").content == JPEG
        for path in tmp_path.rglob("*.jpg"):
            path.unlink()
        assert client.get("/thumbnails/a.tif").status_code == 404
    with TestClient(create_app(Settings(_env_file=None), database_url)) as client:
        assert client.get("/thumbnails/a.tif").status_code == 404


def test_records_say_where_pictures_are(client: TestClient) -> None:
    """The API names the kept thumbnail with its version, an image service's largest within a square, or the file."""
    kept = client.get("/api/v1/images/scans%2Fa%20b.tif").json()["thumbnail"]
    assert kept == {"small": "/thumbnails/scans/a%20b.tif?v=1", "large": "/thumbnails/scans/a%20b.tif?v=1"}
    web = client.get("/api/v1/images/web.jpg").json()["thumbnail"]
    assert web["small"] == "https://example.org/web.jpg"
    service = addresses("https://iiif.example.org/1", "iiif", "k")
    assert service.small == "https://iiif.example.org/1/full/!400,400/0/default.jpg"


def test_placeholders_hold_nothing_but_colours() -> None:
    """Whatever stands in the palette, and however odd the shape, it is a small picture."""
    drawn = draw(1e9, ['"/><script>', "#aabbcc"], [0.5, 0.5])
    assert "script" not in drawn
    assert "#aabbcc" in drawn
    assert 'height="20"' in drawn
