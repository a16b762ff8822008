"""From an upload to S3 until the image is searchable: on an idle system, and while a backfill is under way.

Real processes: an S3 and SQS server (moto), the orchestrator that listens to the queue, one worker. The time of an
image runs from the moment its upload begins until a search finds it, its vector being committed.
"""

import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.pictures import write_small
from bench.processes import server, start
from bench.services import fresh_database
from bench.table import print_table
from lookalike import archive, ledger, services
from lookalike.database import Connection, connect
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.settings import Settings
from tests.servers import aws_server, notifying_bucket, wait_until

ENCODER = "efficientnet-lite0"
EVENTS = 30
BACKFILL = 20_000
PAUSE = 1.0
PICTURES = 256
FIGURE = Path(__file__).with_suffix(".svg")


def run(settings: Settings) -> None:
    """Prints p50 and p95 of both, and draws them into bench/events.svg."""
    folder = settings.home / "pictures"
    names = write_small(folder, PICTURES)
    with fresh_database(settings) as (url, connection), aws_server() as aws, ExitStack() as stack:
        archive.add_encoder(connection, find_encoder(ENCODER), settings.chunk_size)
        storage = notifying_bucket(aws, "scans")
        environment = {
            **aws,
            "DATABASE_URL": url,
            "BROKER_URL": services.up(settings).broker_url,
            "LOOKALIKE_HOME": str(settings.home),
        }
        for words in (("orchestrate", "sqs:scans"), ("worker",)):
            log = settings.home / f"{words[0]}.log"
            stack.enter_context(start("-m", "cli.main", *words, log=log, **environment))
        measure = Measure(storage, connection, folder, names)
        measure.once("warm-up")
        idle = [measure.once(f"idle/{number}") for number in range(EVENTS)]
        address = stack.enter_context(server(folder, 0.05))
        with connect(url, application_name="bench backfill") as other:
            images = (Image(f"backfill/{n}", f"{address}/{names[n % PICTURES]}") for n in range(BACKFILL))
            ledger.register(other, images, "backfill", settings.chunk_size)
        wait_until(lambda: _done(connection) >= EVENTS + 129, 300, "the backfill")
        busy = [measure.once(f"busy/{number}") for number in range(EVENTS)]
        left = BACKFILL - _done(connection) + 2 * EVENTS + 1
        assert left > 0, "the backfill was over: nothing was overtaken"
    print_times(idle, busy, left)
    draw(idle, busy)


class Measure:
    """Uploads one image after the other and waits until each is found."""

    def __init__(self, storage: Any, connection: Connection, folder: Path, names: list[str]) -> None:
        self._storage = storage
        self._connection = connection
        self._folder = folder
        self._names = names
        self._count = 0

    def once(self, name: str) -> float:
        """Seconds from the upload until the image is searchable."""
        body = (self._folder / self._names[self._count % PICTURES]).read_bytes()
        self._count += 1
        began = time.monotonic()
        self._storage.put_object(Bucket="scans", Key=f"{name}.jpg", Body=body)
        key = f"scans/{name}.jpg"
        while not self._is_searchable(key):
            time.sleep(0.01)
            assert time.monotonic() - began < 300, f"{key} did not become searchable"
        seconds = time.monotonic() - began
        time.sleep(PAUSE)
        return seconds

    def _is_searchable(self, key: str) -> bool:
        (found,) = self._connection.execute("select is_embedded(%s)", [key]).fetchone() or (False,)
        return bool(found)


def _done(connection: Connection) -> int:
    (count,) = connection.execute("select count(*) from vectors_efficientnet_lite0").fetchone() or (0,)
    return int(count)


def print_times(idle: list[float], busy: list[float], left: int) -> None:
    print_table(
        f"From upload to searchable, seconds, {EVENTS} images each; {left:,} of the backfill's {BACKFILL:,} left",
        ("", "p50", "p95", "worst", "aim for p95"),
        [
            ("idle", *_figures(idle), "2"),
            ("during a backfill", *_figures(busy), "5"),
        ],
    )


def _figures(times: list[float]) -> tuple[str, str, str]:
    p95 = statistics.quantiles(times, n=20)[18]
    return f"{statistics.median(times):.2f}", f"{p95:.2f}", f"{max(times):.2f}"


def draw(idle: list[float], busy: list[float]) -> None:
    """Both as cumulative shares over seconds."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    for label, times, colour in (("idle", idle, "#1b6ca8"), ("during a backfill", busy, "#c83c32")):
        shares = [(n + 1) / len(times) for n in range(len(times))]
        axes.step([0, *sorted(times)], [0, *shares], where="post", label=label, color=colour)
    for aim, colour in ((2, "#1b6ca8"), (5, "#c83c32")):
        axes.axvline(aim, color=colour, linestyle=":", linewidth=1)
    axes.axhline(0.95, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="seconds from upload to searchable (dotted: the aims for 95 %)", ylabel="share of images")
    axes.set(xlim=(0, None), ylim=(0, 1.02))
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(FIGURE, metadata={"Date": None})
