"""`python -m tests.browser.screenshots`: pictures of every page, of the demo's photographs, into docs/screenshots."""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image as Pictures
from playwright.sync_api import Browser, Page

from lookalike import maps, search, services
from lookalike.database import connect
from lookalike.migrate import migrate
from lookalike.settings import Settings
from tests.browser.archive import DESKTOP, PHONE, Explorer, chromium, embedded, find_chromium, wait_in
from tests.servers import ROOT

FOLDER = ROOT / "docs" / "screenshots"
CAT = "/images/demo/chelsea/original.jpg"
PAGES = {
    "home": "/",
    "search": "/search?q=demo/c",
    "colour": "/search?colour=e0604a",
    "image": CAT,
    "clusters": "/clusters",
    "cluster": "",
    "compare": "/compare?first=demo/chelsea/original.jpg&second=demo/chelsea/cropped.jpg",
    "near-duplicates": "/duplicates",
    "groups": "/duplicates/groups",
    "unwanted": "/unwanted",
    "map": "/map",
    "status": "/status",
}
QUALITY = 80


def main() -> None:
    path = find_chromium()
    if path is None:
        sys.exit("no Chromium on this machine: `make tools` installs Debian's")
    # Not under the checkout: the server's own user must be able to reach its data.
    home = Path(tempfile.mkdtemp(prefix="lookalike-screenshots-"))
    settings = Settings(_env_file=None, home=home, DATABASE_URL=None, BROKER_URL=None)
    try:
        endpoints = services.up(settings)
        migrate(endpoints.database_url)
        with (
            chromium(path) as browser,
            embedded(home, endpoints.database_url, endpoints.broker_url, browser) as archive,
        ):
            with connect(archive.database_url, application_name="screenshots") as connection:
                # The names of this machine and its folders are no part of the picture.
                connection.execute("update workers set name = 'worker-1'")
                connection.execute("update sources set name = 'demo/images.jsonl'")
                connection.execute("update images set source = 'demo/images.jsonl'")
                maps.make(connection, search.active_encoder(connection))
            take_all(browser, archive)
    finally:
        services.down(settings)
        shutil.rmtree(home, ignore_errors=True)


def take_all(browser: Browser, archive: Explorer) -> None:
    """Every page on a desk in daylight; some in the dark, and on a phone."""
    FOLDER.mkdir(exist_ok=True)
    desk = browser.new_page(viewport=DESKTOP, color_scheme="light")
    for name, address in PAGES.items():
        if name == "cluster":
            desk.locator(".card h2 a").first.click()
        else:
            desk.goto(archive.url + address)
        _take(desk, name)
    desk.goto(archive.url + CAT)
    desk.locator(".seen summary").click()
    desk.locator("#numbers svg.plot").nth(1).wait_for()
    desk.locator(".seen").evaluate("each => scrollTo(0, each.offsetTop - 24)")
    _take(desk, "numbers")
    desk.goto(f"{archive.url}/picture")
    _take(desk, "picture")
    desk.locator("#picture-file").set_input_files(archive.photographs / "coffee" / "cropped.jpg")
    desk.locator("#sent canvas").wait_for()
    _take(desk, "picture-found")
    dark = browser.new_page(viewport=DESKTOP, color_scheme="dark")
    dark.goto(archive.url + CAT)
    _take(dark, "image-dark")
    phone = browser.new_page(viewport=PHONE, color_scheme="light", device_scale_factor=2)
    for name in ("home", "image"):
        phone.goto(archive.url + PAGES[name])
        _take(phone, f"{name}-phone")


def _take(page: Page, name: str) -> None:
    """Writes a JPEG when all pictures in sight are there."""
    wait_in(
        page, "[...document.images].every(i => i.complete || i.getBoundingClientRect().top > innerHeight)"
    )
    page.wait_for_timeout(300)
    with Pictures.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True, progressive=True)
    print(f"{name}.jpg {(FOLDER / f'{name}.jpg').stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
