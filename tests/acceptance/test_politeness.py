"""Real workers and hosts that want to be spared: nothing is lost, nobody else waits, and the limits hold."""

import csv
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike import books, ledger
from lookalike.database import Connection
from lookalike.images import Image
from tests.pictures import jpeg, photographs
from tests.servers import Lookalike, WatchedServer, wait_until, watched_server

ENCODER = "efficientnet-lite0"
PICTURE = jpeg(photographs()[0])
Make = Callable[..., Lookalike]


def fine(_: str) -> tuple[int, bytes, dict[str, str]]:
    return 200, PICTURE, {}


def write_table(folder: Path, name: str, server: WatchedServer, count: int) -> str:
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["key", "url"])
        for number in range(count):
            table.writerow([f"{name}/{number}", f"{server.url}/{name}/{number}"])
    return str(path)


def count(connection: Connection) -> books.Books:
    return books.count_books(connection, ENCODER)


def done(connection: Connection, name: str) -> int:
    row = connection.execute(
        "select count(*) from vectors_efficientnet_lite0 v join images i on i.id = v.image_id"
        " where i.key like %s",
        [f"{name}/%"],
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


@pytest.mark.slow
def test_workers_share_the_limits_of_a_host(lookalike: Make, connection: Connection, tmp_path: Path) -> None:
    """Two workers ask no more than 4 at once and 20 a second together; one is killed, and the other takes its place."""
    with watched_server(fine, 0.1) as server:
        hosts = json.dumps({server.host: {"rate": 20, "concurrency": 4}})
        system = lookalike(LOOKALIKE_HOSTS=hosts, LOOKALIKE_CHUNK_SIZE="16", LOOKALIKE_LEASE_SECONDS="3")
        system.run("add", write_table(tmp_path, "a", server, 300))
        system.start("orchestrate")
        victim, _ = system.start("worker"), system.start("worker")
        wait_until(lambda: count(connection).done >= 100, 120, system.logs())
        victim.kill()
        wait_until(lambda: count(connection).complete, 180, system.logs())

        assert count(connection) == books.Books(300, 300, 0, 0, 0)
        assert server.most <= 4
        for span in (1, 2, 5):
            assert server.most_within(span) <= 20 + 20 * span


@pytest.mark.slow
def test_a_throttling_host_costs_no_attempt_and_holds_nobody_up(
    lookalike: Make, connection: Connection, tmp_path: Path
) -> None:
    """429 with Retry-After 2: no request before that, and with a single try each image is done in the end; meanwhile
    another host's images are, and `status` says what is going on.
    """
    refused: list[float] = []

    def throttle(path: str) -> tuple[int, bytes, dict[str, str]]:
        if len(refused) < 3 and (not refused or time.monotonic() - refused[-1] > 1):
            refused.append(time.monotonic())
            return 429, b"", {"Retry-After": "2"}
        return fine(path)

    with watched_server(throttle) as busy, watched_server(fine) as other:
        system = lookalike(LOOKALIKE_TRIES="1", LOOKALIKE_CHUNK_SIZE="16", LOOKALIKE_FETCH_THREADS="4")
        system.run("add", write_table(tmp_path, "a", busy, 60))
        system.run("add", write_table(tmp_path, "b", other, 60))
        system.start("orchestrate")
        system.start("worker")
        wait_until(lambda: bool(refused), 120, system.logs())
        shown = json.loads(system.run("status", "--json").stdout)["hosts"]
        wait_until(lambda: count(connection).complete, 180, system.logs())

        assert count(connection) == books.Books(120, 120, 0, 0, 0)
        assert len(refused) == 3
        for since in refused:
            # What was under way at that moment had been sent already.
            later = [began - since for began, *_ in busy.asked if began - since > 0.5]
            assert min(later) >= 2
        assert [one["state"] for one in shown if one["host"] == busy.host] in (["paused"], ["slowed"])


@pytest.mark.slow
def test_while_a_host_is_paused_others_go_on_and_events_overtake(
    lookalike: Make, connection: Connection, tmp_path: Path
) -> None:
    """A host that is down leaves its images open and its neighbours alone; what an event brings is done at once."""
    with watched_server(lambda _: (503, b"", {})) as down, watched_server(fine) as other:
        hosts = json.dumps({other.host: {"rate": 10}})
        system = lookalike(LOOKALIKE_TRIES="1", LOOKALIKE_CHUNK_SIZE="16", LOOKALIKE_HOSTS=hosts)
        system.run("add", write_table(tmp_path, "down", down, 100))
        system.run("add", write_table(tmp_path, "other", other, 200))
        system.start("orchestrate")
        system.start("worker")
        wait_until(lambda: done(connection, "other") >= 20, 120, system.logs())
        ledger.register(connection, [Image("event/1", f"{other.url}/event")], "events", chunk_size=1)
        wait_until(lambda: done(connection, "event") == 1, 10, system.logs())
        assert done(connection, "other") < 180
        wait_until(lambda: done(connection, "other") == 200, 60, system.logs())

        assert count(connection) == books.Books(301, 201, 0, 100, 0)
        assert len(down.asked) < 50
        assert connection.execute("select max(attempts) from chunks where state <> 'done'").fetchone() == (0,)
        down.answering = fine
        wait_until(lambda: count(connection).complete, 120, system.logs())
        assert count(connection) == books.Books(301, 301, 0, 0, 0)


@pytest.mark.slow
def test_a_run_of_refusals_passes(lookalike: Make, connection: Connection, tmp_path: Path) -> None:
    """A host that refuses everything for a while is paused and tried again; what it refuses afterwards still fails."""
    numbers = itertools.count()

    def refuse(path: str) -> tuple[int, bytes, dict[str, str]]:
        secret = path.endswith("/7")
        return (403, b"", {}) if next(numbers) < 12 or secret else fine(path)

    with watched_server(refuse) as server:
        system = lookalike(LOOKALIKE_FETCH_THREADS="2")
        done = system.run("run", write_table(tmp_path, "a", server, 40), "--json")

    said = json.loads(done.stdout)
    assert (said["done"], said["failed"], said["failures"]) == (39, 1, {"forbidden": 1})
