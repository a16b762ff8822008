"""The main job with real processes, servers and photographs: every image ends done or failed, neighbours are found."""

import csv
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis
from pydantic import SecretStr

from lookalike import books, ledger, search, services
from lookalike.audit import audit
from lookalike.database import Connection
from lookalike.images import Image
from lookalike.queue import redis_url
from lookalike.servers import Valkey
from tests.conftest import embedded_settings, remove_with, wait_for
from tests.pictures import bomb, jpeg, near_copy, photographs
from tests.servers import Lookalike, Misbehaving, aws_server, http_server, misbehaving_server, wait_until

ENCODER = "efficientnet-lite0"
IMAGES = 300


@pytest.fixture(scope="module")
def archive_files() -> dict[str, bytes]:
    """300 pictures: photographs and near-copies of each; `/00012-1.jpg` is one of `/00012-0.jpg`."""
    pictures = photographs()
    files = {}
    for number in range(IMAGES):
        original, copy = number % len(pictures), number // len(pictures)
        picture = near_copy(pictures[original], copy) if copy else pictures[original]
        files[f"/{original:05}-{copy}.jpg"] = jpeg(picture, 90 - 5 * (copy % 4))
    return files


@pytest.fixture(scope="module")
def web(archive_files: dict[str, bytes]) -> Iterator[str]:
    with http_server(archive_files) as address:
        yield address


def write_csv(path: Path, address: str, files: dict[str, bytes]) -> Path:
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["key", "url", "work"])
        for name in files:
            table.writerow([name[1:], address + name, name[1:6]])
    return path


def is_complete(connection: Connection, expected: int) -> bool:
    if not books.encoder_names(connection):
        return False
    counted = books.count_books(connection, ENCODER)
    return counted.registered == expected and counted.complete


def misplaced_copies(connection: Connection) -> list[tuple[str, str, float]]:
    """The near-copies whose nearest neighbour is not a picture of the same original."""
    rows = connection.execute("select key from images where key not like '%-0.jpg'").fetchall()
    assert len(rows) > IMAGES // 2
    found = [(key, search.similar(connection, key, 1)[0]) for (key,) in rows]
    return [
        (key, nearest.image, nearest.distance)
        for key, nearest in found
        if original(key) != original(nearest.image)
    ]


def original(key: str) -> str:
    """`archive/scans/00012-1.jpg` comes from 00012."""
    return key.rsplit("/", 1)[-1].split("-")[0]


def assert_all_done(connection: Connection, files: dict[str, bytes]) -> None:
    assert books.count_books(connection, ENCODER) == books.Books(len(files), len(files), 0, 0, 0)
    assert audit(connection, ENCODER).balanced
    assert misplaced_copies(connection) == []


