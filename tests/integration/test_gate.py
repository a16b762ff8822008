"""The gate on the way to each host: real requests to servers that watch, agreed upon in a real Valkey."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lookalike.errors import ImageError
from lookalike.hosts import SharedHosts, list_hosts
from lookalike.ledger import ChunkImage
from lookalike.reasons import Reason
from lookalike.settings import Settings
from tests.servers import WatchedServer, free_port, wait_until, watched_server
from workers.fetch import Fetcher
from workers.gate import Gate, Host, TurnedAway

PICTURE = b"picture" * 100


class Fetching:
    """A worker as far as its gate: threads that fetch what comes through, and what became of it."""

    def __init__(self, broker_url: str | None, name: str, **settings: Any) -> None:
        self.settings = Settings(_env_file=None, **{"fetch_threads": 8, **settings})
        self.fetched: list[str] = []
        self.failed: list[tuple[str, Reason]] = []
        self.turned_away: list[tuple[str, Host, bool, str]] = []
        self.blocked: list[Any] = []
        self.shared = SharedHosts(broker_url, name) if broker_url else None
        self.gate: Gate[str] = Gate(self.settings, self.shared, self._turn_away)
        self._fetcher = Fetcher(self.settings)
        for _ in range(self.settings.fetch_threads):
            threading.Thread(target=self._work, daemon=True).start()

    def put(self, *urls: str, urgent: bool = False) -> None:
        self.gate.put(((url, self._fetcher.host(url), 1) for url in urls), urgent)

    def schedule(self) -> list[tuple[int, float, bool]]:
        """How many images come back when, and whether it is for a pause."""
        images = [
            TurnedAway(ChunkImage(n, url, url, "file", 1), host, paused, why)
            for n, (url, host, paused, why) in enumerate(self.turned_away)
        ]
        return [(len(one.images), one.seconds, one.paused) for one in self.gate.schedule(images, False)]

    @property
    def settled(self) -> int:
        return len(self.fetched) + len(self.failed) + len(self.turned_away)

    def _turn_away(self, url: str, host: Host, paused: bool, detail: str) -> None:
        self.turned_away.append((url, host, paused, detail))

    def _work(self) -> None:
        while True:
            url, visit = self.gate.take()
            try:
                self._fetcher.fetch(url, "file", 384, answered=visit.answered)
            except ImageError as error:
                self.failed.append((url, error.reason))
                self.blocked.append(visit.run)
            else:
                self.fetched.append(url)
            finally:
                visit.leave()


def fine(_: str) -> tuple[int, bytes, dict[str, str]]:
    return 200, PICTURE, {}


@contextmanager
def servers(*answering: Callable[[str], Any], seconds: float = 0.0) -> Iterator[list[WatchedServer]]:
    if not answering:
        yield []
        return
    with watched_server(answering[0], seconds) as first, servers(*answering[1:], seconds=seconds) as others:
        yield [first, *others]


def addresses(server: WatchedServer, count: int, prefix: str = "") -> list[str]:
    return [f"{server.url}/{prefix}{number}" for number in range(count)]


def test_two_workers_together_keep_the_limits(broker_url: str) -> None:
    """Concurrency 4 and rate 20/s: never more, whatever the two want, and both get their part."""
    with watched_server(fine, 0.1) as server:
        limits = {"hosts": {server.host: {"rate": 20, "concurrency": 4}}}
        workers = [Fetching(broker_url, name, **limits) for name in "ab"]
        for worker in workers:
            worker.put(*addresses(server, 40))
        wait_until(lambda: sum(worker.settled for worker in workers) == 80, 20)
        assert server.most <= 4
        for span in (1, 2, 3):
            assert server.most_within(span) <= 20 + 20 * span
        assert all(worker.fetched for worker in workers)


def test_without_a_rate_all_slots_are_used(broker_url: str) -> None:
    """Two workers that share four slots wait for each other, but never for nothing."""
    with watched_server(fine, 0.05) as server:
        workers = [Fetching(broker_url, name, host_concurrency=4) for name in "ab"]
        for worker in workers:
            worker.put(*addresses(server, 80))
        wait_until(lambda: sum(len(worker.fetched) for worker in workers) == 160, 20)
        assert server.most == 4
        assert all(len(worker.fetched) == 80 for worker in workers)


def test_a_paused_host_is_left_in_peace_by_all(broker_url: str) -> None:
    """Its images are turned away to come back after the pause, while those of another host go on at once."""
    until = time.monotonic() + 1000

    def throttle(_: str) -> tuple[int, bytes, dict[str, str]]:
        return (429, b"", {"Retry-After": "30"}) if time.monotonic() < until else fine("")

    with servers(throttle, fine, seconds=0.02) as (busy, other):
        a, b = (Fetching(broker_url, name) for name in "ab")
        a.put(*addresses(busy, 100), *addresses(other, 20))
        wait_until(lambda: a.settled == 120, 5)
        assert len(a.fetched) == 20
        asked = len(busy.asked)
        assert asked <= 8  # as many as there are threads: all under way when the first answer came
        time.sleep(0.3)
        b.put(*addresses(busy, 50), *addresses(other, 20, "b"))
        wait_until(lambda: b.settled == 70, 5)
        assert (len(b.fetched), len(busy.asked)) == (20, asked)
        assert all(paused and "answered 429" in why for _, _, paused, why in b.turned_away)
        times = [seconds for _, seconds, _ in b.schedule()]
        assert 28 < times[0] <= 33
        assert times == sorted(times)
        (paused, *_) = list_hosts(broker_url)
        assert (paused.host, paused.state) == (busy.host, "paused")


def test_a_pause_ends_with_one_image(broker_url: str) -> None:
    """After it one image tries the host, and when that is answered, all the others follow."""
    refusing = threading.Event()
    refusing.set()

    def throttle(_: str) -> tuple[int, bytes, dict[str, str]]:
        return (503, b"", {"Retry-After": "1"}) if refusing.is_set() else fine("")

    with watched_server(throttle, 0.1) as server:
        worker = Fetching(broker_url, "a")
        worker.put(*addresses(server, 8))
        wait_until(lambda: worker.settled == 8, 5)
        refused_at = server.asked[-1][0]
        refusing.clear()
        server.asked.clear()
        time.sleep(max(0, refused_at + 0.7 - time.monotonic()))
        worker.put(*addresses(server, 4))  # so little is left of the pause that they wait for its end
        wait_until(lambda: len(worker.fetched) == 4, 10)
        first, second, *_ = (began for began, *_ in server.asked)
        assert first - refused_at >= 0.99
        assert second - first >= 0.1


@pytest.mark.parametrize("status", [403, 503])
def test_refusals_of_everything_pause_a_host(broker_url: str, status: int) -> None:
    """Ten in a row are about us: the host is paused, and these images may be tried again. Single ones are not."""
    with watched_server(lambda path: (status, b"", {}) if "secret" in path else fine(path)) as server:
        worker = Fetching(broker_url, "a", fetch_threads=2)
        mixed = [
            address
            for pair in zip(addresses(server, 30, "secret"), addresses(server, 30), strict=True)
            for address in pair
        ]
        for address in mixed:  # one after the other, so that none is overtaken
            worker.put(address)
            wait_until(lambda: worker.settled % 2 == 0 or len(worker.failed) > len(worker.fetched), 5)
        wait_until(lambda: worker.settled == 60, 5)
        assert (len(worker.fetched), len(worker.failed), worker.turned_away) == (30, 30, [])
        assert not any(run.blocked for run in worker.blocked)
        worker.put(*addresses(server, 40, "secret"))
        wait_until(lambda: worker.settled == 100, 5)
        assert worker.turned_away
        assert all(run.blocked for run in worker.blocked[-10:])
        assert len(worker.failed) - 30 <= 12  # ten, and what was under way


def test_what_would_wait_long_is_turned_away(broker_url: str) -> None:
    """Of many images of a slow host those whose turn comes soon are kept; the others come back one after the other."""
    with servers(fine, fine) as (slow, quick):
        worker = Fetching(broker_url, "a", hosts={slow.host: {"rate": 5}})
        worker.put(*addresses(slow, 50), *addresses(quick, 50))
        wait_until(lambda: worker.settled == 100, 6)
        assert 10 <= len(slow.asked) <= 5 + 5 * 4
        groups = worker.schedule()
        assert sum(count for count, *_ in groups) == 50 - len(slow.asked)
        assert {paused for *_, paused in groups} == {False}
        assert [count for count, *_ in groups[:-1]] == [10] * (len(groups) - 1)
        assert groups[1][1] - groups[0][1] == pytest.approx(2, abs=0.2)


def test_hosts_that_hang_leave_room_for_urgent_images(broker_url: str) -> None:
    """Whatever else is to be fetched, one of eight threads is left for an event, and does nothing else."""
    with servers(fine, fine, seconds=3.0) as (hanging, other):
        worker = Fetching(broker_url, "a", host_concurrency=0)
        worker.put(*addresses(hanging, 20))
        wait_until(lambda: len(hanging.asked) == 7, 2)
        began = time.monotonic()
        worker.put(*addresses(other, 1), urgent=True)
        wait_until(lambda: len(other.asked) == 1, 1)
        assert time.monotonic() - began < 1
        assert len(hanging.asked) == 7


def test_urgent_images_go_first(broker_url: str) -> None:
    """What an event announced overtakes all that waits for the same host, and is not turned away for it."""
    with watched_server(fine) as server:
        worker = Fetching(broker_url, "a", hosts={server.host: {"rate": 5}})
        worker.put(*addresses(server, 50))
        wait_until(lambda: len(server.asked) >= 5, 5)
        before = len(server.asked)
        worker.put(server.url + "/event", urgent=True)
        wait_until(lambda: server.url + "/event" in worker.fetched, 5)
        assert [path for _, path, _ in server.asked].index("/event") <= before + 1


def test_urgent_images_go_before_those_of_other_hosts(broker_url: str) -> None:
    """A backfill of one host waits for threads, not for its host: an event at another one is next all the same."""
    with servers(fine, fine, seconds=0.2) as (slow, other):
        worker = Fetching(broker_url, "a", fetch_threads=2)
        worker.put(*addresses(slow, 20))
        wait_until(lambda: len(worker.fetched) >= 2, 10)
        worker.put(other.url + "/event", urgent=True)
        wait_until(lambda: other.url + "/event" in worker.fetched, 10)
        assert len(worker.fetched) <= 10


def test_who_waits_in_a_thread_of_its_own_is_let_in(broker_url: str) -> None:
    """Beside images in line; and is told when that takes too long or the host is paused."""
    with watched_server(fine, 0.05) as server:
        worker = Fetching(broker_url, "a", host_concurrency=2)
        host = Host(server.host, limited=True)
        worker.put(*addresses(server, 20))
        visit = worker.gate.enter(host, 1, 5)
        assert visit is not None
        other = worker.gate.enter(Host("nothing", limited=False), 1, 5)
        assert other is not None
        other.leave()
        visit.answered(429, 60.0)
        visit.leave()
        since = time.monotonic()
        assert worker.gate.enter(host, 1, 5) is None
        assert time.monotonic() - since < 1


def test_a_valkey_that_is_away_stops_nobody(
    broker_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker then keeps its limits by itself, says so once, and shares them again when Valkey is back."""
    monkeypatch.setattr("workers.agreement._AWAY_SECONDS", 0.3)
    with servers(fine, lambda _: (429, b"", {"Retry-After": "60"}), seconds=0.02) as (server, busy):
        limits = {server.host: {"rate": 20, "concurrency": 2}}
        nowhere = f"redis://127.0.0.1:{free_port()}/0"
        worker = Fetching(nowhere, "a", hosts=limits)
        with caplog.at_level(logging.WARNING):
            worker.put(*addresses(server, 40), *addresses(busy, 20))
            wait_until(lambda: worker.settled == 60, 10)
        assert 20 <= len(worker.fetched) <= 40
        assert server.most <= 2
        assert server.most_within(1) <= 40
        assert len([r for r in caplog.records if "by itself" in r.message]) == 1
        assert sum(count for count, *_ in worker.schedule()) == len(worker.turned_away)
        assert worker.shared is not None
        worker.shared._redis.close()
        worker.shared._redis = SharedHosts(broker_url, "a")._redis
        wait_until(lambda: any(one.state == "paused" for one in list_hosts(broker_url)), 5)


def test_files_pass_at_once(broker_url: str) -> None:
    """What needs no host is asked of nobody."""
    worker = Fetching(broker_url, "a", fetch_threads=2)
    worker.put(*["/dev/null"] * 500)
    wait_until(lambda: worker.settled == 500, 5)
    assert "" not in [one.host for one in list_hosts(broker_url)]
