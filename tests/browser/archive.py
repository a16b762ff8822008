"""An archive embedded by the real network, the explorer over it, and Debian's Chromium, for tests and benches."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from cli.demo import find_photographs, make_copies, serving, write_table
from explorer.app import create_app
from lookalike import analyses, clusters, duplicates, kinds, ledger, search, unwanted
from lookalike.analyses import Analysis
from lookalike.clusters import Wish
from lookalike.database import Connection, connect
from lookalike.duplicates import Criteria
from lookalike.settings import Settings
from tests.servers import Lookalike, free_port, wait_until

# Nothing of a profile, and nothing that asks the world.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
HOST_RATE = "12"
UNWANTED = ("page", "text", "brick", "grass", "gravel")


def wait_in(page: Page, condition: str, seconds: float = 20) -> None:
    """Waits until a condition holds in a page. Playwright's own waiting evaluates text in the page, which its policy
    for scripts forbids from the second time on."""
    until = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < until, f"not within {seconds} s: {condition}"
        page.wait_for_timeout(50)


def find_chromium() -> str | None:
    """The Chromium of this machine."""
    return os.environ.get("LOOKALIKE_CHROMIUM") or shutil.which("chromium")


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """The browser, with a new and empty profile."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@dataclass
class Explorer:
    """The explorer over an archive: its address, the database, the photographs, and what the status page showed while
    they were embedded (done images, in the order of looking)."""

    url: str
    database_url: str
    photographs: Path
    system: Lookalike
    watched: list[int] = field(default_factory=list)


@contextmanager
def explorer_over(settings: Settings, database_url: str) -> Iterator[str]:
    """Serves the explorer in a thread, for the time of the block; yields its address."""
    port = free_port()
    config = uvicorn.Config(
        create_app(settings, database_url), host="127.0.0.1", port=port, log_level="warning", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 20, "the explorer")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def embedded(folder: Path, database_url: str, broker_url: str, browser: Browser) -> Iterator[Explorer]:
    """The demo's photographs and their copies, embedded while a browser looks on; with near-duplicates, clusters
    and a set of unwanted images."""
    photographs = folder / "demo"
    make_copies(find_photographs(), photographs)
    # Small chunks from a host with a rate, so that there is progress to be seen however fast the machine is: 115 images
    # take nine seconds or more, and the status page looks every two.
    system = Lookalike(
        folder, database_url, broker_url, LOOKALIKE_CHUNK_SIZE="8", LOOKALIKE_HOST_RATE=HOST_RATE
    )
    with serving(photographs) as address:
        settings = Settings(
            _env_file=None, home=folder, explorer_image_sources=f"https: {address}", explorer_rate=0
        )
        with explorer_over(settings, database_url) as url:
            one = Explorer(url, database_url, photographs, system)
            try:
                _embed(one, browser, str(write_table(photographs, address)))
                with connect(database_url, application_name="test") as connection:
                    _catalogue(connection)
                yield one
            finally:
                system.stop()


def _embed(one: Explorer, browser: Browser, table: str) -> None:
    """Embeds, and looks at the status page meanwhile."""
    running = one.system.start("run", table)
    page = browser.new_page()
    page.goto(f"{one.url}/status")
    while running.poll() is None:
        shown = page.locator("#live progress")
        if shown.count():
            one.watched.append(int(float(shown.first.get_attribute("value") or 0)))
        time.sleep(0.3)
    assert running.returncode == 0, one.system.logs()
    page.close()


def _catalogue(connection: Connection) -> None:
    """Finds near-duplicates, clusters and unwanted images, as workers do, but in this process: it takes a second."""
    encoder = search.active_encoder(connection)
    duplicates.begin(connection, encoder, Criteria(0.15, 0.5), turned=False)
    clusters.begin(connection, clusters.plan(connection, encoder, Wish(clusters=8)))
    while claims := ledger.lease(connection, encoder, "analysis", 100, 60, batch=1):
        for claim in claims:
            chunk = ledger.start(connection, claim, "test", 60)
            assert chunk is not None
            assert chunk.analysis is not None
            _analyse(connection, chunk, analyses.find(connection, chunk.analysis))
    kinds.settle(connection)
    examples = [f"demo/{name}/original.jpg" for name in UNWANTED]
    unwanted.learn(connection, "textures", examples, by="test")


def _analyse(connection: Connection, chunk: ledger.Chunk, analysis: Analysis) -> None:
    kind = kinds.KINDS[analysis.kind]
    found = kind.find(connection, analysis, chunk.images, lambda _: [])
    ledger.finish_analysis(
        connection, chunk, lambda each, done: kind.store(each, analysis, done.images, found)
    )
