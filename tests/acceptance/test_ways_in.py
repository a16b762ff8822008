"""Ways into the archive with real processes: backfills that are killed, images that are deleted and come back."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike import books
from lookalike.database import Connection
from tests.pictures import jpeg, near_copy, photographs
from tests.servers import Lookalike, aws_server, http_server, notifying_bucket, wait_until
from tests.sites import Site, serving

ENCODER = "efficientnet-lite0"
LINES = 50_000


def count(connection: Connection, statement: str) -> int:
    (number,) = connection.execute(statement).fetchone() or (0,)
    return int(number or 0)


@pytest.mark.parametrize("command", ["orchestrate", pytest.param("add", marks=pytest.mark.slow)])
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
    wait_until(lambda: count(connection, "select count(*) from images") >= 5000, 120, system.logs)
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
        wait_until(lambda: count(connection, ended) == 1, 120, system.logs)

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


def test_an_upload_is_searchable_during_a_backfill(
    lookalike: Callable[..., Lookalike], connection: Connection, tmp_path: Path
) -> None:
    """S3 tells a queue, and `similar` finds the image while 5,000 others wait; its deletion takes it away again."""
    picture = photographs()[0]
    files = {f"/{number}.jpg": jpeg(photographs()[number % 20]) for number in range(20)}
    with http_server(files) as web, aws_server() as aws:
        storage = notifying_bucket(aws, "scans")
        table = tmp_path / "backfill.csv"
        rows = (f"old/{number},{web}/{number % 20}.jpg" for number in range(5000))
        table.write_text("\n".join(["key,url", *rows]))
        system = lookalike(LOOKALIKE_CHUNK_SIZE="16", **aws)
        system.start("orchestrate", str(table), "sqs:scans")
        system.start("worker")
        vectors = "select count(*) from vectors_efficientnet_lite0"
        wait_until(lambda: books.encoder_names(connection) != [], 60, system.logs)
        wait_until(lambda: count(connection, vectors) >= 32, 120, system.logs)

        storage.put_object(Bucket="scans", Key="a new/scan ü.jpg", Body=jpeg(near_copy(picture, 1)))

        key = "scans/a new/scan ü.jpg"
        embedded = f"select is_embedded('{key}')::integer"
        wait_until(lambda: count(connection, embedded) == 1, 60, system.logs)
        left = books.count_books(connection, ENCODER).open
        assert left > 1000, "the backfill was over: nothing was overtaken"
        found = json.loads(system.run("similar", key, "-k", "3", "--json").stdout)
        assert [n["image"].startswith("old/") for n in found["neighbours"]] == [True] * 3

        storage.delete_object(Bucket="scans", Key="a new/scan ü.jpg")
        row = f"select count(*) from images where key = '{key}'"
        wait_until(lambda: count(connection, row) == 0, 60, system.logs)
        status = json.loads(system.run("status", "--json").stdout)
    queue = next(s for s in status["sources"] if s["name"] == "sqs:scans")
    # The bucket's notification began with a test event, which says nothing of images.
    assert (queue["new"], queue["deleted"], queue["refused"]) == (1, 1, {})


@pytest.mark.slow
def test_a_run_waits_for_manifests_whose_host_fails(
    lookalike: Callable[..., Lookalike], connection: Connection
) -> None:
    """It is not over before they were read; killed, it reads them when it is run again, without the source."""
    system = lookalike(LOOKALIKE_TRIES="1", LOOKALIKE_ALLOW_NETWORKS="127.0.0.0/8")
    with serving(Site()) as site:
        for number, picture in enumerate(photographs()[:2], 1):
            body = {"id": f"SITE/{number}.jpg", "type": "Image", "format": "image/jpeg"}
            canvas = {"type": "Canvas", "id": f"SITE/c{number}", "items": [{"items": [{"body": body}]}]}
            site.pages[f"/m{number}"] = {"id": f"SITE/m{number}", "type": "Manifest", "items": [canvas]}
            site.pages[f"/{number}.jpg"] = (200, {"Content-Type": "image/jpeg"}, jpeg(picture))
        there, site.pages["/m1"] = site.pages["/m1"], (503, {}, b"")
        site.pages["/top"] = {"id": "SITE/top", "type": "Collection", "items": ["SITE/m1", "SITE/m2"]}
        process = system.start("run", f"{site.url}/top")
        wait_until(
            lambda: count(connection, "select count(*) from chunks where state = 'done'") == 1,
            120,
            system.logs,
        )
        time.sleep(3)
        assert process.poll() is None, system.logs()
        assert json.loads(system.run("status", "--json").stdout)["manifests"]["awaited"] == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        site.pages["/m1"] = there
        connection.execute("update awaited_manifests set not_before = now()")
        shown = json.loads(system.run("run", "--json").stdout)
        assert (shown["registered"], shown["done"], shown["complete"]) == (2, 2, True)
        assert connection.execute("select count(*) from awaited_manifests").fetchone() == (0,)
        assert site.asked.count("/top") == 1
