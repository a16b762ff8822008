"""Similarity in SQL: what it returns is what exact arithmetic in numpy returns, and analysts may only read."""

from dataclasses import replace

import numpy as np
import psycopg
import pytest

from lookalike import archive, ledger, search
from lookalike.database import Connection
from lookalike.errors import ConfigurationError, UnknownEncoderError, UnknownImageError
from lookalike.ledger import RetryPolicy
from tests.factories import TINY, make_images, make_vectors

IMAGES = 300


@pytest.fixture
def vectors(connection: Connection) -> dict[str, np.ndarray]:
    """An archive of 300 images with vectors, half precision as stored, by key; and one image without."""
    archive.add_encoder(connection, TINY, chunk_size=IMAGES)
    return embed(connection)


def embed(connection: Connection) -> dict[str, np.ndarray]:
    ledger.register(connection, make_images(IMAGES), chunk_size=IMAGES)
    (claim,) = ledger.lease(connection, "tiny", "backfill", 10, 60)
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    made = make_vectors(chunk.images, connection)
    ledger.finish(connection, chunk, made, [], RetryPolicy(1, 1))
    ledger.register(connection, make_images(1, "waiting"))
    return {
        image.key: vector.astype(np.float16).astype(np.float64)
        for image, vector in zip(chunk.images, made.vectors, strict=True)
    }


def exact(vectors: dict[str, np.ndarray], query: np.ndarray, leave_out: str = "") -> list[tuple[str, float]]:
    """All images by their distance (1 - cos) / 2, nearest first."""
    distances = {
        key: (1 - v @ query / np.linalg.norm(v) / np.linalg.norm(query)) / 2
        for key, v in vectors.items()
        if key != leave_out
    }
    return sorted(distances.items(), key=lambda item: item[1])


def test_similar_is_the_exact_answer(connection: Connection, vectors: dict[str, np.ndarray]) -> None:
    """The 20 neighbours and their distances are those of a full comparison; the image itself is not among them."""
    found = search.similar(connection, "image/00007", 20)
    expected = exact(vectors, vectors["image/00007"], leave_out="image/00007")[:20]

    assert [n.image for n in found] == [key for key, _ in expected]
    assert [n.distance for n in found] == pytest.approx([d for _, d in expected], abs=1e-6)
    assert [n.rank for n in found] == list(range(1, 21))
    assert (found[0].url, found[0].work) == connection.execute(
        "select url, work from images where key = %s", [found[0].image]
    ).fetchone()


def test_nearest_is_the_exact_answer(connection: Connection, vectors: dict[str, np.ndarray]) -> None:
    """A vector from outside, of any length, finds what a full comparison finds."""
    query = np.random.default_rng(1).standard_normal(16).astype(np.float32) * 100
    found = search.nearest(connection, query, 5)

    assert [n.image for n in found] == [key for key, _ in exact(vectors, query.astype(np.float64))[:5]]


def test_max_distance_leaves_out_what_is_farther(
    connection: Connection, vectors: dict[str, np.ndarray]
) -> None:
    """Only neighbours within the distance come back, fewer than k."""
    expected = [key for key, d in exact(vectors, vectors["image/00007"], "image/00007") if d <= 0.25]
    assert [n.image for n in search.similar(connection, "image/00007", 100, 0.25)] == expected
    assert 0 < len(expected) < 100


def test_distance_is_zero_for_the_same_picture_and_symmetric(
    connection: Connection, vectors: dict[str, np.ndarray]
) -> None:
    """distance(a, a) is 0, distance(a, b) is distance(b, a)."""
    row = connection.execute(
        "select distance('image/00001', 'image/00001'), distance('image/00001', 'image/00002'),"
        " distance('image/00002', 'image/00001')"
    ).fetchone()
    expected = (1 - vectors["image/00001"] @ vectors["image/00002"]) / 2
    assert row == (pytest.approx(0, abs=1e-6), pytest.approx(expected, abs=1e-3), row[1])


