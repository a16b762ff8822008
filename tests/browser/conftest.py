"""What tests in a browser share: one archive and one browser for all of them.

They are skipped where no Chromium is found; `make tools` installs one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from lookalike.services import Endpoints
from tests.browser.archive import DESKTOP, Explorer, chromium, embedded, find_chromium
from tests.conftest import new_database


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium on this machine: `make tools` installs Debian's")
    with chromium(path) as launched:
        yield launched


@pytest.fixture(scope="session")
def archive(
    browser: Browser, endpoints: Endpoints, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Explorer]:
    """The demo's photographs, embedded, and the explorer over them."""
    databases = new_database(endpoints.database_url, template_database)
    folder = tmp_path_factory.mktemp("browser")
    with embedded(folder, next(databases), endpoints.broker_url, browser) as one:
        yield one
    next(databases, None)


@dataclass
class Visit:
    """A page of the explorer, and what its console complained about."""

    page: Page
    url: str
    complaints: list[str]

    def go(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page


def _complains(said: ConsoleMessage) -> bool:
    """Whether it is a complaint about the page. That the machine's own network has changed meanwhile (an interface came
    or went) is none, and happens where many tests run."""
    return said.type in ("error", "warning") and "ERR_NETWORK_CHANGED" not in said.text


@pytest.fixture
def visit(browser: Browser, archive: Explorer) -> Iterator[Callable[..., Visit]]:
    """Opens pages, each in a context of its own; fails the test when one complained."""
    opened: list[Visit] = []

    def open_one(viewport: dict[str, int] | None = None, scheme: str = "light", **options: object) -> Visit:
        context = browser.new_context(viewport=viewport or DESKTOP, color_scheme=scheme, **options)
        page = context.new_page()
        page.set_default_timeout(10_000)
        one = Visit(page, archive.url, [])
        page.on("console", lambda said: _complains(said) and one.complaints.append(said.text))
        page.on("pageerror", lambda error: one.complaints.append(str(error)))
        opened.append(one)
        return one

    yield open_one
    for one in opened:
        one.page.context.close()
    assert [one.complaints for one in opened if one.complaints] == []


@pytest.fixture
def clean(archive: Explorer) -> Iterator[psycopg.Connection]:
    """A connection to the archive; what the test decides is taken back when it ends."""
    with psycopg.connect(archive.database_url, autocommit=True) as connection:
        yield connection
