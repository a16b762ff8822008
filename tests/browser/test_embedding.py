"""The snippet of docs/api.md, copied into a page of another website, in a real browser."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import expect

from explorer.pages.same import as_snippet
from lookalike.settings import Settings
from tests.browser.archive import Explorer, explorer_over
from tests.browser.conftest import Visit
from tests.servers import ROOT, http_server

Open = Callable[..., Visit]
Elsewhere = tuple[str, str, dict[str, bytes]]
CAT = "demo/chelsea/original.jpg"


@pytest.fixture
def rights(clean: psycopg.Connection) -> Iterator[None]:
    """Every image has a licence and names whom to credit."""
    clean.execute("update lookalike.images set licence = 'cc-by', credit = 'Of ' || work")
    yield
    clean.execute("update lookalike.images set licence = null, credit = null")


@pytest.fixture
def elsewhere(archive: Explorer, tmp_path: Path) -> Iterator[Elsewhere]:
    """Another website, an explorer that allows it, and the website's files, to be added to."""
    files = {"/favicon.ico": b""}
    with http_server(files) as website:
        settings = Settings(
            _env_file=None,
            home=tmp_path,
            explorer_rate=0,
            explorer_origins=website,
            explorer_image_sources="https: http:",
        )
        with explorer_over(settings, archive.database_url) as explorer:
            yield website, explorer, files


def written() -> str:
    """The snippet as it stands in the documentation."""
    found = re.search(r"```html\n(.*?)\n```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_snippet_of_the_documentation_is_that_of_the_pages() -> None:
    """Whoever copies either has the same; a key cannot end its text nor the script."""
    assert written() == as_snippet("https://explorer.example", "V0021056EL")
    assert "</script><b>" not in as_snippet("https://explorer.example", 'a"</script><b>')


def test_a_page_elsewhere_shows_what_is_similar(visit: Open, elsewhere: Elsewhere, rights: None) -> None:
    """Eight pictures of other works come from another origin, each with title, credit and licence, and lead to us."""
    website, explorer, files = elsewhere
    snippet = written().replace("https://explorer.example", explorer).replace("V0021056EL", CAT)
    files["/work.html"] = f"<!doctype html><html lang=en><title>A work</title>{snippet}".encode()
    page = visit().page
    page.goto(f"{website}/work.html")
    items = page.locator(".similar li")
    expect(items).to_have_count(8)
    assert "chelsea" not in " ".join(items.all_inner_texts())
    for words in items.all_inner_texts():
        assert re.search(r"\S+ \(\w+\)\s+Of \w+, cc-by", words), words
    items.first.scroll_into_view_if_needed()
    expect(items.first.locator("img")).to_have_js_property("complete", True)
    assert items.first.locator("img").evaluate("one => one.naturalWidth") > 0
    name = items.first.locator("a").inner_text().strip()
    items.first.locator("a").click()
    expect(page.locator("main h1")).to_have_text(name)
    page.goto("about:blank")  # before its explorer goes


def test_an_image_that_is_not_there_shows_nothing(visit: Open, elsewhere: Elsewhere) -> None:
    """No empty heading, and no error but what the browser notes."""
    website, explorer, files = elsewhere
    files["/work.html"] = f"<!doctype html>{as_snippet(explorer, 'nobody')}".encode()
    one = visit()
    with one.page.expect_response("**/similar?**"):
        one.page.goto(f"{website}/work.html")
    expect(one.page.locator(".similar")).to_be_hidden()
    assert all("404" in said for said in one.complaints), one.complaints
    one.complaints.clear()
