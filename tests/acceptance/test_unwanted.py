"""Unwanted images among real photographs, embedded with the real encoder."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from lookalike import archive, ledger, unwanted
from lookalike.database import Connection, connect
from lookalike.encoders import find_encoder
from lookalike.images import Image as Announced
from lookalike.ledger import RetryPolicy
from lookalike.settings import Settings
from lookalike.vectors import Vectors
from tests.pictures import jpeg, photographs
from tests.unwanted_pictures import blank_page, colour_chart
from workers.decode import decode
from workers.network import load_encoder

ENCODER = "efficientnet-lite0"
KINDS = {"colour charts": "chart", "blank pages": "blank"}
COUNT, EXAMPLES = 18, 6
PHOTOGRAPHS = 50


@pytest.fixture(scope="module")
def embedded() -> tuple[list[str], np.ndarray]:
    """Keys and vectors (n, 1280) of photographs, charts and blank pages."""
    pictures: dict[str, Image.Image] = {}
    for number, picture in enumerate(photographs()[:PHOTOGRAPHS]):
        pictures[f"photo/{number:03}"] = picture
    for number in range(COUNT):
        pictures[f"chart/{number:03}"] = colour_chart(number)
        pictures[f"blank/{number:03}"] = blank_page(number)
    encoder = load_encoder(ENCODER, Settings(_env_file=None, batch_size=8))
    side = encoder.preprocessing.crop
    pixels = np.empty((len(pictures), side, side, 3), np.uint8)
    for picture, out in zip(pictures.values(), pixels, strict=True):
        decode(jpeg(picture), encoder.preprocessing, out, 10**8)
    return list(pictures), encoder.encode(pixels).vectors


@pytest.fixture
def archived(database_url: str, embedded: tuple[list[str], np.ndarray]) -> Iterator[Connection]:
    """An archive that holds them."""
    keys, vectors = embedded
    with connect(database_url, application_name="test") as connection:
        archive.add_encoder(connection, find_encoder(ENCODER), chunk_size=1000)
        announced = [Announced(key, f"file:///{key}.jpg") for key in keys]
        ledger.register(connection, announced, chunk_size=1000)
        (claim,) = ledger.lease(connection, ENCODER, "backfill", 10, 60)
        chunk = ledger.start(connection, claim, "w", 60)
        assert chunk is not None
        rows = vectors[[keys.index(image.key) for image in chunk.images]]
        codes = archive.load_calibration(connection, ENCODER).codes(rows)
        ids = np.array([image.id for image in chunk.images], np.int64)
        count = len(ids)
        made = Vectors(ids, np.ones(count, np.int32), np.zeros((count, 32), np.uint8), codes, rows)
        ledger.finish(connection, chunk, made, [], RetryPolicy(1, 1))
        yield connection


@pytest.mark.parametrize("name", KINDS)
def test_six_examples_find_the_others_of_their_kind(archived: Connection, name: str) -> None:
    """Only images of that kind become candidates, and with a wider threshold all of them; accepted, they leave the
    searches, and the photographs stay."""
    own = [f"{KINDS[name]}/{number:03}" for number in range(COUNT)]
    learned = unwanted.learn(archived, name, own[:EXAMPLES], by="a cataloguer")
    found = {one.image for one in unwanted.list_images(archived, name)}

    assert learned.report.chosen.precision >= unwanted.PRECISION
    assert found <= set(own[EXAMPLES:])
    assert found

    # The threshold keeps to what six examples support. No photograph comes near: a wider one finds the rest.
    unwanted.learn(archived, name, threshold=0.3, by="a cataloguer")
    assert {one.image for one in unwanted.list_images(archived, name)} == set(own[EXAMPLES:])

    unwanted.accept_within(archived, name, 1, "a cataloguer")
    accepted = {one.image for one in unwanted.list_images(archived, name, "accepted", 1000)}
    for query in (own[0], "photo/000"):
        rows = archived.execute("select image from similar(%s, 1000)", [query]).fetchall()
        assert not accepted & {row[0] for row in rows}
        assert sum(row[0].startswith("photo/") for row in rows) >= len(photographs()[:PHOTOGRAPHS]) - 1
