"""Lays vectors out in the plane so that those near each other stay near: the arithmetic of maps.

It knows neither the database nor what the images are.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ConfigurationError

Method = Literal["tsne", "pca"]

# t-SNE looks at distances between vectors of so many dimensions: the rest is noise by then, and costs time.
DIMENSIONS = 50
PERPLEXITY = 30
# With fewer, threads wait for each other for longer than they work.
WORTH_THREADS = 5_000
# With fewer images there are no neighbourhoods to keep.
FEWEST = 12


def lay_out(vectors: NDArray[np.float32], seed: int) -> tuple[NDArray[np.float32], Method]:
    """Returns places (n, 2) in 0..1 of vectors (n, d), and how they were found. The same seed gives the same places on
    the same machine. The longer side of the map spans 0..1, the other one lies in its middle.

    Raises ConfigurationError where scikit-learn is not installed.
    """
    try:
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise ConfigurationError("maps need scikit-learn: pip install 'lookalike[catalogue]'") from None
    count, dimension = vectors.shape
    if count < 3:
        return _normalise(np.linspace(0, 1, 2 * count, dtype=np.float32).reshape(count, 2)), "pca"
    # Of equal vectors, as of copies, nothing but rounding would say where they lie.
    grain = np.random.default_rng(seed).standard_normal(vectors.shape, np.float32) * np.float32(1e-5)
    kept = min(DIMENSIONS, dimension, count - 1)
    solver = "full" if count <= 500 else "randomized"
    reduced = PCA(kept, svd_solver=solver, random_state=seed).fit_transform(vectors + grain)
    if count < FEWEST:
        return _normalise(reduced[:, :2]), "pca"
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    threads = None if count >= WORTH_THREADS else 1
    with threadpool_limits(threads, "openmp"):
        # Begun with PCA, neighbourhoods that are far from each other are so on the map as well.
        layout = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=threads or -1)
        return _normalise(layout.fit_transform(reduced.astype(np.float32))), "tsne"


def _normalise(placed: NDArray[np.floating]) -> NDArray[np.float32]:
    """Into the unit square, in proportion."""
    low, high = placed.min(axis=0), placed.max(axis=0)
    span = float((high - low).max()) or 1.0
    within: NDArray[np.float32] = ((placed - (low + high) / 2) / span + 0.5).astype(np.float32)
    return within.clip(0, 1)
