"""An upgrade with real programs of both sides: the code before the newest migration, out of git's history, and this."""

import io
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from cli.demo import find_photographs, make_copies, serving, write_table
from tests.servers import Lookalike, wait_until

ROOT = Path(__file__).parents[2]


def git(*words: str) -> bytes:
    """What git says of this checkout; skips the test where there is no history, as in a release."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no history of this checkout: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it was before the newest migration came."""
    newest = max((ROOT / "migrations").glob("*.sql")).name
    commit = git("log", "--diff-filter=A", "--format=%H", "-1", "--", f"migrations/{newest}").decode().strip()
    if not commit:
        pytest.skip(f"{newest} is not committed yet")
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(git("archive", f"{commit}^"))) as tree:
        tree.extractall(folder, filter="data")
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[list[Path]]:
    """The demo's photographs and copies in three tables."""
    make_copies(find_photographs(), tmp_path / "photographs")
    with serving(tmp_path / "photographs") as address:
        lines = write_table(tmp_path / "photographs", address).read_text().splitlines(keepends=True)
        parts = [tmp_path / f"part-{number}.jsonl" for number in range(3)]
        for number, part in enumerate(parts):
            part.write_text("".join(lines[number::3]))
        yield parts


@pytest.fixture
def sides(
    tmp_path: Path, bare_database_url: str, broker_url: str, older: Path
) -> Iterator[tuple[Lookalike, Lookalike]]:
    """The older programs and these, on one database and one broker."""
    made = []
    for name, tree in (("older", older), ("newer", ROOT)):
        (tmp_path / name).mkdir()
        made.append(Lookalike(tmp_path / name, bare_database_url, broker_url, PYTHONPATH=str(tree)))
    yield made[0], made[1]
    for one in made:
        one.stop()


def contract_of(tree: Path) -> str:
    found = subprocess.run(
        [sys.executable, "-c", "from lookalike.contract import CONTRACT; print(CONTRACT)"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


@pytest.mark.slow
def test_an_upgrade_without_downtime(
    sides: tuple[Lookalike, Lookalike], older: Path, tables: list[Path], bare_database_url: str
) -> None:
    """These programs refuse the earlier schema and say what to run. The earlier ones go on after the migration as long
    as both keep one contract, or else leave with an advice; then these take over, and each image is done once."""
    before, after = sides
    before.run("migrate")
    running = [before.start("orchestrate"), before.start("worker")]
    before.run("add", str(tables[0]))
    with psycopg.connect(bare_database_url, autocommit=True) as connection:

        def count(table: LiteralString) -> int:
            row = connection.execute(f"select count(*) from lookalike.{table}").fetchone()
            return int(row[0]) if row else 0

        def all_are_done() -> bool:
            return count("vectors_efficientnet_lite0") == count("images")

        wait_until(lambda: count("vectors_efficientnet_lite0") > 0, 120, before.logs)
        for words in (["add", str(tables[1])], ["worker"]):
            refused = after.run(*words, check=False)
            assert (refused.returncode != 0, "run `lookalike migrate`" in refused.stderr) == (True, True), (
                refused
            )

        after.run("migrate")
        if contract_of(older) == contract_of(ROOT):
            before.run("add", str(tables[1]))
            wait_until(all_are_done, 120, before.logs)
            for process in running:
                process.send_signal(signal.SIGTERM)
            assert [process.wait(60) for process in running] == [0, 0], before.logs()
        else:
            assert all(process.wait(60) for process in running), before.logs()
            assert "upgrade lookalike" in before.logs()
            after.run("add", str(tables[1]))

        running = [after.start("orchestrate"), after.start("worker")]
        after.run("add", str(tables[2]))
        wait_until(all_are_done, 120, after.logs)
        assert count("images") == sum(len(table.read_text().splitlines()) for table in tables)
    after.run("audit")
