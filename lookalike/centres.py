"""Trains the centres of clusters on vectors in memory, and says which centre a vector is nearest to.

All vectors are of unit length, and compared by cosine. What trains needs faiss or scikit-learn, the extra `catalogue`;
what assigns, and so every worker, does with numpy alone. Nothing here reads or writes a database.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ConfigurationError

Floats = NDArray[np.float32]

# Rounds of k-means at most: from a k-means++ start little changes after some ten.
ITERATIONS = 25
STARTS = 3
FIRST_ITERATIONS = 4
# Vectors that centres start from, and that a number is chosen on: a start reads them once for each cluster.
SEEDING = 5_000
HELD_OUT = 2_000
# A number that is chosen, not given, leaves so many vectors of the training for each cluster, and is at most:
LEAST_EACH = 5
MOST_CHOSEN = 512
# HDBSCAN compares every vector with every other.
DENSE_LIMIT = 10_000
EXTRA = "pip install 'lookalike[catalogue]'"


@dataclass(frozen=True, slots=True)
class Trained:
    """Centres float32 (clusters, d) of unit length; silhouette -1..1 of held-out vectors, None where none were left;
    `tried` has the silhouette of each number of clusters that was compared."""

    centres: Floats
    silhouette: float | None
    tried: dict[int, float]


def train(vectors: Floats, clusters: int | None, seed: int) -> Trained:
    """Trains centres on vectors float32 (n, d). A number of clusters that is not given is chosen.

    A twentieth of the vectors, at most 2,000, is held out to judge the result. Raises ConfigurationError when there
    are fewer vectors than clusters, or without faiss.
    """
    needed = clusters or 2
    if len(vectors) < needed:
        raise ConfigurationError(f"{needed:,} clusters cannot be made of {len(vectors):,} vectors")
    order = np.random.default_rng(seed).permutation(len(vectors))
    held = min(HELD_OUT, len(vectors) // 20, len(vectors) - needed)
    held_out, training = vectors[order[:held]], vectors[order[held:]]
    tried = {} if clusters else _try_numbers(training, seed)
    chosen = clusters or max(tried, key=lambda number: (tried[number], -number))
    centres = kmeans(training, chosen, seed)
    return Trained(centres, silhouette(held_out, centres) if held and chosen > 1 else None, tried)


def kmeans(
    vectors: Floats, clusters: int, seed: int, iterations: int = ITERATIONS, starts: int = STARTS
) -> Floats:
    """Spherical k-means (Dhillon and Modha 2001) by faiss: centres float32 (clusters, d) of unit length.

    Several starts are tried on some of the vectors, and the best goes on with all: from a single one, k-means now and
    then leaves two clusters merged and another cut in two.
    """
    few = max(SEEDING, 4 * clusters)
    random = np.random.default_rng(seed)
    some = vectors if len(vectors) <= few else vectors[np.sort(random.choice(len(vectors), few, False))]
    tried = [
        _improve(some, _spread(some, clusters, seed + start), seed, FIRST_ITERATIONS)
        for start in range(starts)
    ]
    return _improve(vectors, max(tried, key=lambda start: start[1])[0], seed, iterations)[0]


def _improve(vectors: Floats, centres: Floats, seed: int, iterations: int) -> tuple[Floats, float]:
    """Centres after some rounds of k-means, and the sum of the vectors' cosines to them before the last."""
    trainer = _faiss().Kmeans(
        vectors.shape[1],
        len(centres),
        niter=iterations,
        spherical=True,
        seed=seed,
        # All vectors take part: how many there are was decided when they were sampled.
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    trainer.train(vectors, init_centroids=centres)
    return trainer.centroids.copy(), float(trainer.obj[-1])


def _spread(vectors: Floats, clusters: int, seed: int) -> Floats:
    """Starts far apart: greedy k-means++ (Arthur and Vassilvitskii 2007)."""
    random = np.random.default_rng(seed)
    tries = 2 + int(np.log(clusters))
    chosen = [int(random.integers(len(vectors)))]
    apart = np.maximum(0, 1 - vectors @ vectors[chosen[0]])
    for _ in range(clusters - 1):
        total = float(apart.sum(dtype=np.float64))
        if total <= 0:  # fewer different vectors than clusters
            chosen.append(int(random.integers(len(vectors))))
            continue
        drawn = np.searchsorted(np.cumsum(apart, dtype=np.float64), random.random(tries) * total)
        drawn = np.minimum(drawn, len(vectors) - 1)
        left = np.minimum(apart, np.maximum(0, 1 - vectors[drawn] @ vectors.T))
        best = int(left.sum(axis=1, dtype=np.float64).argmin())
        chosen.append(int(drawn[best]))
        apart = left[best]
    return np.ascontiguousarray(vectors[chosen])


def _try_numbers(vectors: Floats, seed: int) -> dict[int, float]:
    """The silhouettes of a ladder of numbers of clusters, and of numbers about its best rungs."""
    random = np.random.default_rng(seed + 1)
    if len(vectors) < 4:
        raise ConfigurationError(f"{len(vectors)} vectors are too few to choose a number of clusters")
    some = vectors[random.permutation(len(vectors))[: SEEDING + HELD_OUT]]
    held_out = some[: min(HELD_OUT, max(1, len(some) // 5))]
    training = some[len(held_out) :]
    most = max(2, min(MOST_CHOSEN, len(training) // LEAST_EACH))
    ladder = sorted({min(most, round(2 ** (step / 2))) for step in range(2, 19)})

    def measure(number: int) -> float:
        return silhouette(held_out, kmeans(training, number, seed, iterations=8, starts=2))

    tried = {number: measure(number) for number in ladder}
    # Then closer and closer about the best.
    for _ in range(3):
        best = max(tried, key=lambda number: (tried[number], -number))
        below = max((number for number in tried if number < best), default=best)
        above = min((number for number in tried if number > best), default=best)
        for number in {round(number) for number in np.linspace(below, above, 7)} - set(tried):
            tried[number] = measure(number)
    return dict(sorted(tried.items()))


def silhouette(vectors: Floats, centres: Floats) -> float:
    """The simplified silhouette, -1..1: mean of (b - a) / max(a, b), where a and b are the cosine distances of a vector
    to its nearest and its second nearest centre (Hruschka, de Castro and Campello 2004; Vendramin, Campello and
    Hruschka 2010). Of vectors that the centres were not trained on, it falls when clusters are cut too small."""
    away = np.partition(1 - vectors @ centres.T, 1, axis=1)[:, :2]
    a, b = np.maximum(0, away[:, 0]), np.maximum(1e-9, away[:, 1])
    return float(np.mean((b - a) / b))


def assign(vectors: Floats, centres: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The nearest centre of each vector: numbers (n,), and the cosine distances to them, float32 (n,), 0..2."""
    cosines = vectors @ centres.T
    numbers = cosines.argmax(axis=1)
    return numbers, np.clip(1 - np.take_along_axis(cosines, numbers[:, None], axis=1)[:, 0], 0, 2)


def as_distance(cosine: Floats, form: Literal["clamped", "halved"]) -> Floats:
    """Distances 0..1 from cosine distances 0..2, in the form of the encoder; the same as as_distance() in SQL."""
    return np.asarray(np.minimum(cosine, 1) if form == "clamped" else cosine / 2, np.float32)


def find_dense(vectors: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Clusters by HDBSCAN (Campello, Moulavi and Sander 2013): the number of each vector (n,), -1 for noise, and the
    unit mean of each cluster, float32 (clusters, d). A cluster has at least 5 vectors, and 0.5 % of all.

    Raises ConfigurationError when there are too many vectors, when there is no cluster among them, or without
    scikit-learn.
    """
    if len(vectors) > DENSE_LIMIT:
        raise ConfigurationError(f"HDBSCAN takes at most {DENSE_LIMIT:,} vectors, not {len(vectors):,}")
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError:
        raise ConfigurationError(f"HDBSCAN needs scikit-learn: {EXTRA}") from None
    least = max(5, len(vectors) // 200)
    if len(vectors) < 2 * least:
        raise ConfigurationError(f"HDBSCAN needs {2 * least} vectors, there are {len(vectors)}")
    # Euclidean distances of unit vectors are in the order of cosine distances. All of them at once, some 17 bytes for
    # each: trees are no help in so many dimensions, and took 14 times as long on 1,000 vectors of 1,280.
    model = HDBSCAN(min_cluster_size=least, algorithm="brute", copy=True)
    numbers: NDArray[np.intp] = model.fit_predict(vectors)
    if numbers.max() < 0:
        raise ConfigurationError("HDBSCAN finds no cluster in this sample: all of it is noise")
    means = np.array([vectors[numbers == number].mean(axis=0) for number in range(numbers.max() + 1)])
    return numbers, (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise ConfigurationError(f"clusters need faiss: {EXTRA}") from None
    module: ModuleType = faiss
    return module


def require_faiss() -> None:
    """Raises ConfigurationError without faiss, before anything that takes time."""
    _faiss()
