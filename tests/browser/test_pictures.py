"""Pictures in a real browser: in tiles of their service, and where none comes."""

from collections.abc import Callable

import psycopg
import pytest
from PIL import Image as Pictures
from playwright.sync_api import Route, expect

from tests.browser.archive import Explorer, wait_in
from tests.browser.conftest import Visit
from tests.iiif_servers import own_service

Open = Callable[..., Visit]
CAT = "demo/chelsea/original.jpg"


def test_a_picture_of_a_service_is_seen_closer_in_tiles(
    visit: Open, archive: Explorer, clean: psycopg.Connection
) -> None:
    """Only those in sight, of the level that the screen can show; the farther ones stay below until these are there."""
    with Pictures.open(archive.photographs / "retina" / "original.jpg") as picture:
        large = picture.convert("RGB").resize((3000, 3000))
    one = visit(bypass_csp=True)  # the address of the service is that of a test
    with own_service({"retina": large}, 3) as service:
        row = clean.execute(
            "select url from lookalike.images where key = 'demo/retina/original.jpg'"
        ).fetchone()
        assert row is not None
        change = "update lookalike.images set url = %s, protocol = %s where key = 'demo/retina/original.jpg'"
        clean.execute(change, [service.base("retina"), "iiif"])
        try:
            page = one.go("/images/demo/retina/original.jpg")
            page.locator(".large a").click()
            tiles = page.locator(".sheet img")
            expect(tiles).not_to_have_count(1)
            before = tiles.count()
            for _ in range(4):
                page.keyboard.press("+")
            wait_in(page, f"document.querySelectorAll('.sheet img').length > {before}")
            wait_in(
                page, "[...document.querySelectorAll('.sheet img')].every(i => i.complete && i.naturalWidth)"
            )
            # In the middle, one pixel of the picture for one of the screen; its corners were never asked for so.
            asked = tiles.evaluate_all("all => all.map(each => each.src.split('/retina/')[1])")
            assert "1024,1024,512,512/512,512/0/default.jpg" in asked
            assert "0,0,512,512/512,512/0/default.jpg" not in asked
        finally:
            one.page.goto("about:blank")  # before its service goes
            clean.execute(change, [row[0], "file"])


@pytest.mark.parametrize(
    ("factors", "expected"),
    [([1], range(1)), ([1, 2, 4, 8, 16, 32, 64], range(1, 161))],
    ids=["none", "coarse"],
)
def test_a_service_of_many_small_tiles_is_not_flooded(
    visit: Open, factors: list[int], expected: range
) -> None:
    """Of a level with too many in sight a coarser one is asked for, or none; and what is in sight stays."""
    asked: list[str] = []
    zoom = {"base": "https://iiif.example.org/x", "width": 40_000, "height": 30_000, "quality": "default"}
    zoom |= {"tile_width": 64, "tile_height": 64, "factors": factors, "both": True}

    def tile(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(content_type="image/svg+xml", body="<svg xmlns='http://www.w3.org/2000/svg'/>")

    one = visit(bypass_csp=True)
    one.page.route("**/zoom?*", lambda route: route.fulfill(json=zoom))
    one.page.route("https://iiif.example.org/x/**", tile)
    page = one.go(f"/images/{CAT}")
    page.locator(".large a").click()
    page.wait_for_timeout(600)
    assert len(asked) in expected
    assert page.locator(".sheet img").count() == 1 + len(asked)


def test_no_picture_is_shown_broken(visit: Open) -> None:
    """Where its host, the explorer's own thumbnail and its colours all fail, its place stays, in its shape."""
    one = visit()

    def fail(route: Route) -> None:
        if route.request.resource_type == "image":
            route.abort()
        else:
            route.continue_()

    one.page.route("**/*", fail)
    page = one.go(f"/images/{CAT}")
    wait_in(page, "document.querySelectorAll('#neighbours img.missing').length > 3")
    wait_in(
        page,
        "[...document.querySelectorAll('img.missing')].every(i => i.complete && i.src.startsWith('data:'))",
    )
    box = page.locator("#neighbours img").first.bounding_box()
    assert box is not None
    assert box["height"] > 100
    one.complaints.clear()  # the browser notes each that does not come
