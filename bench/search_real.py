"""`similar` on the vectors of real photographs by the default encoder, with the calibration that is shipped."""

from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray
from pgvector import Bit, HalfVector

from bench.search import COLUMNS, Queries, by_hand_side, row_of, similar_side
from bench.search_archive import Loaded, build, key_of, reconnect, register, store
from bench.search_data import as_stored
from bench.search_measure import take_turns
from bench.search_pictures import all_photographs, embed, random_part
from bench.services import fresh_database
from bench.table import print_table
from lookalike import archive
from lookalike.encoders import find_encoder
from lookalike.settings import Settings
from workers.network import load_encoder

ENCODER = "efficientnet-lite0"
PARTS = 20
QUERIES = 300
CHUNK = 250


def run(settings: Settings) -> None:
    """Parts of photographs: for each, those of the same photograph come first, then other photographs."""
    vectors = real_vectors(settings)
    with fresh_database(settings) as (url, connection), ExitStack() as stack:
        archive.add_encoder(connection, find_encoder(ENCODER), CHUNK)
        calibration = archive.load_calibration(connection, ENCODER)
        loaded = Loaded(url, ENCODER, "vectors_efficientnet_lite0", vectors.shape[1], len(vectors))
        codes = calibration.codes(vectors)
        ids = np.concatenate([register(connection, s, CHUNK) for s in range(0, len(vectors), CHUNK)])
        store(connection, loaded, ids, codes, vectors)
        connection.execute("vacuum analyze")
        build(loaded)
        numbers = np.sort(np.random.default_rng(5).choice(len(vectors), QUERIES, replace=False))
        queries = Queries(
            numbers,
            [key_of(int(n)) for n in numbers],
            [int(ids[n]) for n in numbers],
            [HalfVector(vectors[n]) for n in numbers],
            [Bit(np.unpackbits(codes[n]).astype(bool)) for n in numbers],
        )
        rows = []
        truth = nearest_among(vectors, numbers, 100)
        for k in (10, 100):
            similar, by_hand = (stack.enter_context(reconnect(loaded)) for _ in range(2))
            sides = {
                f"similar, k = {k}": similar_side(similar, queries, k),
                "SQL by hand": by_hand_side(by_hand, loaded, queries, k),
            }
            measured = take_turns(sides, truth, [n for n in (1, 10, 100) if n <= k])
            rows += [row_of(name, k, m, measured["SQL by hand"]) for name, m in measured.items()]
    print_table(f"Search among {len(vectors):,} parts of photographs, {ENCODER}, indexed", COLUMNS, rows)


def real_vectors(settings: Settings) -> NDArray[np.float32]:
    """Vectors (n, d) of parts of all photographs; kept in the home, for they take minutes."""
    kept = settings.home / "real-vectors.npy"
    if not kept.exists():
        random = np.random.default_rng(0)
        parts = [random_part(picture, random) for picture in all_photographs() for _ in range(PARTS)]
        parts = parts[: len(parts) // CHUNK * CHUNK]
        np.save(kept, embed(load_encoder(ENCODER, Settings(_env_file=None)), parts))
    vectors: NDArray[np.float32] = np.load(kept)
    return vectors


def nearest_among(vectors: NDArray[np.float32], queries: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Numbers of the k nearest to each query, itself left out: (queries, k)."""
    stored = as_stored(vectors)
    likeness = stored[queries] @ stored.T
    likeness[np.arange(len(queries)), queries] = -np.inf
    nearest: NDArray[np.int64] = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    return nearest
