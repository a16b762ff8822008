"""What all workers together may ask of a host, kept in Valkey: its limits, its pauses, and who is asking now.

Each step is one script (`lua/*.lua`), so that workers cannot disagree. It is no truth: wiped, it is learnt again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from random import random
from typing import Any, Literal
from urllib.parse import urlsplit

import redis

from lookalike.queue import redis_url
from lookalike.settings import HostLimit

# What a worker holds is free again when it has not asked for so long; it asks several times a second.
LIFETIME_SECONDS = 15.0
# Asked in the middle of fetching: a Valkey that is away must not be waited for long.
_TIMEOUT_SECONDS = 1.0
_PREFIX = "lookalike:host:"
_SCRIPTS = ("sync", "trouble", "recover", "schedule")
_KNOWN = _PREFIX + "known"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Demand:
    """What a worker has under way and wants at one host. `under_way` and `waiting` are images, the others requests.

    `unspent` were granted and are given back, `begun` were sent since it asked last, `least` is what one image needs.
    `probing` says that it holds the permission to try a paused host.
    """

    host: str
    limit: HostLimit
    under_way: int
    waiting: int
    wanted: int
    least: int
    unspent: int
    begun: int
    probing: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """What a worker may do until it asks again. `allowed` images at once and `tokens` requests; None: any number.

    `wait`: seconds until there are more tokens; `pause`: seconds for which the host is left in peace. `open` says that
    the circuit is open: paused, or about to be tried with one image, by us if `probe`. `rate` is the rate that holds
    (0: any), `workers` how many share it.
    """

    allowed: int | None = None
    tokens: int | None = None
    wait: float = 0.0
    pause: float = 0.0
    open: bool = False
    probe: bool = False
    rate: float = 0.0
    workers: int = 1
    why: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A host refused a request that was sent `age` seconds ago; `retry_after` in seconds, where it named them."""

    host: str
    age: float
    retry_after: float | None
    why: str


@dataclass(frozen=True, slots=True)
class HostState:
    """A host as `lookalike status` shows it. `rate` is what it is slowed to, in requests a second."""

    host: str
    state: Literal["paused", "slowed", "asked"]
    since: datetime | None
    until: datetime | None
    why: str
    rate: float | None
    under_way: int


