"""The explorer's HTTP API on a real Postgres: what it answers, refuses, and changes."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from explorer.app import create_app
from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.images import Image
from lookalike.ledger import RetryPolicy
from lookalike.settings import Settings
from tests.factories import TINY, make_vectors

IMAGES = 60


def fill(connection: Connection) -> None:
    """An archive of 60 images with vectors, two to a work, and one that waits."""
    archive.add_encoder(connection, TINY, chunk_size=IMAGES)
    images = [
        Image(
            f"image/{number:05}",
            f"https://iiif.example.org/{number}" if number % 2 else f"https://example.org/{number}.jpg",
            "iiif" if number % 2 else "file",
            work=f"work-{number // 2}",
            title=f"A view of {'Rome' if number % 3 else 'Naples'}, plate {number}",
            licence="cc-by" if number % 2 else "pdm",
        )
        for number in range(IMAGES)
    ]
    ledger.register(connection, images, chunk_size=IMAGES)
    (claim,) = ledger.lease(connection, "tiny", "backfill", 10, 60)
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    ledger.finish(connection, chunk, make_vectors(chunk.images, connection), [], RetryPolicy(1, 1))
    ledger.register(connection, [Image("waiting/similar", "file:///scans/secret/1.tif", title="Waiting")])


@pytest.fixture
def client(connection: Connection, database_url: str) -> Iterator[TestClient]:
    """A client of an app over a filled archive."""
    fill(connection)
    app = create_app(Settings(_env_file=None), database_url)
    with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as opened:
        yield opened


def test_an_image(client: TestClient) -> None:
    got = client.get("/api/v1/images/image/00001")
    print(got.status_code, got.json())
    print(client.get("/api/v1/images/image%2F00001/similar?k=3").json())
    print(client.get("/api/v1/images/waiting/similar").json())
    print(client.get("/api/v1/images/waiting%2Fsimilar/similar").json())
    print(client.get("/images/waiting%2Fsimilar", headers={"Accept": "application/json"}).json())
    print(client.get("/api/v1/images?q=rom&limit=2").json())
    print(client.get("/api/v1/images?q=image/0000&limit=2").json())
    print(client.get("/api/v1/random?limit=2").json())
    print(client.get("/api/v1/works/work-1").json())
    print(client.get("/api/v1/images/nobody").json())
