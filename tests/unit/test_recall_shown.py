"""What `lookalike status` says of the latest check of an index: the figure, and a warning when it is low or old."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.state import OLD_DAYS, print_recall

CHECK: dict[str, Any] = {
    "recall": {"1": 1.0, "10": 0.995, "100": 0.99},
    "poor": 0.0,
    "vectors": 1000,
    "checked_at": datetime.now(UTC),
}


@pytest.mark.parametrize(
    ("changed", "vectors", "warning"),
    [
        ({}, 1000, None),
        ({}, 1150, None),
        ({}, 1300, "old, there are 1,300 vectors now"),
        ({"checked_at": datetime.now(UTC) - timedelta(days=OLD_DAYS + 1)}, 1000, "index check"),
        ({"recall": {"1": 1.0, "10": 0.98, "100": 0.99}}, 1000, "under 0.99: see `lookalike index tune`"),
    ],
)
def test_status_warns_of_a_recall_that_is_low_or_old(
    changed: dict[str, Any], vectors: int, warning: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the floor, a month old, or made when the archive was a fifth smaller."""
    print_recall({**CHECK, **changed}, vectors, floor=0.99)
    said = " ".join(capsys.readouterr().out.split())
    assert "of the true ten nearest" in said
    assert (warning in said) if warning else (";" not in said)
