"""The explorer beside the SQL that it asks: `/images/{key}/similar` and the same statement, each by eight clients.

The sides take turns. The explorer is `lookalike serve` in a process of its own, as operators start it; its clients keep
their connections, and so do those of Postgres.
"""

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np

from bench.search_archive import ROWS, Loaded, key_of, open_archive
from bench.table import print_table
from explorer.reading import EVERYTHING, QUERIES
from lookalike.database import connect
from lookalike.settings import Settings

CLIENTS = 8
ROUNDS = 5
# Of each client in a round.
REQUESTS = 40
K = 20
DIMENSION = 1280
ROOT = Path(__file__).parents[1]
COLUMNS = ("", "requests/s", "p50 ms", "p95 ms", "p95 to SQL")

Ask = Callable[[str], None]


@dataclass(slots=True)
class Asked:
    """Seconds of each request, and of all rounds together."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0

    def quantile(self, share: float) -> float:
        """Milliseconds within which this share of requests was answered."""
        return float(np.quantile(self.seconds, share)) * 1000

    def row(self, name: str, beside: "Asked") -> tuple[str, ...]:
        ratio = f"{self.quantile(0.95) / beside.quantile(0.95):.2f}"
        rate = f"{len(self.seconds) / self.wall:,.0f}"
        return (name, rate, f"{self.quantile(0.5):,.1f}", f"{self.quantile(0.95):,.1f}", ratio)


def run(settings: Settings, rows: int = ROWS) -> None:
    """Neighbours by HTTP and by SQL, at eight clients each."""
    with open_archive(settings, DIMENSION, rows) as (loaded, _), serving(settings, loaded.url) as address:
        keys = [key_of(int(n)) for n in np.random.default_rng(7).integers(0, loaded.rows, 2000)]
        sides = {"GET /images/{key}/similar": by_http(address), "the same SQL": by_sql(loaded)}
        asked = take_turns(sides, keys)
    sql = asked["the same SQL"]
    title = f"Neighbours among {rows:,} x {DIMENSION:,}, k = {K}, {CLIENTS} clients"
    print_table(title, COLUMNS, [one.row(name, sql) for name, one in asked.items()])


@contextmanager
def serving(settings: Settings, url: str) -> Iterator[str]:
    """An explorer over a database, for the time of the block; yields its address."""
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "LOOKALIKE_HOME": str(settings.home),
        "LOOKALIKE_EXPLORER_RATE": "0",
        "PYTHONPATH": str(ROOT),
    }
    words = [sys.executable, "-u", "-m", "cli.main", "serve", "--port", "0"]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().decode().split()[-1].rstrip("/")
        finally:
            server.terminate()


def by_http(address: str) -> Callable[[], Ask]:
    """A client with a connection that it keeps."""
    parts = urlsplit(address)

    def make() -> Ask:
        client = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

        def ask(key: str) -> None:
            client.request("GET", f"/api/v1/images/{quote(key, safe='')}/similar?k={K}")
            answer = client.getresponse()
            body = answer.read()
            assert answer.status == 200, body

        return ask

    return make


def by_sql(loaded: Loaded) -> Callable[[], Ask]:
    """A client that asks Postgres for the same rows, on a connection that it keeps."""

    def make() -> Ask:
        connection = connect(loaded.url, application_name="bench")
        statement, asked = similar_statement(loaded.encoder)

        def ask(key: str) -> None:
            assert connection.execute(statement, {**asked, "key": key}).fetchall()

        return ask

    return make


def similar_statement(encoder: str) -> tuple[bytes, dict[str, object]]:
    """The statement that the explorer asks, and its parameters without filters."""
    asked = {"k": K, "max_distance": None, "encoder": encoder, **asdict(EVERYTHING)}
    return QUERIES["similar"].encode(), asked


def take_turns(sides: dict[str, Callable[[], Ask]], keys: Sequence[str]) -> dict[str, Asked]:
    """Asks each side in turns, by as many clients at once; the first round warms and does not count."""
    clients = {name: [make() for _ in range(CLIENTS)] for name, make in sides.items()}
    asked = {name: Asked() for name in sides}
    for number in range(ROUNDS + 1):
        for name in sides:
            found = _ask_at_once(clients[name], keys, number)
            if number:
                asked[name].seconds += found.seconds
                asked[name].wall += found.wall
    return asked


def _ask_at_once(clients: Sequence[Ask], keys: Sequence[str], number: int) -> Asked:
    """One round."""
    found = Asked()

    def go(client: int) -> None:
        for request in range(REQUESTS):
            key = keys[(number * len(clients) * REQUESTS + client * REQUESTS + request) % len(keys)]
            since = time.perf_counter()
            clients[client](key)
            found.seconds.append(time.perf_counter() - since)

    threads = [threading.Thread(target=go, args=(client,)) for client in range(len(clients))]
    since = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.wall = time.perf_counter() - since
    return found
