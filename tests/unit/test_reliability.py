"""docs/RELIABILITY.md names a test for each promise: they exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = {file.name: file for file in (ROOT / "tests").rglob("test_*.py")}


def test_every_test_that_a_promise_names_exists() -> None:
    """No promise rests on a test that was renamed or removed."""
    text = (ROOT / "docs" / "RELIABILITY.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 40
    missing = [
        f"{file}::{test}"
        for file, test in named
        if file not in TESTS or not re.search(rf"^def {test}\(", TESTS[file].read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_promise_names_a_test() -> None:
    """Each row of a table of promises has one."""
    text = (ROOT / "docs" / "RELIABILITY.md").read_text()
    tables = re.findall(r"^\| promise \| shown by \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert [row for row in rows if "::test_" not in row] == []
