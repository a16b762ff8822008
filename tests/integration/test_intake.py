"""Reading sources into the ledger: batches, positions, and what a reader that was stopped goes on with."""

import gzip
import json
from pathlib import Path

import pytest

from lookalike import archive, awaited, books
from lookalike.database import Connection, connect
from lookalike.errors import SourceError
from lookalike.images import AwaitedManifest, Checkpoint, Image, Notice, Removal
from lookalike.settings import Settings
from orchestrator import intake, progress
from orchestrator.intake import read_in, take_in
from orchestrator.progress import Intake
from orchestrator.sources import read_source, source_name
from tests.factories import TINY, make_images

SETTINGS = Settings(_env_file=None)


class Killed(BaseException):
    """Stands for whatever ends a process between two batches."""


@pytest.fixture
def archived(connection: Connection) -> Connection:
    archive.add_encoder(connection, TINY, chunk_size=64)
    return connection


def write_lines(path: Path, count: int) -> Path:
    lines = (json.dumps({"key": f"k{n:06}", "url": f"http://localhost/{n:06}.jpg"}) for n in range(count))
    text = "\n".join(lines).encode() + b"\n"
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def write_csv(path: Path, count: int) -> Path:
    rows = (f'k{n:06},http://localhost/{n:06}.jpg,"a title\nof two lines"' for n in range(count))
    path.write_text("\n".join(["key,url,title", *rows]) + "\n")
    return path


def make_folder(path: Path, count: int) -> Path:
    for number in range(count):
        folder = path / f"{number // 300:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}.jpg").write_bytes(b"x")
    return path


def read(connection: Connection, spec: Path, stop_after: int | None = None, anew: bool = False) -> Intake:
    """Reads a source; with `stop_after`, ends as a killed process would, behind so many images."""
    counted = Intake()

    def check(so_far: Intake) -> None:
        if stop_after is not None and so_far.registered.new >= stop_after:
            raise Killed

    try:
        read_in(connection, str(spec), SETTINGS, counted, check, anew=anew)
    except Killed:
        assert stop_after is not None
    return counted


def images(connection: Connection) -> int:
    (count,) = connection.execute("select count(*) from images").fetchone() or (0,)
    return int(count)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "folder"])
def test_a_stopped_source_goes_on_where_it_was(archived: Connection, tmp_path: Path, kind: str) -> None:
    """What was committed is not read again: nothing counts as unchanged, and every image is there once."""
    makers = {"csv": write_csv, "folder": make_folder}
    source = makers.get(kind, write_lines)(tmp_path / f"source.{kind}", 5000)

    first = read(archived, source, stop_after=2000)
    second = read(archived, source)

    assert 2000 <= first.registered.new < 5000
    assert second.registered.new == 5000 - first.registered.new
    assert second.registered.unchanged == 0
    assert images(archived) == 5000
    assert books.count_books(archived, "tiny").open == 5000
    (row,) = progress.list_sources(archived)
    assert (row["new"], row["unchanged"], row["ended_at"] is None) == (5000, 0, False)


def test_a_source_that_was_read_to_its_end_is_read_from_its_beginning(
    archived: Connection, tmp_path: Path
) -> None:
    """Reading it again finds everything unchanged, and what was appended new."""
    source = write_lines(tmp_path / "source.jsonl", 600)
    read(archived, source)
    write_lines(source, 700)

    again = read(archived, source)

    assert (again.registered.new, again.registered.unchanged) == (100, 600)


@pytest.mark.parametrize("how", ["the file has changed", "anew"])
def test_a_position_of_another_file_does_not_count(archived: Connection, tmp_path: Path, how: str) -> None:
    """A file that was replaced while its reading was stopped is read from its beginning, and so it is on demand."""
    source = write_lines(tmp_path / "source.jsonl", 5000)
    read(archived, source, stop_after=2000)
    if how != "anew":
        write_lines(source, 5001)

    second = read(archived, source, anew=how == "anew")

    assert second.registered.unchanged >= 2000
    assert images(archived) == (5000 if how == "anew" else 5001)


def test_a_position_is_committed_with_its_images(archived: Connection, tmp_path: Path) -> None:
    """A batch that fails midway leaves neither images nor a position behind."""
    source = write_lines(tmp_path / "source.jsonl", 5000)
    archived.execute(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'the disk is full'; end $$"
    )
    archived.execute(
        "create trigger refuse before update on sources for each row when (new.new > 0)"
        " execute function refuse()"
    )
    with pytest.raises(Exception, match="the disk is full"):
        read(archived, source)

    assert images(archived) == 0
    assert archived.execute("select position from sources").fetchone() == (None,)


