"""Thumbnails: kept by workers where the setting says, never at the cost of an image, and gone with what they show."""

import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError
from numpy.typing import NDArray
from PIL import Image as Pictures

from cli.demo import find_photographs
from lookalike import archive, books, deletion, ledger, thumbnails
from lookalike.database import Connection, make_pool
from lookalike.encoders import EncoderSpec, find_encoder
from lookalike.errors import ConfigurationError
from lookalike.images import Image, Removal
from lookalike.settings import Settings
from lookalike.thumbnail_places import Bucket, Folder
from lookalike.thumbnails import Cache, Thumbnail, open_cache
from orchestrator.upkeep import sweep_thumbnails
from tests.conftest import embedded_settings
from tests.factories import TINY
from tests.servers import aws_server, http_server, watched_server
from workers.embedder import Embedder
from workers.fetch import Fetcher
from workers.keeping import Keeper
from workers.network import Encoded
from workers.pipeline import Pipeline
from workers.thumbnail import missed
from workers.thumbnail_making import Maker

SPEC: EncoderSpec = replace(TINY, preprocessing=find_encoder("efficientnet-lite0").preprocessing)
BUCKET = "thumbnails"


class Still:
    """In place of a network: the same vector of everything."""

    preprocessing = SPEC.preprocessing
    batch_size = 4
    passes = 1
    device = "cpu"

    def encode(self, batch: NDArray[np.uint8]) -> Encoded:
        vectors = np.zeros((len(batch), 16), np.float32)
        vectors[:, 0] = 1
        return Encoded(vectors, None)


class Worker:
    """A worker with real stages on a real ledger."""

    def __init__(self, settings: Settings, connection: Connection, database_url: str) -> None:
        encoder: Any = Still()
        self._connection = connection
        self._pool = make_pool(database_url, application_name="worker", max_size=4)
        self._pool.open()
        pipeline = Pipeline(settings, Fetcher(settings), encoder)
        calibration = archive.load_calibration(connection, "tiny")
        keeper = Keeper(open_cache(settings), self._pool)
        turned: Any = None
        self._embedder = Embedder(settings, "w", self._pool, pipeline, calibration, turned, keeper)

    def work(self) -> None:
        """Does all that is pending."""
        for lane in ledger.LANES[:3]:
            for claim in ledger.lease(self._connection, "tiny", lane, 100, 60):
                self._embedder.embed(claim.chunk, claim.lease)

    def close(self) -> None:
        self._pool.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """On, in the database."""
    changed = {"encoder": "tiny", "thumbnails": "database", "decode_threads": 1, "fetch_threads": 4}
    return embedded_settings(tmp_path).model_copy(update=changed)


@pytest.fixture
def folder(connection: Connection, tmp_path: Path) -> Path:
    """Four files, registered: an encoder waits for them."""
    archive.add_encoder(connection, SPEC, chunk_size=8)
    photograph = Pictures.open(find_photographs()[0]).convert("RGB")
    home = tmp_path / "scans"
    home.mkdir()
    photograph.save(home / "rgb.jpg")
    photograph.convert("CMYK").resize((600, 300)).save(home / "cmyk.jpg")
    photograph.quantize(32).save(home / "palette.png", transparency=0)
    Pictures.fromarray(np.asarray(photograph.convert("L")).astype(np.uint16) * 257).save(home / "deep.tif")
    register(connection, home)
    return home


def register(connection: Connection, home: Path, **changed: Any) -> None:
    images = [
        Image(path.name, str(path), content=str(path.stat().st_mtime_ns)) for path in sorted(home.iterdir())
    ]
    ledger.register(connection, [replace(image, **changed) for image in images], chunk_size=8)


def work(settings: Settings, connection: Connection, database_url: str) -> None:
    worker = Worker(settings, connection, database_url)
    worker.work()
    worker.close()


def kept(connection: Connection) -> dict[str, int]:
    """The revision of each thumbnail, by the key of its image."""
    rows = connection.execute("select i.key, t.revision from thumbnails t join images i on i.id = t.image_id")
    return {str(key): int(str(revision)) for key, revision in rows}


def read(cache: Cache | None, connection: Connection, key: str) -> Pictures.Image | None:
    shown = thumbnails.find(connection, key)
    assert shown is not None
    jpeg = (cache or Cache(None, local=False)).read(shown)
    return None if jpeg is None else Pictures.open(io.BytesIO(jpeg))


FILES = ("cmyk.jpg", "deep.tif", "palette.png", "rgb.jpg")


def test_a_worker_keeps_them(
    settings: Settings, connection: Connection, database_url: str, folder: Path
) -> None:
    """Real files of odd modes through the real stages: each has a picture of its own shape in the database."""
    work(settings, connection, database_url)

    assert kept(connection) == dict.fromkeys(FILES, 1)
    wide = read(None, connection, "cmyk.jpg")
    assert wide is not None
    assert wide.size == (320, 160)
    assert thumbnails.count(connection) == {"database": 4}
    assert books.count_books(connection, "tiny") == books.Books(4, 4, 0, 0, 0)


