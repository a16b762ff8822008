"""Ways into the archive with real processes: backfills that are killed, images that are deleted and come back."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike import books
from lookalike.database import Connection
from tests.servers import Lookalike, wait_until

ENCODER = "efficientnet-lite0"
LINES = 50_000


def count(connection: Connection, statement: str) -> int:
    (number,) = connection.execute(statement).fetchone() or (0,)
    return int(number or 0)


@pytest.mark.parametrize("command", ["orchestrate", "add"])
def test_a_killed_backfill_resumes(
    lookalike: Callable[..., Lookalike], connection: Connection, tmp_path: Path, command: str
) -> None:
    """kill -9 within 50,000 lines: a second start reads on behind what was committed, and every image is one row."""
    source = tmp_path / "source.jsonl"
    with source.open("w") as lines:
        for number in range(LINES):
            image = {"key": f"k{number:06}", "url": f"http://localhost/{number:06}.jpg", "title": "A title"}
            lines.write(json.dumps(image) + "\n")
    system = lookalike()
    process = system.start(command, str(source))
    wait_until(lambda: count(connection, "select count(*) from images") >= 5000, 120, system.logs())
    process.send_signal(signal.SIGKILL)
    process.wait()
    committed = count(connection, "select count(*) from images")
    assert committed < LINES, "the test was too slow to kill it midway"
    # What is committed last and what is read first fit together, to the image.
    assert count(connection, "select (position ->> 'line')::integer from sources") == committed

    if command == "add":
        done = json.loads(system.run("add", str(source), "--json").stdout)
        assert (done["new"], done["unchanged"]) == (LINES - committed, 0)
    else:
        system.start("orchestrate", str(source))
        ended = "select count(*) from sources where ended_at is not null"
        wait_until(lambda: count(connection, ended) == 1, 120, system.logs())

    assert count(connection, "select count(*) from images") == LINES
    assert connection.execute("select new, unchanged, error from sources").fetchone() == (LINES, 0, None)
    assert books.count_books(connection, ENCODER) == books.Books(LINES, 0, 0, LINES, 0)
    status = json.loads(system.run("status", "--json").stdout)
    assert [(s["name"], s["new"]) for s in status["sources"]] == [(str(source), LINES)]


def test_what_is_deleted_stays_away_until_it_is_restored(
    lookalike: Callable[..., Lookalike], connection: Connection, tmp_path: Path
) -> None:
    """The commands: delete, add again in vain, restore."""
    source = tmp_path / "source.csv"
    source.write_text("key,url,work\na,http://localhost/a.jpg,w\nb,http://localhost/b.jpg,w\n")
    system = lookalike()
    system.run("add", str(source))

    assert "1 images are deleted" in system.run("delete", "a").stdout
    again = json.loads(system.run("add", str(source), "--json").stdout)
    assert (again["new"], again["unchanged"], again["gone"]) == (0, 1, 1)
    assert json.loads(system.run("restore", "a", "--json").stdout) == {"forgotten": 1, "registered": 1}
    assert json.loads(system.run("delete", "--work", "w", "--json").stdout) == {"deleted": 2}
    assert count(connection, "select count(*) from images") == 0
    assert "none of these" in system.run("restore", "zzz").stdout
    assert books.count_books(connection, ENCODER) == books.Books(0, 0, 0, 0, 0)
