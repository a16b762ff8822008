"""A worker end to end, over real HTTP, Celery and Postgres, against the bare forward pass of its encoder.

Both run in processes of their own with the same allocator settings, and take turns: the worker stands idle while the
encoder is measured, and the other way round.
"""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image as Pictures

from bench.services import fresh_database
from bench.table import median_and_range, print_table
from cli.demo import find_photographs
from cli.worker import ENVIRONMENT
from lookalike import archive, books, ledger, services
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.queue import Broker, make_app
from lookalike.settings import Settings
from orchestrator import dispatch

ENCODER = "efficientnet-lite0"
IMAGES = 512
ROUNDS = 5
ROOT = Path(__file__).parents[1]

BARE = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from lookalike.settings import Settings
from workers.network import load_encoder
encoder = load_encoder("efficientnet-lite0", Settings(_env_file=None))
size = encoder.batch_size
batch = np.random.default_rng(0).integers(0, 256, (size, 224, 224, 3), np.uint8)
def rate(batches):
    since = time.perf_counter()
    with ThreadPoolExecutor(encoder.passes) as pool:
        list(pool.map(encoder.encode, [batch] * batches))
    return batches * size / (time.perf_counter() - since)
rate(4)
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(rate(int(line) // size)), flush=True)
"""

SERVER = """
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
class Server(ThreadingHTTPServer):
    request_queue_size = 256
server = Server(("127.0.0.1", 0), partial(Handler, directory=sys.argv[1]))
print(server.server_port, flush=True)
server.serve_forever()
"""


def run(settings: Settings) -> None:
    """Prints images/s of both and their ratio."""
    pictures = write_pictures(settings.home / "pictures")
    with (
        fresh_database(settings) as (url, connection),
        process([sys.executable, "-c", SERVER, str(pictures)]) as server,
        process([sys.executable, "-c", BARE]) as bare,
        worker_process(settings, url),
        dispatching(settings, url),
    ):
        address = f"http://127.0.0.1:{read_line(server)}"
        assert read_line(bare) == "ready"
        archive.add_encoder(connection, find_encoder(ENCODER), 64)
        names = sorted(path.name for path in pictures.iterdir())
        embed(connection, address, names, "warm-up")
        worker, encoder = [], []
        for number in range(ROUNDS):
            encoder.append(ask(bare, IMAGES))
            worker.append(embed(connection, address, names, str(number)))
    ratio = [a / b for a, b in zip(worker, encoder, strict=True)]
    print_table(
        f"Worker end to end, {ENCODER}, 400-px JPEG over HTTP, images/s, {ROUNDS} rounds: median (range)",
        ("worker", "bare encoder", "ratio"),
        [(median_and_range(worker, 1), median_and_range(encoder, 1), median_and_range(ratio))],
    )


def write_pictures(folder: Path) -> Path:
    """`IMAGES` JPEGs of 400 pixels, cut from the photographs inside packages."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    originals = [Pictures.open(path).convert("RGB") for path in find_photographs()]
    for number in range(IMAGES):
        original = originals[number % len(originals)]
        side = int(min(original.size) * random.uniform(0.6, 1))
        x, y = (int(random.integers(0, length - side + 1)) for length in original.size)
        buffer = io.BytesIO()
        original.crop((x, y, x + side, y + side)).resize((400, 400)).save(buffer, "JPEG", quality=85)
        (folder / f"{number:04}.jpg").write_bytes(buffer.getvalue())
    return folder


@contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes and the worker's allocator settings; ended with the block."""
    started = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def read_line(started: subprocess.Popen[bytes]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().decode().strip()


def ask(bare: subprocess.Popen[bytes], images: int) -> float:
    """Images per second of the bare encoder."""
    assert bare.stdin is not None
    bare.stdin.write(f"{images}\n".encode())
    bare.stdin.flush()
    rate: float = json.loads(read_line(bare))
    return rate


@contextmanager
def worker_process(settings: Settings, database_url: str) -> Iterator[None]:
    """A worker as operators start it."""
    with (settings.home / "worker.log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "worker"],
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": database_url,
                "BROKER_URL": services.up(settings).broker_url,
                "LOOKALIKE_HOME": str(settings.home),
            },
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait()


@contextmanager
def dispatching(settings: Settings, database_url: str) -> Iterator[None]:
    """An orchestrator in a thread."""
    from lookalike.database import connect

    stop = threading.Event()
    broker_url = services.up(settings).broker_url
    thread = threading.Thread(
        target=dispatch.run,
        args=(
            settings,
            lambda: connect(database_url, application_name="bench orchestrator"),
            make_app(broker_url, ENCODER),
            Broker(broker_url),
            stop,
        ),
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def embed(connection: ledger.Connection, address: str, names: list[str], prefix: str) -> float:
    """Registers the pictures under new keys and waits until they are embedded; images per second of all that."""
    since = time.perf_counter()
    ledger.register(
        connection, [Image(f"{prefix}/{name}", f"{address}/{name}") for name in names], chunk_size=64
    )
    while not books.is_finished(connection, ENCODER):
        time.sleep(0.05)
    rate = len(names) / (time.perf_counter() - since)
    counted = books.count_books(connection, ENCODER)
    assert counted.failed == 0, books.count_reasons(connection, ENCODER)
    return rate
