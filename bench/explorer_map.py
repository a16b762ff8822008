"""The map in a browser: how long a frame takes with 20,000 images while it is moved, far away and near.

Chromium draws without a GPU here, which is the worst case: everything is done by the CPU that also runs the server.
"""

import io
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import uvicorn
from playwright.sync_api import Page

from bench.pictures import make_picture
from bench.services import fresh_database
from bench.table import print_table
from explorer.app import create_app
from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.encoders import EncoderSpec, Preprocessing
from lookalike.images import Image
from lookalike.settings import Settings
from lookalike.thumbnails import Cache, Thumbnail
from tests.browser.archive import DESKTOP, chromium, find_chromium, wait_in

IMAGES = 20_000
PICTURES = 200
SPEC = EncoderSpec(
    "tiny", 16, "none", "none", "halved", "none", Preprocessing(16, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)
)
# Moves in a circle for so long, one step before each frame, and says how far apart frames were, and how long our part
# of each took.
PAN = """
async ([zoom, seconds]) => {
  const chart = document.getElementById("map-canvas").chart;
  chart.whole();
  if (zoom > 1) chart.scaleBy(zoom);
  await new Promise((done) => setTimeout(done, zoom > 1 ? 4000 : 500));
  chart.frames = [];
  const apart = [];
  let before = performance.now();
  const end = before + 1000 * seconds;
  for (let step = 0; performance.now() < end; step++) {
    const radius = 0.15 / zoom;
    chart.move(0.5 + radius * Math.sin(step / 20), 0.5 + radius * Math.cos(step / 20));
    await new Promise((done) => requestAnimationFrame(done));
    const now = performance.now();
    apart.push(now - before);
    before = now;
  }
  const drawn = chart.frames;
  chart.frames = null;
  return { apart: apart.slice(5), drawn: drawn.slice(5) };
}
"""


def run(settings: Settings) -> None:
    """Prints the times of frames, and of a page of the same browser that draws nothing."""
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium on this machine: `make tools` installs Debian's")
    with fresh_database(settings) as (url, connection), serving(url) as address:
        fill(connection)
        with chromium(path) as browser:
            page = browser.new_page(viewport=DESKTOP)
            rows = [("nothing (an empty page)", *summary(idle(page), None))]
            since = time.perf_counter()
            page.goto(f"{address}/map")
            wait_in(page, "document.getElementById('map-canvas').chart !== undefined")
            shown = time.perf_counter() - since
            for words, zoom in (
                ("all 20,000 as squares", 1),
                ("a quarter, larger squares", 4),
                ("pictures", 14),
            ):
                measured = page.evaluate(PAN, [zoom, 5])
                rows.append((words, *summary(measured["apart"], measured["drawn"])))
    print_table(
        f"The map, {IMAGES:,} images, 1,440 x 900, Chromium without a GPU; milliseconds",
        ("while it moves", "frames apart, median", "95 %", "frames/s", "drawing, median", "95 %"),
        rows,
    )
    print(f"From the address to the first drawing: {shown:.2f} s")


def idle(page: Page) -> list[float]:
    """How far frames are apart where nothing is drawn."""
    page.goto("about:blank")
    apart: list[float] = page.evaluate(
        """async () => {
          const apart = [];
          let before = performance.now();
          while (apart.length < 200) {
            await new Promise((done) => requestAnimationFrame(done));
            apart.push(performance.now() - before);
            before = performance.now();
          }
          return apart.slice(5);
        }"""
    )
    return apart


def summary(apart: list[float], drawn: list[float] | None) -> tuple[str, ...]:
    """Medians and 95th percentiles, and frames per second."""
    rate = 1000 * len(apart) / sum(apart)
    words = [f"{statistics.median(apart):.1f}", f"{np.percentile(apart, 95):.1f}", f"{rate:.0f}"]
    words += (
        ["-", "-"] if not drawn else [f"{statistics.median(drawn):.1f}", f"{np.percentile(drawn, 95):.1f}"]
    )
    return tuple(words)


def fill(connection: Connection) -> None:
    """Images of 200 photographs in 40 heaps on the map, each with a thumbnail; no vectors are needed."""
    archive.add_encoder(connection, SPEC, chunk_size=4096)
    ledger.register(
        connection, [Image(f"image/{n}", f"/scans/{n}.tif") for n in range(IMAGES)], chunk_size=4096
    )
    random = np.random.default_rng(0)
    files = [jpeg(number) for number in range(PICTURES)]
    ids = [int(str(row[0])) for row in connection.execute("select id from images order by id")]
    cache = Cache(None, local=False)
    for start in range(0, IMAGES, 500):
        some = ids[start : start + 500]
        cache.store(connection, [Thumbnail(one, 1, files[one % PICTURES]) for one in some])
    connection.execute(
        "update images set aspect_ratio = 1.33, average_colour = '#' || lpad(to_hex((id * 7919) %% 16777216), 6, '0')",
        [],
    )
    heaps = random.uniform(0.1, 0.9, (40, 2))
    places = (heaps[random.integers(0, 40, IMAGES)] + random.normal(0, 0.06, (IMAGES, 2))).clip(0, 1)
    (number,) = connection.execute(
        "insert into maps (encoder, method, seed, images) values ('tiny', 'tsne', 0, %s) returning id",
        [IMAGES],
    ).fetchone() or (0,)
    connection.execute(
        "insert into map_points select %s, * from unnest(%s::bigint[], %s::real[], %s::real[])",
        [number, ids, places[:, 0].tolist(), places[:, 1].tolist()],
    )


def jpeg(number: int) -> bytes:
    """A photograph of 320 x 240 pixels as a thumbnail."""
    buffer = io.BytesIO()
    make_picture(number, 320, 240).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


@contextmanager
def serving(url: str) -> Iterator[str]:
    """The explorer in a thread, for the time of the block."""
    app = create_app(Settings(_env_file=None, explorer_rate=0), url)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none")
    listening = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