@pytest.mark.parametrize("off", [None, "off"])
def test_off_is_off(
    settings: Settings, connection: Connection, database_url: str, folder: Path, off: str | None
) -> None:
    """Without the setting nothing is made or stored, and all images are embedded."""
    work(settings.model_copy(update={"thumbnails": off}), connection, database_url)

    assert kept(connection) == {}
    assert books.count_books(connection, "tiny").done == 4


def test_only_files_that_no_service_shows(
    settings: Settings, connection: Connection, database_url: str, folder: Path
) -> None:
    """`local` leaves out what lies on the web, and none is made of an image service's pictures, or of closed ones."""
    with http_server({"/a.jpg": (folder / "rgb.jpg").read_bytes()}) as address:
        ledger.register(connection, [Image("web", f"{address}/a.jpg")], chunk_size=8)
        ledger.register(connection, [Image("service", f"{address}/iiif", "iiif")], chunk_size=8)
        closed = Image("closed", str(folder / "rgb.jpg"), access="Closed until 2040")
        ledger.register(connection, [closed], chunk_size=8)
        work(settings.model_copy(update={"thumbnails": "local"}), connection, database_url)
        assert kept(connection) == dict.fromkeys(FILES, 1)

        everything = open_cache(settings)
        assert everything is not None
        assert [image.key for image in everything.lacking(connection, 0, 10)] == ["web"]
    assert books.count_books(connection, "tiny").done == 6


def test_a_new_content_replaces_them(
    settings: Settings, connection: Connection, database_url: str, folder: Path
) -> None:
    """The thumbnail follows the revision; one of an earlier revision that comes late is not stored."""
    work(settings, connection, database_url)
    Pictures.new("RGB", (200, 100), "red").save(folder / "rgb.jpg")
    register(connection, folder)
    work(settings, connection, database_url)

    changed = read(None, connection, "rgb.jpg")
    assert changed is not None
    assert changed.size == (200, 100)
    assert kept(connection)["rgb.jpg"] == 2
    shown = thumbnails.find(connection, "rgb.jpg")
    assert shown is not None
    assert Cache(None, local=False).store(connection, [Thumbnail(shown.id, 1, b"late")]) == 0
    assert kept(connection)["rgb.jpg"] == 2


def test_a_second_encoder_makes_none_again(
    settings: Settings, connection: Connection, database_url: str, folder: Path
) -> None:
    """Images that have one are not asked for: it costs nothing then."""
    work(settings, connection, database_url)
    cache = open_cache(settings)
    assert cache is not None
    images = [ledger.ChunkImage(n, f"{n}", "/x", "file", 1) for n in range(1, 9)]
    assert cache.wanted(connection, images) == frozenset()


def test_they_go_with_their_image(
    settings: Settings, connection: Connection, database_url: str, folder: Path
) -> None:
    """A deletion takes the thumbnail; closing an image does, and opening it again does not bring it back by itself."""
    work(settings, connection, database_url)
    deletion.remove(connection, Removal(key="rgb.jpg"))
    register(connection, folder / ".." / "scans", access="open")
    assert set(kept(connection)) == {"cmyk.jpg", "deep.tif", "palette.png"}

    ledger.register(connection, [Image("deep.tif", str(folder / "deep.tif"), access="restricted")])
    assert set(kept(connection)) == {"cmyk.jpg", "palette.png"}
    shown = thumbnails.find(connection, "deep.tif")
    assert shown is not None
    assert not shown.open
    late = Thumbnail(shown.id, 1, b"late")
    assert Cache(None, local=False).store(connection, [late]) == 0


def test_an_image_that_is_being_closed_is_waited_for(
    settings: Settings, connection: Connection, database_url: str, folder: Path
) -> None:
    """A worker that stores a thumbnail while somebody closes its image stores nothing in the end."""
    work(settings, connection, database_url)
    shown = thumbnails.find(connection, "rgb.jpg")
    assert shown is not None
    connection.execute("delete from thumbnails")
    stored: list[int] = []
    with make_pool(database_url, application_name="test", max_size=2, min_size=2) as pool:

        def store() -> None:
            with pool.connection() as own:
                stored.append(Cache(None, local=False).store(own, [Thumbnail(shown.id, 1, b"jpeg")]))

        thread = threading.Thread(target=store)
        with connection.transaction():
            connection.execute("update images set access = 'closed' where key = 'rgb.jpg'")
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
        thread.join(10)
    assert stored == [0]


