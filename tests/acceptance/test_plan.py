"""`lookalike plan`, as an operator runs it before a backfill."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.encoders import find_encoder
from tests.factories import make_images
from tests.pictures import jpeg, photographs
from tests.servers import Lookalike, http_server
from tests.snapshots import snapshot

ENCODER = find_encoder("efficientnet-lite0")
PICTURES = 12


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {f"/{number:02}.jpg": jpeg(picture) for number, picture in enumerate(photographs()[:PICTURES])}


@pytest.fixture
def table(files: dict[str, bytes]) -> Iterator[str]:
    """The address of a CSV file of these pictures, two that are not there, one that is none, and a damaged line."""
    served = {**files, "/broken.jpg": b"<html>sorry</html>"}
    with http_server(served) as address:
        names = [*files, "/missing-1.jpg", "/missing-2.jpg", "/broken.jpg"]
        served["/images.csv"] = "\n".join(
            ["key,url", *(f"{n[1:]},{address}{n}" for n in names), "x,y,z"]
        ).encode()
        yield f"{address}/images.csv"


@pytest.mark.slow
def test_a_table_over_http_is_planned_and_nothing_is_registered(
    lookalike: Callable[..., Lookalike], connection: Connection, table: str
) -> None:
    """Counts, failures by reason and figures that agree with each other; the archive is as it was, to the byte."""
    archive.add_encoder(connection, ENCODER, 64)
    ledger.register(connection, make_images(100))
    before = snapshot(connection)
    found = json.loads(lookalike().run("plan", table, "--json").stdout)
    assert snapshot(connection) == before

    everything = len(photographs()[:PICTURES]) + 3
    assert (found["images"], found["images_are"], found["refused"]) == (
        everything,
        "counted",
        {"bad_record": 1},
    )
    assert found["sample"]["images"] == everything
    assert found["sample"]["embedded"] == found["vectors"] == everything - 3
    assert found["sample"]["failures"] == {"not_found": 2, "html_page": 1}
    worker = found["worker"]
    assert worker["limit"] in ("fetch", "decode", "encode", "store")
    assert 0 < worker["images_per_second"] <= min(worker["stages"].values())
    assert worker["hours"]["1"] == pytest.approx(everything / worker["images_per_second"] / 3600, rel=0.5)
    assert found["gpu_worker"]["measured"] is False
    assert found["gpu_worker"]["images_per_second"] >= worker["images_per_second"]
    assert found["bytes"]["fetched"] > 10_000 * PICTURES
    assert found["bytes"]["stored"] == sum(found["bytes"][part] for part in ("vectors", "index", "archive"))


@pytest.mark.slow
def test_a_folder_is_planned_for_people(
    lookalike: Callable[..., Lookalike], connection: Connection, files: dict[str, bytes], tmp_path: Path
) -> None:
    """The tables fit 100 columns and say what was measured and what is arithmetic; an archive gets no encoder."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, picture in files.items():
        (folder / name[1:]).write_bytes(picture)
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    said = lookalike().run("plan", str(folder), "--sample", "5").stdout
    assert max(map(len, map(str.rstrip, said.splitlines()))) <= 100
    assert f"{len(files) + 1} images, measured on 5 of them, chosen evenly." in said
    assert "Measured on this machine" in said
    assert "By arithmetic" in said
    assert "An upper bound, as no GPU is here" in said
    assert connection.execute("select count(*) from encoders").fetchone() == (0,)


@pytest.mark.slow
def test_a_number_of_images_is_taken_at_its_word(
    lookalike: Callable[..., Lookalike], files: dict[str, bytes], tmp_path: Path
) -> None:
    """With --images only the sample is read, however long standard input is, and all is worked out for that number."""
    (tmp_path / "a.jpg").write_bytes(next(iter(files.values())))
    lines = "".join(json.dumps({"key": f"{number}", "url": "a.jpg"}) + "\n" for number in range(5000))
    words = ("plan", "-", "--images", "40000000", "--sample", "20", "--json")
    found = json.loads(lookalike().run(*words, stdin=lines).stdout)
    assert (found["images"], found["vectors"], found["images_are"]) == (40_000_000, 40_000_000, "given")
    assert found["sample"]["of"] == "the first images"
    assert found["sample"]["images"] == 20
    assert found["bytes"]["vectors"] == pytest.approx(40e6 * 3107, rel=0.01)


def test_a_sample_that_fails_as_a_whole_says_why(lookalike: Callable[..., Lookalike], tmp_path: Path) -> None:
    """When no image of the sample can be embedded there is nothing to measure: exit code 1 and the reasons."""
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.jpg").write_bytes(b"")
    done = lookalike().run("plan", str(tmp_path / "scans"), check=False)
    assert done.returncode == 1
    assert "no image of the sample could be embedded: empty 1" in done.stderr
