"""What a threshold would find, told by examples that are held out: distances go in, recall and precision come out.

Pure arithmetic: it knows neither the database nor what the images are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Each example is compared with those of the other folds; up to so many examples, with all others.
FOLDS = 10
# Rows that are compared at once: 10,000 with 1,000 examples are 40 MB.
BLOCK = 10_000
# Up to the distance that finds half of the held-out examples, what is found is taken to be unwanted.
SURE_RECALL = 0.5


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a threshold would do; recall and precision are shares 0..1 of what was held out.

    `at_least` takes every image of the random sample for a wanted one, though some may be unwanted; `precision` takes
    into account how many probably are. `fine` and `sample` count those within the threshold. `expected` is how many
    candidates the archive will have, `at_most` what that is with 95 % confidence.
    """

    threshold: float
    recall: float
    precision: float
    at_least: float
    fine: int
    sample: int
    expected: int
    at_most: int


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Distances to the nearest example: of the examples themselves (e,), each to those of other folds, of images that
    people call fine (f,), of a random sample of the archive (s,), which has `archive` images."""

    examples: Floats
    fine: Floats
    sample: Floats
    archive: int


def nearest(rows: Floats, examples: Floats, form: str) -> tuple[NDArray[np.int64], Floats]:
    """For unit vectors (n, d): the number of the nearest of the examples (e, d), and its distance 0..1, each (n,).

    `form` is the encoder's form of distance, as SQL's as_distance() has it.
    """
    numbers = np.empty(len(rows), np.int64)
    cosines = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), BLOCK):
        found = rows[first : first + BLOCK] @ examples.T
        best = found.argmax(axis=1)
        numbers[first : first + BLOCK] = best
        cosines[first : first + BLOCK] = found[np.arange(len(found)), best]
    distances = 1 - cosines if form == "clamped" else (1 - cosines) / 2
    return numbers, np.clip(distances, 0, 1)


def hold_out(examples: Floats, form: str, seed: int) -> Floats:
    """The distance (e,) of each example (e, d) to the nearest one of the other folds. Needs two examples."""
    folds = np.random.default_rng(seed).permutation(len(examples)) % min(FOLDS, len(examples))
    distances = np.empty(len(examples), np.float32)
    for fold in range(folds.max() + 1):
        held = folds == fold
        distances[held] = nearest(examples[held], examples[~held], form)[1]
    return distances


def curve(held: HeldOut) -> list[Threshold]:
    """Every threshold that makes a difference to recall, rising. Each lies halfway to the next distance that was seen,
    so that it holds for others like them."""
    seen = np.unique(np.concatenate([held.examples, held.fine, held.sample]))
    own = np.unique(held.examples)
    following = seen[np.minimum(np.searchsorted(seen, own, "right"), len(seen) - 1)]
    return [measure(held, float(threshold)) for threshold in (own + following) / 2]


def measure(held: HeldOut, threshold: float) -> Threshold:
    """What this threshold would do. Needs at least one example.

    Precision is that of everything held out together. How many of the sample are unwanted is estimated from the
    distance that finds half of the examples (positive and unlabelled learning; compare Elkan and Noto, KDD 2008,
    doi:10.1145/1401890.1401920): where a distance finds a share of the examples, it finds the same share of all.
    """
    count = len(held.examples)
    found = int((held.examples <= threshold).sum())
    fine = int((held.fine <= threshold).sum())
    sample = int((held.sample <= threshold).sum())
    sure = np.sort(held.examples)[int(np.ceil(SURE_RECALL * count)) - 1]
    surely = int((held.sample <= sure).sum())
    unwanted = sample if threshold <= sure else surely * found / int((held.examples <= sure).sum())
    within = max(1, found + fine + sample)
    share = held.archive / max(1, len(held.sample))
    return Threshold(
        threshold=threshold,
        recall=found / count,
        precision=(found + min(sample, unwanted)) / within,
        at_least=found / within,
        fine=fine,
        sample=sample,
        expected=round(sample * share),
        at_most=min(held.archive, round(upper_limit(sample) * share)),
    )


def upper_limit(count: int) -> float:
    """The upper 95 % limit, one-sided, of a Poisson mean when `count` was seen: 3 of none. Wilson and Hilferty's
    approximation, as in Breslow and Day, Statistical Methods in Cancer Research II (1987), page 69."""
    more = count + 1
    return float(more * (1 - 1 / (9 * more) + 1.645 / (3 * more**0.5)) ** 3)


def choose(thresholds: Sequence[Threshold], precision: float) -> Threshold | None:
    """The largest threshold that reaches the precision; None when none does."""
    good = [one for one in thresholds if one.precision >= precision]
    return max(good, key=lambda one: one.threshold) if good else None


def thin(thresholds: Sequence[Threshold], chosen: Threshold, most: int = 12) -> list[Threshold]:
    """About `most` of the thresholds, evenly by number, with the chosen one among them."""
    steps = np.unique(np.linspace(0, len(thresholds) - 1, min(most, len(thresholds))).astype(int))
    kept = {one.threshold: one for one in [*(thresholds[step] for step in steps), chosen]}
    return [kept[threshold] for threshold in sorted(kept)]
