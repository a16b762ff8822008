"""Do neighbours look alike? Places, near-copies and edits, by every encoder whose weights are on this machine."""

import numpy as np
from numpy.typing import NDArray

from bench.search_pictures import (
    all_photographs,
    edited_original,
    edits,
    embed,
    near_copies,
    places,
    random_part,
)
from bench.table import print_table
from lookalike.encoders import ENCODERS
from lookalike.settings import Settings
from workers.network import Encoder, load_encoder
from workers.weights import locate_weights

# Parts of each photograph, for precision by label.
PARTS = 6
NEAREST = 5


def run(_: Settings) -> None:
    """The true neighbours by each encoder, compared exactly: what an index may lose is measured elsewhere."""
    settings = Settings(_env_file=None)
    rows = []
    for name, spec in ENCODERS.items():
        if locate_weights(spec, settings.weights_dir) is None:
            continue
        encoder = load_encoder(name, settings)
        rows.append((name, *(f"{share:.3f}" for share in measure(encoder))))
    columns = ("", "places P@1", "places P@5", "parts P@5", "near-copy R@1", "edits R@1")
    print_table("What the nearest are, share of the right ones", columns, rows)


def measure(encoder: Encoder) -> list[float]:
    """The shares of a row, NaN where the photographs are absent."""
    pictures, labels = places()
    found = []
    if pictures:
        vectors = embed(encoder, pictures)
        found += [precision(vectors, labels, 1), precision(vectors, labels, NEAREST)]
    else:
        found += [float("nan")] * 2
    random = np.random.default_rng(0)
    originals = all_photographs()
    parts = [random_part(picture, random) for picture in originals for _ in range(PARTS)]
    of = [str(number) for number in range(len(originals)) for _ in range(PARTS)]
    found.append(precision(embed(encoder, parts), of, NEAREST))
    archive = embed(encoder, originals)
    copies = embed(encoder, near_copies()[1])
    found.append(float(np.mean((copies @ archive.T).argmax(1) == np.arange(len(copies)))))
    original = edited_original()
    if original is None:
        return [*found, float("nan")]
    archive = np.concatenate([archive, embed(encoder, [original])])
    edited = embed(encoder, list(edits().values()))
    return [*found, float(np.mean((edited @ archive.T).argmax(1) == len(archive) - 1))]


def precision(vectors: NDArray[np.float32], labels: list[str], k: int) -> float:
    """Share of the k nearest that have the label of the query, of as many as there are; queries with company only.

    vectors: (n, d), unit length; labels: n.
    """
    names = np.array(labels)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")
    shares = []
    for query, name in enumerate(names):
        others = min(k, int((names == name).sum()) - 1)
        if others:
            shares.append(float(np.mean(names[nearest[query, :others]] == name)))
    return float(np.mean(shares))