# Outside of the database ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A bucket of moto's, and boto3 set up for it."""
    with aws_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_files_are_kept_elsewhere_and_go_with_their_image(
    kind: str,
    settings: Settings,
    connection: Connection,
    database_url: str,
    folder: Path,
    tmp_path: Path,
    bucket: Any,
) -> None:
    """In a folder or bucket: written under names of their own, replaced, deleted with the image; nothing is left."""
    address = f"s3://{BUCKET}/small/" if kind == "bucket" else str(tmp_path / "small")
    settings = settings.model_copy(update={"thumbnails": address})

    def names() -> list[str]:
        if kind == "bucket":
            return [one["Key"] for one in bucket.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
        return [str(path) for path in (tmp_path / "small").rglob("*.jpg")]

    cache = open_cache(settings)
    work(settings, connection, database_url)
    assert len(names()) == 4
    picture = read(cache, connection, "cmyk.jpg")
    assert picture is not None
    assert picture.size == (320, 160)
    assert read(None, connection, "cmyk.jpg") is None  # a process that has not this place
    assert connection.execute("select count(*) from thumbnail_leftovers").fetchone() == (0,)

    Pictures.new("RGB", (200, 100), "red").save(folder / "rgb.jpg")
    register(connection, folder)
    work(settings, connection, database_url)
    assert len(names()) == 5
    sweep_thumbnails(cache, connection)
    assert len(names()) == 4
    deletion.remove(connection, Removal(key="deep.tif"))
    assert (
        sum(
            thumbnails.remove(connection, f"s3://{BUCKET}/small" if kind == "bucket" else f"file://{address}")
        )
        == 3
    )
    sweep_thumbnails(cache, connection)
    assert names() == []
    assert connection.execute("select count(*) from thumbnail_leftovers").fetchone() == (0,)


def test_a_file_that_was_written_for_nothing_is_found(
    connection: Connection, folder: Path, tmp_path: Path
) -> None:
    """A worker that dies between the file and the row leaves a note, and the file is deleted when it is due."""
    place = Folder(tmp_path / "small")
    cache = Cache(place, local=False)
    assert cache.store(connection, [Thumbnail(4711, 1, b"jpeg")]) == 0
    assert cache.sweep(connection) == 0  # it may be about to be stored
    assert len(list((tmp_path / "small").rglob("*.jpg"))) == 1
    connection.execute("update thumbnail_leftovers set due_at = now()")
    assert cache.sweep(connection) == 1
    assert list((tmp_path / "small").rglob("*.jpg")) == []


def test_nothing_but_thumbnails_is_read_or_deleted(
    connection: Connection, folder: Path, tmp_path: Path
) -> None:
    """A row that names another file leads nowhere, whoever wrote it."""
    (tmp_path / "small").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    place = Folder(tmp_path / "small")
    cache = Cache(place, local=False)
    connection.execute(
        "insert into thumbnails (image_id, revision, place, name) select id, 1, %s, '../secret.jpg' from images"
        " where key = 'rgb.jpg'",
        [place.address],
    )
    shown = thumbnails.find(connection, "rgb.jpg")
    assert shown is not None
    assert cache.read(shown) is None
    connection.execute("delete from thumbnails")
    assert cache.sweep(connection) == 1
    assert (tmp_path / "secret.jpg").read_bytes() == b"secret"


def test_a_place_that_is_away_costs_no_image(
    settings: Settings,
    connection: Connection,
    database_url: str,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A folder that cannot be written to: logged, counted, and everything is embedded. Later it is made good."""
    (tmp_path / "taken").write_text("a file")
    before = missed.count
    work(
        settings.model_copy(update={"thumbnails": str(tmp_path / "taken" / "small")}),
        connection,
        database_url,
    )

    assert books.count_books(connection, "tiny") == books.Books(4, 4, 0, 0, 0)
    assert missed.count == before + 4
    assert "4 thumbnails are not kept" in caplog.text

    cache = Cache(None, local=False)
    assert cache.count_lacking(connection) == 4
    (folder / "deep.tif").unlink()
    maker = Maker(settings.model_copy(update={"encoder": "efficientnet-lite0"}), cache)
    made = list(maker.run(connection))
    assert [(one.images, one.stored) for one in made] == [(4, 3)]
    assert [(one.images, one.stored) for one in maker.run(connection)] == [(1, 0)]
    maker.close()
    assert set(kept(connection)) == {"cmyk.jpg", "palette.png", "rgb.jpg"}


def test_settings_that_lead_nowhere_are_refused(settings: Settings) -> None:
    """A bucket without a name, or another kind of address, is said at the start and not image by image."""
    for wrong in ("s3://", "https://example.org/x", "file://host/x"):
        with pytest.raises(ConfigurationError, match="LOOKALIKE_THUMBNAILS"):
            open_cache(settings.model_copy(update={"thumbnails": wrong}))


def test_a_bucket_that_is_in_trouble_is_asked_twice_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor waits for the picture: rather its colours than all the patience that boto3 has."""
    with watched_server(lambda _: (503, b"", {})) as storage:
        monkeypatch.setenv("AWS_ENDPOINT_URL", storage.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "test-1")
        with pytest.raises(ClientError):
            Bucket("thumbnails", "").read("0/1.jpg")
        assert len(storage.asked) == 2