class SharedHosts:
    """The hosts as one worker process sees them. Its methods raise redis.RedisError when Valkey is away."""

    def __init__(self, broker_url: str, worker: str, lifetime: float = LIFETIME_SECONDS) -> None:
        self._redis = _connect(broker_url)
        self._worker = worker
        self._lifetime = lifetime
        self._has_told = False

    def exchange(
        self, recovered: Sequence[str], demands: Sequence[Demand], troubles: Sequence[Trouble]
    ) -> tuple[list[Grant], list[float]]:
        """Tells which paused hosts have answered, asks for some, and reports troubles, all in one round trip.

        Returns what is granted to each demand, and for how many seconds each trouble pauses its host.
        """
        calls: list[tuple[Any, ...]] = [("recover", host) for host in recovered]
        calls += [self._ask(demand) for demand in demands]
        calls += [_report(trouble) for trouble in troubles]
        answers = self._run(calls)[len(recovered) :]
        grants = [_read_grant(answer) for answer in answers[: len(demands)]]
        return grants, [float(pause) for pause in answers[len(demands) :]]

    def schedule(
        self, host: str, images: int, cost: int, limit: HostLimit, urgent: bool
    ) -> list[tuple[int, float]]:
        """Says when so many images of `cost` requests are to come back: groups of (images, seconds from now)."""
        (flat,) = self._run([("schedule", host, images, cost, limit.rate, int(urgent))])
        return [(int(count), float(seconds)) for count, seconds in zip(flat[::2], flat[1::2], strict=True)]

    def close(self) -> None:
        self._redis.close()

    def _ask(self, demand: Demand) -> tuple[Any, ...]:
        return (
            "sync",
            demand.host,
            self._worker,
            demand.under_way,
            demand.waiting,
            demand.wanted,
            demand.least,
            demand.unspent,
            demand.begun,
            int(demand.probing),
            demand.limit.rate,
            demand.limit.concurrency,
            self._lifetime,
            random(),  # noqa: S311 - whose turn it is is no secret
        )

    def _run(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Runs scripts in one round trip; a server that was started anew is told what they are."""
        if not self._has_told:
            self._send([("SCRIPT LOAD", _script(name)) for name in _SCRIPTS])
            self._has_told = True
        commands = [("EVALSHA", _digest(name), *_arguments(rest)) for name, *rest in calls]
        answers = self._send(commands)
        unknown = [i for i, one in enumerate(answers) if isinstance(one, redis.exceptions.NoScriptError)]
        if unknown:
            self._send([("SCRIPT LOAD", _script(name)) for name in _SCRIPTS])
            for i, answer in zip(unknown, self._send([commands[i] for i in unknown]), strict=True):
                answers[i] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            return pipeline.execute(raise_on_error=False)


def list_hosts(broker_url: str) -> list[HostState]:
    """The hosts that are paused, slowed, or being asked now, in this order. Raises redis.RedisError."""
    client = _connect(broker_url)
    try:
        seconds, micros = client.time()
        now = seconds + micros / 1e6
        names: Any = client.zrange(_KNOWN, 0, -1)
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(_PREFIX + "state:" + name)
                pipeline.hvals(_PREFIX + "holders:" + name)
            found = pipeline.execute()
    finally:
        client.close()
    states = [_read_state(*one, now) for one in zip(names, found[::2], found[1::2], strict=True)]
    order = ("paused", "slowed", "asked")
    return sorted(
        (one for one in states if one.state != "asked" or one.under_way),
        key=lambda one: (order.index(one.state), one.host),
    )


def host_of(url: str) -> str:
    """The host of an http(s) address, with its port unless that is the usual one; empty for any other address."""
    try:
        parts = urlsplit(url)
        port, name = parts.port, parts.hostname or ""
        name = name if name.isascii() else name.encode("idna").decode()
    except ValueError:  # UnicodeError is one
        return ""
    if parts.scheme not in _PORTS or not name:
        return ""
    host = f"[{name}]" if ":" in name else name
    return host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"


def _connect(broker_url: str) -> redis.Redis:
    return redis.Redis.from_url(
        redis_url(broker_url),
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        decode_responses=True,
    )


@cache
def _script(name: str) -> str:
    folder = resources.files("lookalike").joinpath("lua")
    return "\n".join(folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in ("host", name))


@cache
def _digest(name: str) -> str:
    # The name that Redis gives to a script is its SHA-1; nothing depends on its strength.
    return hashlib.sha1(_script(name).encode(), usedforsecurity=False).hexdigest()


def _arguments(call: Sequence[Any]) -> tuple[Any, ...]:
    host = call[0]
    return (3, _PREFIX + "state:" + host, _PREFIX + "holders:" + host, _KNOWN, *call)


def _report(trouble: Trouble) -> tuple[Any, ...]:
    asked = -1 if trouble.retry_after is None else trouble.retry_after
    return ("trouble", trouble.host, trouble.age, asked, trouble.why, random())  # noqa: S311 - jitter


def _read_grant(answer: Sequence[Any]) -> Grant:
    allowed, tokens, wait, pause, is_open, probe, rate, workers, why = answer
    return Grant(
        None if allowed < 0 else allowed,
        None if tokens < 0 else tokens,
        float(wait),
        float(pause),
        bool(is_open),
        bool(probe),
        float(rate),
        workers,
        why,
    )


def _read_state(host: str, state: dict[str, str], holders: list[str], now: float) -> HostState:
    entries = [entry.split() for entry in holders]
    under_way = sum(int(count) for _, _, count, expires in entries if float(expires) > now)
    kind: Literal["paused", "slowed", "asked"] = "asked"
    if "until" in state:
        kind = "paused"
    elif "slow" in state:
        kind = "slowed"
    return HostState(
        host,
        kind,
        _moment(state.get("since")),
        _moment(state.get("until")),
        state.get("why", ""),
        float(state["slow"]) if "slow" in state else None,
        under_way,
    )


def _moment(seconds: str | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(float(seconds), UTC)
