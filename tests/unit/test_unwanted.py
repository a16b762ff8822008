"""What a threshold would find, from distances alone; and the files of keys that people write."""

from pathlib import Path

import numpy as np
import pytest

from lookalike import held_out, unwanted
from lookalike.errors import ConfigurationError, SourceError
from lookalike.held_out import HeldOut
from lookalike.unwanted import Unwanted


def held(examples: list[float], fine: list[float], sample: list[float], archive: int = 1000) -> HeldOut:
    return HeldOut(*(np.array(one, np.float32) for one in (examples, fine, sample)), archive)


def test_the_nearest_example_and_its_distance() -> None:
    """Distances have the encoder's form: clamped is 1 - cos, halved half of it."""
    examples = np.array([[1, 0], [0, 1]], np.float32)
    rows = np.array([[0.6, 0.8], [1, 0], [-1, 0]], np.float32)
    numbers, distances = held_out.nearest(rows, examples, "clamped")
    assert numbers.tolist() == [1, 0, 1]
    assert distances.tolist() == pytest.approx([0.2, 0, 1])
    assert held_out.nearest(rows, examples, "halved")[1].tolist() == pytest.approx([0.1, 0, 0.5])
    assert held_out.nearest(rows[:0], examples, "halved")[1].shape == (0,)


def test_an_example_is_never_compared_with_itself() -> None:
    """Held out, each of a few examples is measured from all the others; the seed decides about folds of many."""
    angles = np.array([0, 0.1, 0.3, 0.6])
    few = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    steps = np.array([0.1, 0.1, 0.2, 0.3])
    assert held_out.hold_out(few, "clamped", 0) == pytest.approx(1 - np.cos(steps), abs=1e-6)
    many = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    one, same, other = (held_out.hold_out(many, "halved", seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
    assert one.min() > 0


def test_recall_and_precision_are_counted() -> None:
    """Each threshold lies halfway to the next distance that was seen; nothing of a far sample is within it."""
    found = held_out.curve(held([0.1, 0.2, 0.3], [0.25], [0.6, 0.7, 0.8, 0.9]))
    assert [one.threshold for one in found] == pytest.approx([0.15, 0.225, 0.45])
    assert [one.recall for one in found] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [one.precision for one in found] == pytest.approx([1, 1, 3 / 4])
    assert [(one.fine, one.sample, one.expected) for one in found] == [(0, 0, 0), (0, 0, 0), (1, 0, 0)]
    assert held_out.choose(found, 0.95) == found[1]
    assert held_out.choose(found, 0.7) == found[2]
    assert held_out.choose(held_out.curve(held([0.5], [0.1, 0.2], [])), 0.9) is None


def test_unwanted_images_in_the_sample_are_reckoned_with() -> None:
    """A sample that is found at the rate of the examples is taken to be unwanted; a sudden rise is not."""
    examples = np.linspace(0.01, 0.1, 10).tolist()
    alike = np.repeat(examples, 2).tolist()
    wide = held_out.measure(held(examples, [], alike + [0.3] * 10), 0.1)
    assert (wide.recall, wide.precision, wide.at_least) == pytest.approx((1, 1, 1 / 3))
    farther = held_out.measure(held(examples, [], alike + [0.08] * 30), 0.1)
    assert (farther.precision, farther.at_least) == pytest.approx((30 / 60, 10 / 60))
    nearer = held_out.measure(held(examples, [0.015], alike, 1000), 0.035)
    assert (nearer.precision, nearer.at_least) == pytest.approx((9 / 10, 3 / 10))


def test_candidates_are_reckoned_from_the_sample() -> None:
    """The share of the sample is scaled to the archive; where none was found there may still be three in the sample."""
    some = held_out.measure(held([0.1, 0.2], [], [0.05] * 5 + [0.5] * 95, 40_000), 0.2)
    assert some.expected == 2000
    assert some.at_most == pytest.approx(400 * 10.5, rel=0.01)
    none = held_out.measure(held([0.1, 0.2], [], [0.5] * 100, 40_000), 0.2)
    assert (none.expected, none.at_most) == (0, pytest.approx(400 * 3, rel=0.02))
    # Of chi2.ppf(0.95, 2 * (count + 1)) / 2.
    assert held_out.upper_limit(0) == pytest.approx(2.996, rel=0.02)
    assert held_out.upper_limit(10) == pytest.approx(16.96, rel=0.01)


def test_a_long_curve_is_shortened_around_the_chosen_threshold() -> None:
    """Of a thousand thresholds some dozen are shown, the chosen one among them, in their order."""
    curve = held_out.curve(held(np.linspace(0.1, 0.9, 1000).tolist(), [], []))
    shown = held_out.thin(curve, curve[123])
    assert 12 <= len(shown) <= 13
    assert curve[123] in shown
    assert shown == sorted(shown, key=lambda one: one.threshold)


def test_a_file_of_keys(tmp_path: Path) -> None:
    """Comments, blank lines, repetitions and a byte order mark do not count; what is no text is refused."""
    path = tmp_path / "keys.txt"
    path.write_text("\ufeffa/1.jpg\n\n# charts\n  b 2.jpg  \na/1.jpg\n", encoding="utf-8")
    assert unwanted.read_keys(path) == ["a/1.jpg", "b 2.jpg"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"keys\.txt"):
        unwanted.read_keys(path)
    with pytest.raises(SourceError, match="nothing"):
        unwanted.read_keys(tmp_path / "nothing")


def test_a_state_is_one_of_three_or_any() -> None:
    """Another word is refused, and the error says which there are."""
    assert [unwanted.as_state(word) for word in ("candidate", "accepted", "fine", "any")] == [
        "candidate", "accepted", "fine", None,
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="candidate, accepted, fine, any"):
        unwanted.as_state("bad")


def test_a_sheet_has_a_row_for_each_example() -> None:
    """Images stand beside their nearest example, eight in a row."""
    images = [
        Unwanted(
            "s",
            f"{n}",
            "candidate",
            n / 100,
            "b" if n == 3 else "a",
            False,
            0.2,
            "e",
            None,
            None,
            None,
            None,
            "u",
        )
        for n in range(10)
    ]
    rows = unwanted.sheet_rows(images)
    assert [(example, [one.image for one in row]) for example, row in rows] == [
        ("a", ["0", "1", "2", "4", "5", "6", "7", "8"]),
        ("a", ["9"]),
        ("b", ["3"]),
    ]