@pytest.mark.parametrize(
    ("form", "cosine", "expected"),
    [
        ("clamped", -0.1, 0),
        ("clamped", 0.4, 0.4),
        ("clamped", 1.3, 1),
        ("halved", 0.4, 0.2),
        ("halved", 2, 1),
    ],
)
def test_a_distance_lies_between_0_and_1(
    connection: Connection, form: str, cosine: float, expected: float
) -> None:
    """Cosine distance becomes 0..1 in the form that the encoder states."""
    row = connection.execute("select as_distance(%s, %s)", [cosine, form]).fetchone()
    assert row == (pytest.approx(expected),)


def test_sql_and_python_compute_equal_codes(connection: Connection, vectors: dict[str, np.ndarray]) -> None:
    """Every bit of every stored code is the bit that SQL computes from the stored vector."""
    assert connection.execute(
        "select count(*), count(*) filter (where code_of(v, 'tiny') = code) from vectors_tiny"
    ).fetchone() == (IMAGES, IMAGES)


@pytest.mark.parametrize("dimension", [384, pytest.param(4096, marks=pytest.mark.slow)])
def test_an_encoder_of_any_dimension_can_be_searched(connection: Connection, dimension: int) -> None:
    """Storage, codes and search have one form from 384 to 4,096 dimensions."""
    archive.add_encoder(connection, replace(TINY, dimension=dimension), chunk_size=IMAGES)
    stored = embed(connection)
    query = stored["image/00003"].astype(np.float32)

    assert search.nearest(connection, query, 1)[0].image == "image/00003"
    assert (
        search.similar(connection, "image/00003", 1)[0].image
        == exact(stored, stored["image/00003"], "image/00003")[0][0]
    )
    assert connection.execute(
        "select count(*) from vectors_tiny where image_id <= 3 and code_of(v, 'tiny') = code"
    ).fetchone() == (3,)


@pytest.mark.parametrize(
    ("key", "encoder", "error", "said"),
    [
        ("nobody", None, UnknownImageError, "No image has this key"),
        ("waiting/00000", None, UnknownImageError, "It is registered"),
        ("image/00001", "other", UnknownEncoderError, "There are: tiny"),
    ],
)
def test_similar_says_what_is_wrong(
    connection: Connection,
    vectors: dict[str, np.ndarray],
    key: str,
    encoder: str | None,
    error: type[Exception],
    said: str,
) -> None:
    """Unknown keys, images without a vector and unknown encoders are told apart."""
    with pytest.raises(error, match=said):
        search.similar(connection, key, 1, encoder=encoder)


@pytest.mark.parametrize(
    ("query", "k", "said"),
    [
        (np.ones(15), 1, "15 numbers, tiny needs 16"),
        (np.zeros(16), 1, "no direction"),
        (np.full(16, np.nan), 1, "no direction"),
        (np.array([np.inf] + [1.0] * 15), 1, "no direction"),
        (np.ones(16), 0, "between 1 and 1000"),
        (np.ones(16), 1001, "between 1 and 1000"),
    ],
)
def test_nearest_refuses_what_has_no_answer(
    connection: Connection, vectors: dict[str, np.ndarray], query: np.ndarray, k: int, said: str
) -> None:
    """A vector of another dimension, without direction, or a k out of range is refused in plain words."""
    with pytest.raises(ConfigurationError, match=said):
        search.nearest(connection, query.astype(np.float32), k)


def test_an_archive_without_encoder_says_so(connection: Connection) -> None:
    """Before the first image nothing can be searched, and the error says what to do."""
    with pytest.raises(UnknownEncoderError, match="add images first"):
        search.active_encoder(connection)


def test_an_analyst_reads_and_only_reads(connection: Connection, vectors: dict[str, np.ndarray]) -> None:
    """The role searches, joins and counts, but sees no chunks and changes nothing."""
    connection.execute("set role analyst")
    assert connection.execute("select count(*) from similar('image/00001', 3)").fetchone() == (3,)
    assert connection.execute(
        "select count(*) from nearest(array_fill(0.5::real, array[16]), 3)"
    ).fetchone() == (3,)
    assert connection.execute(
        "select count(*) from images join vectors_tiny on id = image_id"
    ).fetchone() == (IMAGES,)
    for forbidden in (
        "select * from chunks",
        "delete from images",
        "update vectors_tiny set revision = 2",
        "insert into failures values ('tiny', 1, 1, 'empty', '', 1)",
        "create table lookalike.mine (a int)",
        "select add_encoder('mine', 3, 'halved')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(forbidden.encode())
