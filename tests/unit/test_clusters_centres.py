"""Training of centres: what k-means, the choice of a number and HDBSCAN find among vectors made by code."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from lookalike.centres import as_distance, assign, find_dense, kmeans, silhouette, train
from lookalike.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


def blobs(count: int, each: int, noise: float = 0.2, dimension: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors float32 (count * each, dimension) about random middles, and the blob of each."""
    random = np.random.default_rng(count)
    middles = random.standard_normal((count, dimension))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    of = np.tile(np.arange(count), each)
    vectors = middles[of] + noise * random.standard_normal((len(of), dimension)) / np.sqrt(dimension) * 2
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), of


@pytest.mark.parametrize("count", [3, 20])
def test_kmeans_finds_blobs(count: int) -> None:
    """Each blob becomes a cluster whose centre has unit length."""
    vectors, of = blobs(count, 30)
    centres = kmeans(vectors, count, seed=1)

    assert adjusted_rand_score(of, assign(vectors, centres)[0]) > 0.95
    assert np.linalg.norm(centres, axis=1) == pytest.approx(1, abs=1e-5)


def test_training_is_repeatable() -> None:
    """The same vectors and seed give the same centres."""
    vectors, _ = blobs(5, 40)
    first, second = train(vectors, 5, seed=3), train(vectors, 5, seed=3)

    assert first.centres == pytest.approx(second.centres, abs=1e-6)
    assert first.silhouette == second.silhouette


@pytest.mark.parametrize("count", [2, 7, 12])
def test_the_number_of_blobs_is_chosen(count: int) -> None:
    """The silhouette of vectors outside of the training is best with as many clusters as blobs."""
    vectors, _ = blobs(count, 50)
    trained = train(vectors, None, seed=0)

    assert len(trained.centres) == count
    assert max(trained.tried, key=lambda number: trained.tried[number]) == count


def test_one_cluster_has_no_silhouette() -> None:
    """One cluster can be asked for; there is no second one to compare with."""
    trained = train(blobs(3, 20)[0], 1, seed=0)
    assert (trained.centres.shape, trained.silhouette) == ((1, 32), None)


def test_as_many_clusters_as_vectors_are_possible() -> None:
    """With as many clusters as vectors, also equal ones, training does not fail; with more it does."""
    vectors = np.repeat(blobs(2, 2)[0], 2, axis=0)
    assert train(vectors, 8, seed=0).centres.shape == (8, 32)
    with pytest.raises(ConfigurationError, match="9 clusters cannot be made of 8 vectors"):
        train(vectors, 9, seed=0)


def test_silhouette_is_one_minus_the_ratio_of_distances() -> None:
    """(b - a) / max(a, b) from the nearest two centres, by hand."""
    centres = np.eye(3, dtype=np.float32)
    vector = np.array([[0.8, 0.6, 0]], np.float32)
    assert silhouette(vector, centres) == pytest.approx((0.4 - 0.2) / 0.4)


def test_distances_have_the_form_of_the_encoder() -> None:
    """Cosine distances 0..2 become 0..1: cut off, or halved."""
    cosine = np.array([0.0, 0.5, 1.5], np.float32)
    assert as_distance(cosine, "clamped").tolist() == [0, 0.5, 1]
    assert as_distance(cosine, "halved").tolist() == [0, 0.25, 0.75]


def test_hdbscan_leaves_noise_out() -> None:
    """Dense blobs are clusters, and what lies between them is in none."""
    vectors, of = blobs(4, 60)
    noise = np.random.default_rng(0).standard_normal((20, 32))
    noise = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)
    numbers, centres = find_dense(np.concatenate([vectors, noise]))

    assert centres.shape == (4, 32)
    assert adjusted_rand_score(of, numbers[: len(of)]) > 0.9
    assert (numbers[len(of) :] == -1).mean() > 0.8


@pytest.mark.parametrize(
    ("count", "message"),
    [(10_001, "at most 10,000 vectors, not 10,001"), (9, "needs 10 vectors, there are 9")],
)
def test_hdbscan_refuses_samples_that_it_cannot_do(count: int, message: str) -> None:
    """Too many vectors to compare all, or too few for two clusters."""
    with pytest.raises(ConfigurationError, match=message):
        find_dense(np.ones((count, 2), np.float32))


@pytest.mark.parametrize(
    ("module", "call", "what"),
    [
        ("faiss", "centres.train(vectors, 2, 0)", "clusters need faiss"),
        ("sklearn.cluster", "centres.find_dense(vectors)", "HDBSCAN needs scikit-learn"),
    ],
)
def test_a_missing_library_is_named(module: str, call: str, what: str) -> None:
    """Without the extra `catalogue` the error says what to install."""
    code = f"""
import sys; sys.modules[{module!r}] = None
import numpy as np
from lookalike import centres
from lookalike.errors import ConfigurationError
vectors = np.eye(20, dtype=np.float32)
try:
    {call}
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{what}: pip install 'lookalike[catalogue]'"
