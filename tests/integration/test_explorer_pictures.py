"""Searching with a picture that is sent or named: what is found, and what is refused, with the real network."""

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image as Pictures
from starlette.testclient import TestClient

from explorer import pictures
from explorer.metrics import Metrics
from explorer.problems import BusyError
from lookalike import archive, ledger
from lookalike.database import connect
from lookalike.encoders import find_encoder
from lookalike.errors import ImageError
from lookalike.images import Image
from lookalike.ledger import RetryPolicy
from lookalike.reasons import Reason
from lookalike.search import KnownImage
from lookalike.settings import Settings
from lookalike.vectors import Vectors
from tests.conftest import new_database
from tests.factories import checksum
from tests.integration.test_explorer_api import API, opened
from tests.pictures import bomb, jpeg, near_copy, photographs
from tests.servers import Misbehaving, http_server, misbehaving_server, wait_until, watched_server
from workers.picture import PictureEncoder

ENCODER = "efficientnet-lite0"
COUNT = 12


@pytest.fixture(scope="module")
def archive_url(server_url: str, template_database: str) -> Iterator[str]:
    """A database with a dozen photographs, embedded."""
    encoder = PictureEncoder(ENCODER, Settings(_env_file=None))
    for url in new_database(server_url, template_database):
        with connect(url, application_name="test") as connection:
            archive.add_encoder(connection, find_encoder(ENCODER), COUNT)
            keys = [f"photo/{number:02}" for number in range(COUNT)]
            ledger.register(
                connection, [Image(key, f"https://example.org/{key}") for key in keys], chunk_size=COUNT
            )
            (claim,) = ledger.lease(connection, ENCODER, "backfill", 10, 60)
            chunk = ledger.start(connection, claim, "w", 60)
            assert chunk is not None
            vectors = np.stack([encoder.embed(jpeg(picture)) for picture in photographs()[:COUNT]])
            made = Vectors(
                np.array([image.id for image in chunk.images], np.int64),
                np.array([image.revision for image in chunk.images], np.int32),
                np.array([checksum(image.key) for image in chunk.images], np.uint8),
                archive.load_calibration(connection, ENCODER).codes(vectors),
                vectors,
            )
            ledger.finish(connection, chunk, made, [], RetryPolicy(1, 1))
        yield url


@pytest.fixture(scope="module")
def client(archive_url: str) -> Iterator[TestClient]:
    with opened(archive_url, explorer_rate=0, explorer_upload_bytes=2_000_000) as made:
        yield made


def send(client: TestClient, data: bytes, **parameters: object) -> object:
    return client.post(f"{API}/search", files={"picture": ("mine.jpg", data)}, params=parameters)


def test_a_copy_that_is_sent_finds_its_original(client: TestClient) -> None:
    """A turned or cropped copy of a photograph comes out next to it; the answer is kept by nobody."""
    for number in (3, 8):
        got = send(client, jpeg(near_copy(photographs()[number], number), 40), k=3)
        assert (got.status_code, got.headers["cache-control"]) == (200, "no-store")
        found = got.json()
        assert found["neighbours"][0]["key"] == f"photo/{number:02}"
        assert (found["query"], found["encoder"], len(found["neighbours"])) == ("mine.jpg", ENCODER, 3)


def test_odd_pictures_are_searched_with(client: TestClient) -> None:
    """CMYK, transparent and single-bit pictures are pictures."""
    for mode, form in (("CMYK", "JPEG"), ("RGBA", "PNG"), ("1", "TIFF"), ("P", "GIF")):
        buffer = io.BytesIO()
        photographs()[2].convert(mode).save(buffer, form)
        assert send(client, buffer.getvalue()).status_code == 200, mode


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", 422, "empty"),
        (b"<html>", 415, "html_page"),
        (b"words", 415, "not_an_image"),
        (jpeg(photographs()[0])[:3000], 422, "truncated"),
        (bomb(), 413, "bomb"),
        (jpeg(Pictures.new("RGB", (4, 4))), 422, "too_small"),
    ],
    ids=["nothing", "page", "words", "part", "bomb", "speck"],
)
def test_what_is_no_picture_is_refused_with_its_reason(
    client: TestClient, data: bytes, status: int, reason: str
) -> None:
    """A problem document says what is wrong with a file, in the words of the ledger."""
    got = send(client, data)
    assert (got.status_code, got.json().get("reason")) == (status, reason), got.text


def test_forms_and_files_have_limits(client: TestClient) -> None:
    """Too large a file, a form without one, and what is no form are refused."""
    assert send(client, b"x" * 2_100_000).status_code == 413
    assert client.post(f"{API}/search", data={"picture": "text"}).status_code == 415
    assert client.post(f"{API}/search", files={"other": b"x"}).status_code == 422
    assert client.post(f"{API}/search", content=b"x").status_code == 415
    for body in (b"", b"{", b"[]", b'{"url": 3}', b'{"url": "file:///etc/passwd"}', b'{"url": "http:///x"}'):
        got = client.post(f"{API}/search", content=body, headers={"Content-Type": "application/json"})
        assert got.status_code == 422, body


