"""What a migration may not do to a database of forty million images that is in use; CONTRIBUTING.md has the rules."""

import re
from pathlib import Path

import pytest

from lookalike.concurrently import wanted_indexes
from lookalike.migrate import migrations_folder

# Those before were released without these rules.
FIRST = "0015"
FILES = [file for file in sorted(migrations_folder().glob("*.sql")) if file.name[:4] >= FIRST]
MADE = r"create (?:table|view) (?:lookalike\.)?(\w+)"
# What takes a lock on a table that stops those who read or write it.
LOCKING = (
    r"(?:alter table|create (?:constraint )?trigger \w+ [^;]*? on|drop index|drop table|drop trigger \w+ on)"
)


def up(file: Path) -> str:
    """The half of a migration that is applied, without comments."""
    return re.sub(r"--.*", "", file.read_text().partition("-- migrate:down")[0])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name[:4])
def test_no_index_is_built_under_a_lock(file: Path) -> None:
    """Indexes of a migration are on tables that it makes itself; others are in concurrently/indexes.sql."""
    text = up(file)
    made = set(re.findall(MADE, text, re.IGNORECASE))
    indexed = set(
        re.findall(r"create (?:unique )?index \w+ on (?:only )?(?:lookalike\.)?(\w+)", text, re.IGNORECASE)
    )
    assert indexed <= made


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name[:4])
def test_nobody_queues_behind_a_migration(file: Path) -> None:
    """One that locks a table which was there before gives up waiting after seconds, to be tried again."""
    text = up(file)
    locked = set(re.findall(LOCKING + r" (?:if exists )?(?:lookalike\.)?(\w+)", text, re.IGNORECASE))
    if locked - set(re.findall(MADE, text, re.IGNORECASE)):
        assert re.match(r"\s*set local lock_timeout = '\d{1,2}s';", text), f"{file.name} locks {locked}"


def test_every_index_that_is_built_beside_writers_has_a_name_of_its_own() -> None:
    """The list is read, and names nothing twice."""
    names = [one.name for one in wanted_indexes(migrations_folder())]
    assert len(names) == len(set(names)) > 2