def test_every_image_is_done_and_every_near_copy_is_found_first(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    tmp_path: Path,
    archive_files: dict[str, bytes],
    web: str,
) -> None:
    """300 images over HTTP and S3, two worker processes: all done, and neighbours as planted."""
    http_files = dict(list(archive_files.items())[::2])
    s3_files = dict(list(archive_files.items())[1::2])
    with aws_server() as aws:
        client = boto3.client(
            "s3",
            endpoint_url=aws["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="eu-west-1",
        )
        client.create_bucket(Bucket="archive", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        for name, data in s3_files.items():
            client.put_object(Bucket="archive", Key=f"scans{name}", Body=data)
        system = lookalike(**aws)
        table = write_csv(tmp_path / "images.csv", web, http_files)
        system.run("add", str(table), "s3://archive/scans/")
        for words in (["orchestrate"], ["worker"], ["worker"]):
            system.start(*words)
        wait_until(lambda: is_complete(connection, IMAGES), 180, system.logs())

    counted = books.count_books(connection, ENCODER)
    assert counted == books.Books(IMAGES, IMAGES, 0, 0, 0)
    status = json.loads(system.run("status", "--json").stdout)["encoders"][ENCODER]
    assert {key: status[key] for key in ("registered", "done", "failed", "open", "complete", "failures")} == {
        "registered": IMAGES, "done": IMAGES, "failed": 0, "open": 0, "complete": True, "failures": {},
    }  # fmt: skip
    assert misplaced_copies(connection) == []
    key = f"archive/scans{list(s3_files)[-1]}"
    found = json.loads(system.run("similar", key, "-k", "3", "--json").stdout)
    assert found["query"] == key
    assert [n["rank"] for n in found["neighbours"]] == [1, 2, 3]


@pytest.mark.slow  # the small fault bench of test_chaos.py has it as well
def test_a_killed_worker_loses_nothing(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    tmp_path: Path,
    archive_files: dict[str, bytes],
    web: str,
) -> None:
    """One of two workers is killed (-9) midway: every image has one vector in the end, and the books balance."""
    system = lookalike(LOOKALIKE_LEASE_SECONDS="3", LOOKALIKE_CHUNK_SIZE="16")
    system.run("add", str(write_csv(tmp_path / "images.csv", web, archive_files)))
    system.start("orchestrate")
    victim, _ = system.start("worker"), system.start("worker")
    wait_until(lambda: books.count_books(connection, ENCODER).done >= 32, 120, system.logs())
    victim.send_signal(signal.SIGKILL)
    wait_until(lambda: is_complete(connection, IMAGES), 180, system.logs())

    assert_all_done(connection, archive_files)


@pytest.mark.slow  # the small fault bench of test_chaos.py has it as well
def test_a_flushed_broker_loses_nothing(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    broker_url: str,
    tmp_path: Path,
    archive_files: dict[str, bytes],
    web: str,
) -> None:
    """FLUSHALL midway takes every message away: they are published again at once, and nothing is done twice."""
    system = lookalike(LOOKALIKE_CHUNK_SIZE="16")
    system.run("add", str(write_csv(tmp_path / "images.csv", web, archive_files)))
    system.start("orchestrate")
    system.start("worker")
    wait_until(lambda: books.count_books(connection, ENCODER).done >= 32, 120, system.logs())
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        client.flushall()
    wait_until(lambda: is_complete(connection, IMAGES), 180, system.logs())

    assert_all_done(connection, archive_files)


@pytest.mark.slow
def test_a_restarted_broker_loses_nothing(
    connection: Connection,
    database_url: str,
    tmp_path: Path,
    archive_files: dict[str, bytes],
    web: str,
) -> None:
    """A broker that is killed while all threads of the worker are busy, and comes back, is used again."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-tests-"))
    janitor = remove_with(home)
    settings = embedded_settings(home).model_copy(update={"database_url": SecretStr(database_url)})
    system = Lookalike(tmp_path, database_url, services.up(settings).broker_url, LOOKALIKE_CHUNK_SIZE="16")
    try:
        system.run("add", str(write_csv(tmp_path / "images.csv", web, archive_files)))
        system.start("orchestrate")
        system.start("worker")
        for done in (32, 96):
            wait_until(
                lambda done=done: books.count_books(connection, ENCODER).done >= done, 120, system.logs()
            )
            pid = Valkey(home).pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            time.sleep(3)  # so that chunks end meanwhile
            services.up(settings)
        wait_until(lambda: is_complete(connection, IMAGES), 180, system.logs())
    finally:
        system.stop()
        wait_for(janitor)

    assert_all_done(connection, archive_files)


def test_each_bad_image_fails_with_its_own_reason(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    tmp_path: Path,
    archive_files: dict[str, bytes],
) -> None:
    """Truncated, HTML, 404, bomb and zero bytes in one chunk: five reasons; the rest of the chunk is done."""
    good = dict(list(archive_files.items())[:11])
    bad = {
        "/truncated.jpg": next(iter(good.values()))[:5000],
        "/html.jpg": b"<!DOCTYPE html><html><body>Sorry, an error occurred</body></html>",
        "/bomb.png": bomb(),
        "/empty.jpg": b"",
    }
    with http_server({**good, **bad}) as address:
        system = lookalike()
        table = write_csv(tmp_path / "images.csv", address, {**good, **bad, "/missing.jpg": b""})
        done = system.run("run", str(table), "--json")

    assert json.loads(done.stdout) == {
        "registered": 16, "done": 11, "failed": 5, "open": 0, "lost": 0, "complete": True,
        "failures": {"bomb": 1, "empty": 1, "html_page": 1, "not_found": 1, "truncated": 1},
        "refused": {},
    }  # fmt: skip
    reasons = {f.image: f.reason for f in books.list_failures(connection, ENCODER)}
    assert reasons == {
        "truncated.jpg": "truncated", "html.jpg": "html_page", "missing.jpg": "not_found",
        "bomb.png": "bomb", "empty.jpg": "empty",
    }  # fmt: skip


@pytest.mark.slow
def test_a_stopped_run_resumes(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    tmp_path: Path,
    archive_files: dict[str, bytes],
    web: str,
) -> None:
    """Ctrl-C midway gives back what is held; a second run without sources does the rest."""
    system = lookalike(LOOKALIKE_CHUNK_SIZE="16")
    table = write_csv(tmp_path / "images.csv", web, archive_files)
    process = system.start("run", str(table))
    wait_until(
        lambda: bool(books.encoder_names(connection)) and books.count_books(connection, ENCODER).done >= 32,
        120,
        system.logs(),
    )
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert connection.execute("select count(*) from chunks where state = 'running'").fetchone() == (0,)

    system.run("run")
    assert_all_done(connection, archive_files)


@pytest.mark.slow
def test_sigterm_stops_a_worker_in_order(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    tmp_path: Path,
    archive_files: dict[str, bytes],
    web: str,
) -> None:
    """A worker finishes what it holds, says that it leaves, with exit code 0, and no chunk counts a crash."""
    system = lookalike(LOOKALIKE_CHUNK_SIZE="16")
    system.run("add", str(write_csv(tmp_path / "images.csv", web, archive_files)))
    system.start("orchestrate")
    worker = system.start("worker")
    wait_until(lambda: books.count_books(connection, ENCODER).done >= 32, 120, system.logs())
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(60) == 0
    assert connection.execute(
        "select count(*) filter (where state = 'running'), max(crashes) from chunks"
    ).fetchone() == (0, 0)
    # Nobody takes it for one that has fallen silent.
    assert connection.execute("select count(*) from workers").fetchone() == (0,)


@pytest.mark.slow  # the small fault bench of test_chaos.py has it as well
def test_cut_connections_are_made_again(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    tmp_path: Path,
    archive_files: dict[str, bytes],
    web: str,
) -> None:
    """Every connection of `run` to the database is cut midway: it goes on, ends with code 0, and no chunk crashed."""
    system = lookalike(LOOKALIKE_CHUNK_SIZE="16")
    process = system.start("run", str(write_csv(tmp_path / "images.csv", web, archive_files)))
    for done in (32, 96):
        wait_until(
            lambda done=done: (
                bool(books.encoder_names(connection)) and books.count_books(connection, ENCODER).done >= done
            ),
            120,
            system.logs(),
        )
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )

    assert process.wait(180) == 0, system.logs()
    assert connection.execute("select max(crashes) from chunks").fetchone() == (0,)
    assert_all_done(connection, archive_files)


class PoisonedFiles(dict[str, bytes]):
    """Files of which one kills whoever asks for it, as a picture does on which a decoder breaks."""

    def __init__(self, files: dict[str, bytes], poison: str, kill: Callable[[], None]) -> None:
        super().__init__(files)
        self._poison, self._kill = poison, kill

    def get(self, path: str, default: Any = None) -> Any:
        if path == self._poison:
            self._kill()
        return super().get(path, default)


def test_an_image_that_kills_its_worker_is_found_and_harms_no_other(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    tmp_path: Path,
    archive_files: dict[str, bytes],
) -> None:
    """Its worker has four chunks at once; after three crashes the one image is failed, and all others are done."""
    system = lookalike(LOOKALIKE_CHUNK_SIZE="1", LOOKALIKE_CHUNK_THREADS="4", LOOKALIKE_LEASE_SECONDS="3")
    names = list(archive_files)[:8]
    workers = []
    files = PoisonedFiles(archive_files, names[1], lambda: workers[-1].kill())
    with http_server(files) as address:
        system.run("add", str(write_csv(tmp_path / "images.csv", address, dict.fromkeys(names, b""))))
        system.start("orchestrate")

        def is_over() -> bool:
            if not workers or workers[-1].poll() is not None:
                workers.append(system.start("worker"))
            return is_complete(connection, len(names))

        wait_until(is_over, 180, system.logs())

    assert books.count_books(connection, ENCODER) == books.Books(len(names), len(names) - 1, 1, 0, 0)
    (failure,) = books.list_failures(connection, ENCODER)
    assert (failure.image, failure.reason, failure.attempts) == (names[1][1:], "crashed_worker", 3)


@pytest.mark.slow
def test_an_event_overtakes_a_backfill(
    lookalike: Callable[..., Lookalike],
    connection: Connection,
    tmp_path: Path,
    archive_files: dict[str, bytes],
    web: str,
) -> None:
    """An image announced by an event is searchable before the backfill chunks that were queued already."""
    first, *rest = archive_files
    system = lookalike(LOOKALIKE_CHUNK_SIZE="8")
    system.run("add", str(write_csv(tmp_path / "images.csv", web, dict.fromkeys(rest, b""))))
    system.start("orchestrate")
    system.start("worker")
    wait_until(lambda: books.count_books(connection, ENCODER).done >= 16, 120, system.logs())
    ledger.register(connection, [Image("event.jpg", web + first)], "events", chunk_size=1)
    wait_until(lambda: is_complete(connection, IMAGES), 180, system.logs())

    overtaken = connection.execute(
        "select count(*) from chunks b, chunks e where e.lane = 'events' and b.lane = 'backfill'"
        " and b.done_at > e.done_at"
    ).fetchone()
    assert overtaken is not None
    assert overtaken[0] >= 12  # of a window of 16 that lay in the queue before it, less those under way


def test_an_event_does_not_wait_for_a_backfill_that_hangs(
    lookalike: Callable[..., Lookalike], connection: Connection, tmp_path: Path, web: str
) -> None:
    """While all chunks of a backfill wait for a host that answers a byte now and then, events are searchable."""
    with misbehaving_server() as server:
        server.misdeed = Misbehaving.drip
        system = lookalike(
            LOOKALIKE_CHUNK_SIZE="4", LOOKALIKE_FETCH_TIMEOUT="600", LOOKALIKE_STOP_SECONDS="1"
        )
        names = {f"/{number}.jpg": b"" for number in range(16)}
        system.run("add", str(write_csv(tmp_path / "images.csv", server.url, names)))
        system.start("orchestrate")
        worker = system.start("worker")

        def running() -> list[Any]:
            return connection.execute("select id from chunks where state = 'running' order by id").fetchall()

        wait_until(lambda: len(running()) == 2, 60, system.logs)
        hanging = running()
        for number in range(2):
            ledger.register(connection, [Image(f"event-{number}.jpg", f"{web}/{number:05}-0.jpg")], "events")
            done = number + 1
            wait_until(lambda: books.count_books(connection, ENCODER).done == done, 30, system.logs)  # noqa: B023
        assert running() == hanging

        # What hangs is given back, and the worker leaves in order.
        worker.send_signal(signal.SIGTERM)
        server.is_over.set()
        assert worker.wait(90) == 0