def test_addresses_lead_to_the_public_web_alone(client: TestClient, archive_url: str) -> None:
    """A picture on this machine is fetched for nobody, unless the operator allows it; hosts' faults are said."""
    with http_server({"/a.jpg": jpeg(photographs()[5])}) as web:
        refused = client.post(f"{API}/search", json={"url": f"{web}/a.jpg"})
        assert (refused.status_code, refused.json()["reason"]) == (403, "forbidden_address")
        # Nor learns anybody where a name of this network leads.
        named = client.post(f"{API}/search", json={"url": web.replace("127.0.0.1", "localhost")})
        assert named.status_code == 403
        assert "127.0.0.1" not in named.text
        with opened(archive_url, allow_networks="private") as allowed:
            found = allowed.post(f"{API}/search", json={"url": f"{web}/a.jpg"}).json()
            assert found["neighbours"][0]["key"] == "photo/05"
            gone = allowed.post(f"{API}/search", json={"url": f"{web}/b.jpg"})
            assert (gone.status_code, gone.json()["reason"]) == (502, "not_found")


@pytest.mark.parametrize(
    "address", ["s3://scans/1.tif", "S3://scans/1.tif", "file:///etc/hostname", "/etc/hostname"]
)
def test_a_visitor_opens_no_bucket_with_our_credentials(
    archive_url: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form of the page takes addresses of the web alone, as the API does: no bucket is ever asked."""
    with watched_server(lambda _: (200, jpeg(photographs()[5]), {})) as storage:
        monkeypatch.setenv("AWS_ENDPOINT_URL", storage.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ours")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")
        with opened(archive_url, allow_networks="private") as client:
            got = client.post("/picture/search", data={"url": address})
        assert (got.status_code, storage.asked) == (403, [])


def test_when_many_wait_others_are_told_to_come_back(archive_url: str) -> None:
    """Of more searches than may wait, some are 503 with Retry-After, and the others are answered."""
    with opened(archive_url, explorer_rate=0, explorer_searches=2) as client:
        send(client, jpeg(photographs()[0]))
        start = threading.Barrier(8)

        def ask(number: int) -> object:
            start.wait()
            return send(client, jpeg(photographs()[number]))

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        codes = {answer.status_code for answer in answers}
        assert codes == {200, 503}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)
        figures = client.get("/metrics").text
        assert 'lookalike_explorer_pictures_total{outcome="busy",way="upload"}' in figures


def keep_waiting(site: Misbehaving) -> None:
    """Says nothing until the test is over with it, then hangs up."""
    handler = site.handler
    assert handler is not None
    site.is_over.wait(60)
    handler.close_connection = True


def test_slow_hosts_hold_up_nobody_else(archive_url: str) -> None:
    """Visitors who name hosts that do not answer wait alone, few at once and two of one client; uploads and neighbours
    go on."""
    with (
        misbehaving_server() as host,
        ThreadPoolExecutor(4) as pool,
        opened(
            archive_url,
            explorer_rate=0,
            explorer_searches=2,
            explorer_proxies="127.0.0.1",
            allow_networks="private",
        ) as client,
    ):
        host.misdeed = keep_waiting
        body = {"url": f"{host.url}/a.jpg"}

        def name_a_slow_host(visitor: str) -> httpx.Response:
            return client.post(f"{API}/search", json=body, headers={"X-Forwarded-For": visitor})

        waiting = []
        try:
            for number, visitor in enumerate(["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"], 1):
                if number == 3:
                    refused = [name_a_slow_host("192.0.2.1")]
                waiting.append(pool.submit(name_a_slow_host, visitor))
                wait_until(lambda: len(host.asked) == len(waiting), 20, "the host")
            refused += [name_a_slow_host(f"192.0.2.{number}") for number in range(10, 13)]
            form = client.post("/picture/search", data=body, headers={"Accept": "text/html"})
            assert send(client, jpeg(photographs()[3])).status_code == 200
            assert client.get(f"{API}/images/photo/01/similar").status_code == 200
            assert not any(one.done() for one in waiting)
        finally:
            host.is_over.set()
        assert [one.result().status_code for one in waiting] == [502] * 4
    assert [one.status_code for one in refused] == [429, 503, 503, 503]
    for one in refused:
        assert one.headers["content-type"] == "application/problem+json"
        assert one.headers["retry-after"] == "5"
    assert (form.status_code, form.headers["retry-after"]) == (503, "5")


def test_another_encoder_must_be_one_of_the_archive(client: TestClient) -> None:
    """A network that the archive has no vectors of is not loaded for a stranger."""
    got = send(client, jpeg(photographs()[0]), encoder="resnet50")
    assert (got.status_code, got.json()["type"]) == (404, "urn:lookalike:problem:unknown-encoder")


def test_few_files_of_the_archive_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans are large: of many who look at what the network sees, two have theirs fetched, others are told to wait."""
    monkeypatch.setattr(pictures, "OWN_SECONDS", 0.2, raising=False)
    done = threading.Event()
    fetched: list[str] = []

    def fetch(url: str, *_: object, **__: object) -> bytes:
        fetched.append(url)
        done.wait(10)
        raise ImageError(Reason.NOT_FOUND, "404")

    monkeypatch.setattr("workers.picture.fetch_known", fetch)
    embedder = pictures.Pictures(Settings(_env_file=None), Metrics())
    image = KnownImage(1, "a", "https://example.org/a.tif", "file", False)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(embedder.classify, image, ENCODER) for _ in range(8)]
        time.sleep(1)
        done.set()
    embedder.close()
    outcomes = Counter(type(one.exception()) for one in asked)
    assert (len(fetched), outcomes) == (2, {ImageError: 2, BusyError: 6})
