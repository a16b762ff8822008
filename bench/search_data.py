"""Vectors for the benches of search: synthetic ones that behave like those of photographs, and their true neighbours.

What makes neighbours hard to find is kept from real vectors: a mixture whose clusters are filled evenly, few directions
that matter (intrinsic dimension 20 to 24), and numbers that are never negative, half of them 0, a few large. The bench
`search-data` prints how codes do on them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.search_measure import recall
from bench.table import print_table
from lookalike.calibration import make_calibration
from lookalike.settings import Settings

BLOCK = 2000
# How many candidates the codes are to bring the true neighbours among.
CANDIDATES = (50, 100, 200, 400)


@dataclass(frozen=True)
class Mixture:
    """A source of unit vectors (d,), float32, without negative values; the same block gives the same vectors.

    Every cluster is as wide as the clusters are apart, so that they overlap. Raising the numbers to a power gives them
    the heavy tail of a real network's (kurtosis about 18): what bare signs lose by.
    """

    dimension: int
    clusters: int = 100
    directions: int = 64
    decay: float = 0.7
    power: float = 2.2
    noise: float = 0.05
    seed: int = 1

    def make(self, count: int, block: int) -> NDArray[np.float32]:
        """Block number `block` of `count` vectors: (count, d)."""
        weights, scale, centres = self._frozen()
        random = np.random.default_rng([self.seed, block])
        cluster = random.integers(0, self.clusters, count)
        hidden = centres[cluster] + random.standard_normal((count, self.directions), np.float32)
        rows = hidden @ weights + self.noise * random.standard_normal((count, self.dimension), np.float32)
        rows = np.maximum(rows, 0) ** self.power * scale
        vectors: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors

    def _frozen(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        random = np.random.default_rng(self.seed)
        falling = np.arange(1, self.directions + 1, dtype=np.float32)[:, None] ** -self.decay
        weights = random.standard_normal((self.directions, self.dimension), np.float32) * falling
        weights /= np.sqrt(2 * (weights**2).sum(0))
        scale = np.exp(0.3 * random.standard_normal(self.dimension, np.float32))
        centres = random.standard_normal((self.clusters, self.directions), np.float32)
        return weights.astype(np.float32), scale, centres


def as_stored(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors in half precision, as the database stores them, for arithmetic in single precision."""
    return vectors.astype(np.float16).astype(np.float32)


def true_neighbours(
    mixture: Mixture,
    rows: int,
    queries: NDArray[np.int64],
    asked: NDArray[np.float32],
    k: int,
    chosen: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Numbers and cosine similarities of the k vectors nearest to each query, itself left out: both (queries, k).

    `queries` are numbers of vectors and `asked` (queries, d) these vectors; `chosen` (rows,) those that may be found.
    """
    asked = as_stored(asked)
    best = np.full((len(queries), k), -np.inf, np.float32)
    numbers = np.zeros((len(queries), k), np.int64)
    for block in range(rows // BLOCK):
        here = np.arange(block * BLOCK, (block + 1) * BLOCK)
        likeness = asked @ as_stored(mixture.make(BLOCK, block)).T
        likeness[queries[:, None] == here] = -np.inf
        if chosen is not None:
            likeness[:, ~chosen[here]] = -np.inf
        both = np.concatenate([best, likeness], axis=1)
        all_numbers = np.concatenate([numbers, np.broadcast_to(here, likeness.shape)], axis=1)
        first = np.argpartition(-both, k, axis=1)[:, :k]
        best, numbers = np.take_along_axis(both, first, 1), np.take_along_axis(all_numbers, first, 1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(numbers, order, 1), np.take_along_axis(best, order, 1)


def run(_: Settings) -> None:
    """How image-like the synthetic vectors are: what codes of three kinds find, by comparing all of them."""
    rows = []
    for dimension, count in ((1280, 50_000), (512, 200_000)):
        mixture = Mixture(dimension)
        queries = np.arange(0, count, count // 200)
        asked = np.concatenate([mixture.make(BLOCK, int(n) // BLOCK)[n % BLOCK][None] for n in queries])
        truth = true_neighbours(mixture, count, queries, asked, 10)[0]
        mean = mixture.make(10 * BLOCK, 10**6).mean(0)
        rotated = make_calibration(f"synthetic-{dimension}", dimension, mean)
        kinds: dict[str, Callable[[NDArray[np.float32]], NDArray[np.uint8]]] = {
            "bare signs": partial(_signs, about=np.zeros(dimension, np.float32)),
            "signs about the mean": partial(_signs, about=mean),
            "rotated, about the mean": rotated.codes,
        }
        all_codes: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in kinds}
        for block in range(count // BLOCK):
            vectors = mixture.make(BLOCK, block)
            for name, code in kinds.items():
                all_codes[name].append(code(vectors))
        for name, parts in all_codes.items():
            ranked = _nearest_codes(np.concatenate(parts), queries)
            shares = [
                f"{np.mean([recall(t, r[:n]) for t, r in zip(truth, ranked, strict=True)]):.3f}"
                for n in CANDIDATES
            ]
            rows.append((f"{count:,} x {dimension:,}, {name}", *shares))
    print_table(
        "How image-like: share of the true 10 nearest among the best n by Hamming distance, all compared",
        ("", *(f"n = {n}" for n in CANDIDATES)),
        rows,
    )


def _signs(vectors: NDArray[np.float32], about: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Codes by the signs about a vector, without a rotation."""
    return np.packbits(vectors > about, axis=1)


def _nearest_codes(codes: NDArray[np.uint8], queries: NDArray[np.int64]) -> list[list[int]]:
    """The numbers of the codes nearest to each query's, itself left out."""
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    found = index.search(codes[queries], max(CANDIDATES) + 1)[1]
    return [[int(n) for n in row if n != query] for query, row in zip(queries, found, strict=True)]
