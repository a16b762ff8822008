"""First paint of an image page with sixty neighbours, against the same page with none, in Debian's Chromium."""

import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from bench.services import fresh_database
from bench.table import median_and_range, print_table
from lookalike import services
from lookalike.settings import Settings
from tests.browser.archive import DESKTOP, chromium, embedded, find_chromium

ROUNDS = 15
NEIGHBOURS = 60
PAGE = "/images/demo/chelsea/original.jpg"
# No image has such a licence.
PAGES = {f"{NEIGHBOURS} neighbours": f"{PAGE}?k={NEIGHBOURS}", "none": f"{PAGE}?licence=none"}
MEASURE = """() => new Promise(resolve => {
  const [page] = performance.getEntriesByType("navigation");
  const painted = performance.getEntriesByName("first-contentful-paint")[0];
  resolve({
    answer: page.responseEnd,
    paint: painted ? painted.startTime : null,
    bytes: page.encodedBodySize,
    shift: window.shifted || 0,
  });
})"""
WATCH = """
new PerformanceObserver(list => {
  for (const each of list.getEntries()) window.shifted = (window.shifted || 0) + each.value;
}).observe({ type: "layout-shift", buffered: true });
"""


def run(settings: Settings) -> None:
    """Measures with a cold cache each time, the two pages in turns."""
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium on this machine: `make browser` installs Debian's")
    broker_url = services.up(settings).broker_url
    with (
        fresh_database(settings) as (database_url, _),
        tempfile.TemporaryDirectory() as folder,
        chromium(path) as browser,
        embedded(Path(folder), database_url, broker_url, browser) as archive,
    ):
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in PAGES}
        for number in range(ROUNDS + 1):
            for name, address in PAGES.items():
                found = _look(browser, archive.url + address)
                # The first of each warms the server up.
                if number:
                    seen[name].append(found)
    base = statistics.median(one["paint"] for one in seen["none"])
    print_table(
        f"First paint of an image page, {ROUNDS} visits each, cold cache",
        ("neighbours", "first paint ms", "answer ms", "kB", "layout shift", "to none"),
        [
            [
                name,
                median_and_range([one["paint"] for one in found], 0),
                median_and_range([one["answer"] for one in found], 0),
                f"{found[0]['bytes'] / 1000:.0f}",
                f"{max(one['shift'] for one in found):.3f}",
                f"{statistics.median(one['paint'] for one in found) / base:.2f}",
            ]
            for name, found in seen.items()
        ],
    )


def _look(browser: Browser, address: str) -> dict[str, float]:
    """One visit with an empty cache."""
    context = browser.new_context(viewport=DESKTOP)
    try:
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(address, wait_until="load")
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
        measured: dict[str, float] = page.evaluate(MEASURE)
        return measured
    finally:
        context.close()
