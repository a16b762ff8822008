"""What workers agree on about hosts, in the scripts of a real Valkey."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from lookalike.hosts import Demand, Grant, SharedHosts, Trouble, host_of, list_hosts
from lookalike.queue import redis_url
from lookalike.settings import HostLimit

HOST = "iiif.example.org"
FREE = HostLimit()
Make = Callable[..., SharedHosts]


@pytest.fixture
def make(broker_url: str) -> Iterator[Make]:
    made: list[SharedHosts] = []

    def make_one(worker: str = "a", lifetime: float = 15.0) -> SharedHosts:
        made.append(SharedHosts(broker_url, worker, lifetime))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def ask(
    hosts: SharedHosts,
    limit: HostLimit = FREE,
    *,
    host: str = HOST,
    under_way: int = 0,
    waiting: int = 0,
    cost: int = 1,
    unspent: int = 0,
    begun: int = 0,
    probing: bool = False,
) -> Grant:
    demand = Demand(host, limit, under_way, waiting, waiting * cost, cost, unspent, begun, probing)
    (grant,), _ = hosts.exchange([], [demand], [])
    return grant


def trouble(
    hosts: SharedHosts, age: float = 0.0, retry_after: float | None = None, host: str = HOST
) -> float:
    _, (pause,) = hosts.exchange([], [], [Trouble(host, age, retry_after, "answered 429")])
    return pause


def test_hosts_without_limits_are_free(make: Make) -> None:
    """Nothing is counted out where nothing is limited; what one worker has under way is seen by all."""
    grant = ask(make(), waiting=100)
    assert (grant.allowed, grant.tokens, grant.pause, grant.open) == (None, None, 0, False)


def test_slots_are_shared_and_never_more_than_the_limit(make: Make) -> None:
    """Who comes first takes what is free, gives up half when another wants as much, and all that it does not need."""
    limit = HostLimit(concurrency=4)
    a, b = make("a"), make("b")
    assert ask(a, limit, waiting=10).allowed == 4
    assert ask(b, limit, waiting=10).allowed == 0
    assert ask(a, limit, under_way=4, waiting=10).allowed == 2
    assert ask(b, limit, waiting=10).allowed == 0  # a still has four under way
    assert ask(a, limit, under_way=2, waiting=10).allowed == 2
    assert ask(b, limit, waiting=10).allowed == 2
    assert ask(b, limit, under_way=1).allowed == 1
    assert ask(a, limit, under_way=2, waiting=10).allowed == 3


def test_more_workers_than_slots_take_turns(make: Make) -> None:
    """Five workers at a host that bears two: two hold a slot at any time, and each has had one after a while."""
    limit = HostLimit(concurrency=2)
    workers = {name: make(name) for name in "abcde"}
    holding = dict.fromkeys(workers, 0)
    served = set()
    for _ in range(60):
        for name, hosts in workers.items():
            # What is under way ends before the next round, and goes on where that is still allowed.
            holding[name] = ask(hosts, limit, waiting=5).allowed or 0
            assert sum(holding.values()) <= 2
            if holding[name]:
                served.add(name)
    assert served == set(workers)


def test_slots_of_a_dead_worker_come_back(make: Make) -> None:
    """Whoever falls silent holds nothing after its lifetime."""
    limit = HostLimit(concurrency=4)
    ask(make("dead", lifetime=0.3), limit, waiting=4)
    b = make("b")
    assert ask(b, limit, waiting=4).allowed == 0
    time.sleep(0.4)
    assert ask(b, limit, waiting=4).allowed == 4


def test_the_rate_holds_for_all_workers_together(make: Make) -> None:
    """After what may come at once, two greedy workers begin as many requests as time allows, and no more."""
    limit = HostLimit(rate=50)
    a, b = make("a"), make("b")
    since = time.monotonic()
    begun = 0
    while time.monotonic() - since < 1.5:
        for hosts in (a, b):
            begun += ask(hosts, limit, waiting=100).tokens or 0
        time.sleep(0.01)
    assert 50 + 0.5 * 75 <= begun <= 50 + 50 * (time.monotonic() - since)


def test_a_slow_rate_lets_one_through_at_a_time(make: Make) -> None:
    """One request in ten seconds: one at once, then the wait is named; an image of two requests waits for both."""
    hosts = make()
    limit = HostLimit(rate=0.1)
    assert ask(hosts, limit, waiting=5).tokens == 1
    later = ask(hosts, limit, waiting=5)
    assert later.tokens == 0
    assert 9 < later.wait <= 10
    pair = ask(hosts, limit, waiting=5, cost=2, host="pairs.example.org")
    assert (pair.tokens, 19 < pair.wait <= 20) == (2, True)


def test_unspent_requests_are_given_back(make: Make) -> None:
    """What was granted and not begun may be begun later, but never saved up beyond what may come at once."""
    hosts = make()
    limit = HostLimit(rate=10)
    granted = [ask(hosts, limit, waiting=100).tokens or 0 for _ in range(3)]
    assert granted == [5, 5, 0]
    assert ask(hosts, limit, unspent=5).tokens == 0
    assert ask(hosts, limit, waiting=100).tokens == 5
    ask(hosts, limit, unspent=1000)
    assert sum(ask(hosts, limit, waiting=100).tokens or 0 for _ in range(5)) <= 11


def test_a_paused_host_is_tried_by_one_image(make: Make) -> None:
    """Retry-After is obeyed by all; then one may try, and its success lets all in again, more slowly than before."""
    a, b = make("a"), make("b")
    ask(a, begun=200, waiting=5)
    assert 0.3 <= trouble(a, retry_after=0.3) <= 0.34
    paused = ask(b, waiting=5)
    assert (paused.open, paused.probe, paused.why) == (True, False, "answered 429")
    assert 0.2 < paused.pause <= 0.34
    time.sleep(0.35)
    assert ask(b, waiting=5).probe
    assert not ask(a, waiting=5).probe
    assert ask(b, under_way=1, waiting=4, probing=True).probe
    (grant,), _ = b.exchange([HOST], [Demand(HOST, FREE, 0, 5, 5, 1, 0, 0, False)], [])
    assert (grant.open, grant.tokens) == (False, 5)
    assert 25 <= grant.rate <= 110  # of 200 requests, in the last four seconds or in one


def test_who_may_try_and_does_not_lets_another(make: Make) -> None:
    """A permission to try is not lost with an image that was taken out of the line, nor with its worker."""
    a, b, c = make("a", lifetime=0.2), make("b"), make("c")
    trouble(a, retry_after=0.01)
    time.sleep(0.02)
    assert ask(a, waiting=1).probe
    assert not ask(a).probe  # nobody waits there any more
    assert ask(b, waiting=1).probe
    assert not ask(c, waiting=1).probe
    assert not ask(b).probe
    assert ask(a, waiting=1).probe
    time.sleep(0.25)
    assert ask(c, waiting=1).probe


def test_pauses_grow_with_each_failure_after_one(make: Make) -> None:
    """5 s, then twice as long; answers to requests from before the pause tell nothing new."""
    hosts = make()
    assert 5 <= trouble(hosts) <= 5.5
    assert trouble(hosts, age=1) <= 5.5
    assert 9.9 <= trouble(hosts) <= 11
    assert 19.9 <= trouble(hosts) <= 22
    for _ in range(6):
        longest = trouble(hosts)
    assert 299 <= longest <= 330
    assert 3599 <= trouble(hosts, retry_after=10**6) <= 3960


def test_a_slowed_host_recovers(make: Make, broker_url: str) -> None:
    """Its rate grows while it is asked and answers, until it is forgotten that it was slowed."""
    hosts = make()
    ask(hosts, begun=20)
    trouble(hosts)
    hosts.exchange([HOST], [], [])
    first = ask(hosts, waiting=1).rate
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        client.hincrbyfloat(f"lookalike:host:state:{HOST}", "grown", -1)
    assert 1.01 < ask(hosts, waiting=1).rate / first < 1.1
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        client.hset(f"lookalike:host:state:{HOST}", "slow", 1000)
    ask(hosts, waiting=1)
    assert ask(hosts, waiting=1).rate == 0


def test_images_come_back_one_group_after_the_other(make: Make) -> None:
    """At the rate of the host, behind all that were sent away before; urgent ones are not put behind."""
    a, b = make("a"), make("b")
    limit = HostLimit(rate=10)
    groups = a.schedule(HOST, 50, 1, limit, urgent=False)
    assert [count for count, _ in groups] == [20, 20, 10]
    assert [round(seconds) for _, seconds in groups] == [0, 2, 4]
    assert [(count, round(seconds)) for count, seconds in b.schedule(HOST, 5, 2, limit, urgent=False)] == [
        (5, 5)
    ]
    assert [(count, round(seconds)) for count, seconds in b.schedule(HOST, 5, 2, limit, urgent=True)] == [
        (5, 1)
    ]
    trouble(a, retry_after=60)
    assert 60 <= b.schedule(HOST, 1, 1, limit, urgent=False)[0][1] <= 66


def test_a_backlog_of_a_slowed_host_counts_on_its_recovery(make: Make) -> None:
    """Many images of a host that was slowed are not sent away for longer than it takes to become fast again."""
    hosts = make()
    ask(hosts, begun=100)
    trouble(hosts, retry_after=1)
    groups = hosts.schedule(HOST, 10_000, 1, FREE, urgent=False)
    sizes = [count for count, _ in groups]
    assert sum(sizes) == 10_000
    assert sizes[0] < sizes[-2]
    assert groups[-1][1] < 10_000 / 50


def test_people_see_what_is_wrong_with_hosts(make: Make, broker_url: str) -> None:
    """Paused ones first, then slowed ones, then those that are only busy; of each what is under way."""
    hosts = make()
    ask(hosts, host="busy.example.org", under_way=3)
    ask(hosts, host="idle.example.org")
    ask(hosts, host="slow.example.org", begun=50, under_way=1)
    trouble(hosts, host="slow.example.org")
    hosts.exchange(["slow.example.org"], [], [])
    trouble(hosts, retry_after=100)
    paused, slowed, busy = list_hosts(broker_url)
    assert (paused.host, paused.state, paused.why, paused.under_way) == (HOST, "paused", "answered 429", 0)
    assert paused.since is not None
    assert paused.until is not None
    assert 99 <= (paused.until - paused.since).total_seconds() <= 111
    assert (slowed.host, slowed.state, slowed.until, slowed.under_way) == (
        "slow.example.org",
        "slowed",
        None,
        1,
    )
    assert 10 < (slowed.rate or 0) < 30
    assert (busy.host, busy.state, busy.rate, busy.under_way) == ("busy.example.org", "asked", None, 3)


def test_everything_is_forgotten_in_time(make: Make, broker_url: str) -> None:
    """No key stays for ever, and none is outside of our corner of the broker."""
    hosts = make()
    ask(hosts, HostLimit(rate=5, concurrency=5), waiting=3)
    trouble(hosts)
    hosts.schedule(HOST, 5, 1, FREE, urgent=False)
    with redis.Redis.from_url(redis_url(broker_url), decode_responses=True) as client:
        keys = list(client.scan_iter("*"))
        assert len(keys) == 3
        assert all(key.startswith("lookalike:host:") and client.ttl(key) > 0 for key in keys)
        client.script_flush()
    assert ask(hosts, waiting=1).open  # the scripts are sent again


def test_a_host_of_which_nothing_is_known_any_more_may_recover(make: Make, broker_url: str) -> None:
    """Valkey was wiped while a host was paused: that it answers again is no error, and grants come with it."""
    hosts = make()
    trouble(hosts)
    with redis.Redis.from_url(redis_url(broker_url)) as client:
        client.flushall()
    demand = Demand(HOST, FREE, 1, 0, 0, 1, 0, 0, probing=False)
    (grant,), _ = hosts.exchange([HOST], [demand], [])
    assert (grant.open, grant.pause) == (False, 0)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://IIIF.example.org/a/b.jpg", "iiif.example.org"),
        ("https://user:pass@iiif.example.org:443/a", "iiif.example.org"),
        ("http://iiif.example.org:443/a", "iiif.example.org:443"),
        ("http://[::1]:8080/a", "[::1]:8080"),
        ("http://b\u00fccher.example/a", "xn--bcher-kva.example"), ("http://\ud800/", ""),
        ("s3://bucket/key", ""), ("file:///a", ""), ("/a", ""), ("http://[::1", ""), ("http://x:99999/", ""),
    ],
)  # fmt: skip
def test_hosts_have_one_name(url: str, host: str) -> None:
    """However an address is written; without passwords, with the port where it is an unusual one."""
    assert host_of(url) == host