def test_what_came_before_a_source_breaks_off_is_registered(archived: Connection) -> None:
    """A source that ends in an error keeps all that it announced before."""

    def notices() -> list[Notice]:
        yield from make_images(70)
        raise SourceError("the connection broke")

    with pytest.raises(SourceError, match="broke"):
        take_in(archived, "a stream", notices(), 64, Intake())
    assert images(archived) == 70


def test_images_and_removals_keep_their_order(archived: Connection) -> None:
    """An image that is announced, removed and announced again later is there; the other way round it is not."""
    early, noon, late = (f"2026-11-25T{hour}:00:00Z" for hour in ("08", "12", "18"))
    counted = Intake()
    take_in(
        archived,
        "a stream",
        [
            Image("a", "file:///a", as_of=early),
            Image("b", "file:///b", as_of=early),
            Removal(key="a", as_of=noon),
            Removal(key="b", as_of=noon),
            Image("a", "file:///a", as_of=late),
            Image("b", "file:///b", as_of=early),
        ],
        64,
        counted,
    )

    assert archived.execute("select key from images").fetchall() == [("a",)]
    assert (counted.registered.new, counted.registered.gone, counted.deleted) == (3, 1, 2)


def test_batches_end_at_checkpoints(archived: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position that is kept is never behind what was committed with it."""
    monkeypatch.setattr(intake, "BATCH", 64)
    seen: list[tuple[int, object]] = []

    def notices() -> list[Notice]:
        for number, image in enumerate(make_images(1000)):
            yield image
            if number % 50 == 49:
                yield Checkpoint({"images": number + 1})

    def note(_: Intake) -> None:
        row = archived.execute("select position -> 'images' from sources").fetchone()
        seen.append((images(archived), row and row[0]))

    monkeypatch.setattr(intake, "read_source", lambda *_: notices())
    read_in(archived, "numbers.jsonl", SETTINGS, Intake(), note)

    assert len(seen) > 5
    assert all(count == position for count, position in seen)


def test_one_process_reads_a_source_at_a_time(
    archived: Connection, database_url: str, tmp_path: Path
) -> None:
    """A second reader is told so; when the first one's connection is gone it may."""
    source = write_lines(tmp_path / "source.jsonl", 10)
    with connect(database_url, application_name="test") as other:
        with (
            progress.holding(other, source_name(str(source))),
            pytest.raises(SourceError, match="is being read by another process"),
        ):
            read(archived, source)
        read(archived, source)
    assert images(archived) == 10


def test_a_position_of_another_kind_is_ignored(tmp_path: Path) -> None:
    """Whatever stands in the position, a source that does not know it begins at its beginning."""
    source = write_lines(tmp_path / "source.jsonl", 3)
    for position in ({}, {"identity": 7, "line": "x"}, {"folder": "/", "behind": "/x"}):
        found = [n for n in read_source(str(source), SETTINGS, position) if isinstance(n, Image)]
        assert len(found) == 3


def test_manifests_that_a_source_could_not_read_are_awaited(archived: Connection) -> None:
    """They are kept with the images around them, for the orchestrator to read."""
    to_come = AwaitedManifest("http://localhost/m", "m", None, "2026-01-01T00:00:00+00:00")
    notices: list[Notice] = [*make_images(2), to_come, Checkpoint({"at": 1}, lasting=True)]
    take_in(archived, "stream", notices, 64, Intake())
    assert awaited.count_awaited(archived) == {"awaited": 1, "failed": 0}
    assert archived.execute("select count(*) from images").fetchone() == (2,)


def test_what_a_stream_brings_later_goes_ahead(archived: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it was read to its end a stream is a backfill; from then on what it tells of has just happened."""
    told = iter([make_images(3, "old"), make_images(2, "new"), make_images(1, "newest")])

    def notices(*_: object) -> list[Notice]:
        yield from next(told)
        yield Checkpoint({"at": "now"}, lasting=True)

    monkeypatch.setattr(intake, "read_source", notices)
    for _ in range(3):
        read_in(archived, "https://example.org/changes", SETTINGS, Intake())

    lanes = archived.execute(
        "select lane, sum(coalesce(cardinality(ids), hi - lo + 1)) from chunks group by lane"
    )
    assert dict(lanes.fetchall()) == {"backfill": 3, "events": 3}
