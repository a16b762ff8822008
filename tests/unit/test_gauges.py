"""How busy the stages are, and what that says in words."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from lookalike.limits import WorkerState
from lookalike.vectors import Labels
from workers.gauges import Gauges


def test_a_reading_is_the_share_of_time_that_threads_worked() -> None:
    """Work of one of two threads for all of the time is a share of a half; a reading begins anew."""
    gauges = Gauges({"fetch": 1, "decode": 2, "encode": 1, "store": 1})
    with gauges.busy("decode"):
        time.sleep(0.2)
    gauges.batch(24, 32)
    gauges.batch(32, 32)
    reading = gauges.read()

    assert reading.shares["decode"] == pytest.approx(0.5, abs=0.1)
    assert reading.shares["fetch"] == 0
    assert (reading.images, reading.batch_fill) == (56, 56 / 64)
    assert gauges.read().images == 0


NOW = datetime.now(UTC)
STATE = WorkerState(
    name="host.1", encoder="tiny", device="cpu", batch_size=32, started_at=NOW, seen_at=NOW, images=100, seconds=20.0,
    fetch_busy=0.1, decode_busy=0.1, encode_busy=0.1, store_busy=0.1, batch_fill=1.0, refused=0, alive=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encode_busy": 0.95, "decode_busy": 1.0, "fetch_busy": 1.0}, "the network"),
        ({"decode_busy": 0.9, "fetch_busy": 1.0}, "decoding"),
        ({"fetch_busy": 0.9}, "fetching"),
        ({"store_busy": 0.9}, "storing"),
        ({}, "work: chunks come too slowly"),
        ({"images": 0}, "work: none has come"),
        ({"alive": False}, "heartbeats have stopped"),
    ],
)
def test_the_limit_is_the_last_full_stage(change: dict[str, float], said: str) -> None:
    """A stage without time left holds up those before it; where none is full, work is missing."""
    assert said in replace(STATE, **change).limit


def test_labels_are_the_best_classes_in_order() -> None:
    """The five most probable of all classes, the best first, for each image."""
    probabilities = np.array([[0.1, 0.4, 0.0, 0.2, 0.05, 0.25], [1, 0, 0, 0, 0, 0]], np.float32)
    found = Labels.best(probabilities)

    assert found.classes[0].tolist() == [1, 5, 3, 0, 4]
    assert found.probabilities[0].tolist() == pytest.approx([0.4, 0.25, 0.2, 0.1, 0.05])
    assert found.classes[1, 0] == 0
