"""What docs/OPERATIONS.md and docs/CAPACITY.md have people copy: commands that exist, and SQL that runs."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from cli.main import app
from lookalike import archive, index, ledger
from lookalike.database import Connection
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.ledger import RetryPolicy
from tests.factories import make_images, make_vectors

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["OPERATIONS.md", "CAPACITY.md"]
ENCODER = find_encoder("efficientnet-lite0")
FORMER = replace(ENCODER, name="a-former-encoder", dimension=16)
# Words before a command that leave it in its place.
BEFORE = re.compile(r"[A-Z_]+=.*|docker|compose|run|--rm|orchestrator|exec")


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page that are in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """Every `lookalike …` of a page, as its words: in blocks and in running text."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`(lookalike [^`]+)`", (DOCS / page).read_text())
    found = []
    for line in lines:
        parsed = shlex.shlex(line, posix=True, punctuation_chars=True)
        parsed.whitespace_split = True
        words = list(parsed)
        for place, word in enumerate(words):
            if re.fullmatch(r"([^=]*/)?lookalike", word) and all(map(BEFORE.fullmatch, words[:place])):
                end = next(
                    (n for n, w in enumerate(words[place:], place) if w in ("|", ";", "&&", ">")), None
                )
                found.append(words[place + 1 : end])
    return found


def fault_of(words: list[str]) -> str | None:
    """What is wrong with a command, by taking it as far as the terminal would before it did anything."""
    command, name = typer.main.get_command(app), "lookalike"
    while (subcommands := getattr(command, "commands", None)) is not None:
        name, *words = words or [""]
        if name not in subcommands:
            return f"there is no {name!r}"
        command = subcommands[name]
    try:
        command.make_context(name, list(words))
    except Exception as error:  # click's, or those of the click that typer brings along
        return str(error) or type(error).__name__
    return None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page: str) -> None:
    """With its arguments and options, as far as that can be told without running it."""
    found = commands(page)
    assert len(found) > (60 if page == "OPERATIONS.md" else 2)
    assert {" ".join(words): fault for words in found if (fault := fault_of(words))} == {}


def test_a_wrong_command_is_seen() -> None:
    """The test of the commands is one."""
    wrong = (["audit", "--complete"], ["indices", "build"], ["retry", "--reason", "mood"], ["ready"], [])
    assert all(map(fault_of, wrong))
    assert fault_of(["retry", "--reason", "timeout"]) is None


@pytest.fixture
def filled(connection: Connection) -> Connection:
    """An archive with two encoders, each with images done, failed and open."""
    images = [*make_images(7), Image("scans/image00001.jpg", "http://localhost/1.jpg")]
    archive.add_encoder(connection, ENCODER, 2)
    archive.add_encoder(connection, FORMER, 2)
    ledger.register(connection, images, chunk_size=2)
    for encoder in (ENCODER.name, FORMER.name):
        for claim in ledger.lease(connection, encoder, "backfill", 10, 60, batch=3):
            chunk = ledger.start(connection, claim, "host.1", 60)
            assert chunk is not None
            vectors = make_vectors(chunk.images[:1], connection, encoder)
            failed = [ledger.Failure(image, ledger.Reason.NOT_FOUND) for image in chunk.images[1:]]
            ledger.finish(connection, chunk, vectors, failed, RetryPolicy(1, 1))
    (image,) = connection.execute("select id from images where key like 'scans/%'").fetchone() or (0,)
    for encoder in (ENCODER.name, FORMER.name):
        (claim,) = ledger.lease(connection, encoder, "backfill", 10, 60, batch=1)
        chunk = ledger.start(connection, claim, "host.1", 60)
        assert chunk is not None
        assert image in [one.id for one in chunk.images]
        ledger.finish(
            connection, chunk, make_vectors(chunk.images, connection, encoder), [], RetryPolicy(1, 1)
        )
    return connection


@pytest.mark.parametrize("page", PAGES)
def test_the_sql_runs(filled: Connection, page: str) -> None:
    """Statement by statement, on an archive with two encoders; it loses no vector on the way."""
    counting = "select count(*), count(distinct image_id) from vectors_efficientnet_lite0"
    vectors = filled.execute(counting).fetchone()
    for block in blocks(page, "sql"):
        for statement in re.split(r";\n", re.sub(r"--.*", "", block)):
            if statement.strip():
                filled.execute(statement.encode())
    assert filled.execute(counting).fetchone() == vectors
    if page == "CAPACITY.md":
        # A partition was split.
        assert [one.valid for one in index.list_partitions(filled, ENCODER.name)].count(True) == 2
        assert len(index.list_partitions(filled, ENCODER.name)) == 9
