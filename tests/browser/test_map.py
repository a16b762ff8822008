"""The map in a real browser: moved by mouse, wheel, fingers and keys, opened by a click, and read without a canvas."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from lookalike import maps, search
from lookalike.database import connect
from tests.browser.archive import PHONE, UNWANTED, Explorer, wait_in
from tests.browser.conftest import Visit

Open = Callable[..., Visit]


@pytest.fixture(scope="module", autouse=True)
def made(archive: Explorer) -> Iterator[int]:
    """A map of all images of the archive."""
    with connect(archive.database_url, application_name="test") as connection:
        encoder = search.active_encoder(connection)
        yield maps.make(connection, encoder).images


def opened(one: Visit, path: str = "/map") -> Page:
    """The page, when its points are there."""
    page = one.go(path)
    wait_in(page, "document.getElementById('map-canvas').chart !== undefined")
    return page


def middle(page: Page) -> dict[str, float]:
    state: dict[str, float] = page.evaluate(
        "() => { const c = document.getElementById('map-canvas').chart;"
        " return { x: c.middle.x, y: c.middle.y, zoom: c.zoom }; }"
    )
    return state


def test_it_is_moved_with_the_mouse(visit: Open, made: int) -> None:
    """Dragging moves it, the wheel comes nearer to what is under the pointer, the button shows all again."""
    page = opened(visit())
    assert page.evaluate("document.getElementById('map-canvas').chart.points.count") == made - len(UNWANTED)
    box = page.locator("#map-canvas").bounding_box()
    assert box is not None
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(left, top)
    page.mouse.wheel(0, -300)
    wait_in(page, "document.getElementById('map-canvas').chart.zoom > 1.5")
    page.mouse.down()
    page.mouse.move(left + 100, top, steps=4)
    page.mouse.up()
    assert middle(page)["x"] < 0.5
    assert page.url.endswith("/map")  # a drag is no click
    page.get_by_role("button", name="Whole map").click()
    assert middle(page) == {"x": 0.5, "y": 0.5, "zoom": 1}


def test_near_images_are_pictures_and_open_by_a_click(visit: Open) -> None:
    """Coming nearer loads pictures and no others; a pointer over one says what it is, a click opens its page."""
    one = visit()
    page = opened(one)
    place = "document.getElementById('map-canvas').chart"
    page.evaluate(f"{place}.move({place}.points.x[0], {place}.points.y[0]); {place}.scaleBy(12);")
    wait_in(page, f"[...{place}.details.pictures.values()].some((one) => one.whole)")
    box = page.locator("#map-canvas").bounding_box()
    assert box is not None
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(left, top)
    expect(page.locator("#map-hint")).to_be_visible()
    said = page.locator("#map-hint").inner_text()
    page.mouse.click(left, top)
    page.wait_for_url("**/images/**")
    expect(page.get_by_role("heading", level=1)).to_contain_text(said)


def test_it_is_moved_and_read_with_keys(visit: Open) -> None:
    """Arrows move, + and - come nearer, 0 shows all, Enter opens; what lies in the middle is said in words."""
    page = opened(visit())
    page.locator("#map-canvas").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    state = middle(page)
    assert state["zoom"] > 1
    assert state["x"] > 0.5
    expect(page.locator("#map-list a").first).to_be_visible()
    expect(page.locator("#voice")).to_contain_text("In the middle:")
    page.keyboard.press("0")
    assert middle(page) == {"x": 0.5, "y": 0.5, "zoom": 1}
    page.keyboard.press("Enter")
    page.wait_for_url("**/images/**")


def test_two_fingers_come_nearer(visit: Open) -> None:
    """A pinch, as a phone sends it; the page does not scroll sideways."""
    page = opened(visit(viewport=PHONE, has_touch=True))
    box = page.locator("#map-canvas").bounding_box()
    assert box is not None
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind: str, apart: int) -> None:
        points = (
            []
            if kind == "touchEnd"
            else [{"x": left + side * apart, "y": top, "id": number} for number, side in enumerate((-1, 1))]
        )
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 20)
    for apart in range(30, 130, 20):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    wait_in(page, "document.getElementById('map-canvas').chart.zoom > 2")
    assert abs(middle(page)["x"] - 0.5) < 0.05
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_squares_lead_to_images(visit: Open) -> None:
    """Without a canvas: each square is a link with a picture, and shows what lies in it."""
    one = visit(java_script_enabled=False)
    page = one.go("/map")
    expect(page.locator("#map-canvas")).to_be_hidden()
    page.locator(".map-squares a").first.click()
    expect(page.locator(".wall a.picture").first).to_be_visible()
