"""Nobody is kept out: WCAG 2.2 AA on every page, by axe-core and by what it cannot see. See docs/accessibility.md."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from lookalike import maps, search
from lookalike.database import connect
from lookalike.settings import Settings
from tests.browser.archive import DESKTOP, PHONE, Explorer, explorer_over, wait_in
from tests.browser.conftest import Visit
from tests.servers import free_port

Open = Callable[..., Visit]
CAT = "demo/chelsea/original.jpg"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
# Those that look at more than one element at a time need no second look; `resultTypes` saves half of the time.
RUN = """tags => axe.run({ runOnly: tags, resultTypes: ["violations"] }).then(found => found.violations.flatMap(
  one => one.nodes.map(node => `${one.id} (${one.impact}): ${node.html.slice(0, 160)} ${node.failureSummary}`)))"""
NARROW = {"width": 320, "height": 640}


@dataclass
class Sites:
    """Two more explorers: one that wants tokens and is soon asked too much, one whose database is away."""

    guarded: str
    away: str


@pytest.fixture(scope="module", autouse=True)
def failing(archive: Explorer) -> Iterator[None]:
    """A map, and an image that failed for each of two reasons."""
    with connect(archive.database_url, application_name="test") as connection:
        maps.make(connection, search.active_encoder(connection))
    with psycopg.connect(archive.database_url, autocommit=True) as connection:
        for name, reason in (("coffee", "timeout"), ("horse", "not_an_image")):
            connection.execute(
                "insert into lookalike.failures (encoder, image_id, revision, reason, detail, attempts)"
                " select 'efficientnet-lite0', id, revision, %s, 'as it was said', 5 from lookalike.images"
                " where key = %s",
                [reason, f"demo/{name}/grey.jpg"],
            )
        yield
        connection.execute("delete from lookalike.failures")


@pytest.fixture(scope="module")
def sites(archive: Explorer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    home = tmp_path_factory.mktemp("explorers")
    guarded = Settings(
        _env_file=None,
        home=home,
        explorer_tokens={"ann": "secret"},
        explorer_image_sources="https: http:",
        explorer_rate=0.001,
        explorer_burst=2,
    )
    away = Settings(_env_file=None, home=home, explorer_rate=0)
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing?connect_timeout=1"
    with explorer_over(guarded, archive.database_url) as one, explorer_over(away, nowhere) as other:
        yield Sites(one, other)


# Every page, opened as far as it opens -------------------------------------------------------------------------------

PAGES = {
    "home": "/",
    "search": "/search?q=demo/c",
    "colour": "/search?colour=c83c32",
    "image": f"/images/{CAT}",
    "compare": f"/compare?first={CAT}&second=demo/chelsea/grey.jpg",
    "picture": "/picture",
    "clusters": "/clusters",
    "duplicates": "/duplicates",
    "groups": "/duplicates/groups",
    "unwanted": "/unwanted",
    "map": "/map?square=14",
    "status": "/status",
    "unknown": "/images/nothing",
}


def open_all(page: Page) -> None:
    """Opens what is folded up, and waits for what comes late."""
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    if page.locator("#numbers").count():
        page.locator("#numbers").scroll_into_view_if_needed()
        expect(page.locator("#numbers svg.plot")).to_have_count(2, timeout=30_000)
    if page.locator("#map-canvas").count():
        expect(page.locator("#map-list a").first).to_be_visible()


def found(page: Page) -> list[str]:
    """What axe-core finds, in light and in the dark, on a desk and on a phone; and where a narrow page is too wide."""
    page.evaluate(Axe().axe_script)
    said = []
    for viewport in (DESKTOP, PHONE):
        page.set_viewport_size(viewport)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            said += [f"{viewport['width']} {scheme}: {one}" for one in page.evaluate(RUN, TAGS)]
    return said


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(visit: Open, name: str) -> None:
    """No rule of WCAG 2.0 to 2.2 A and AA, nor any of good practice (headings, landmarks), however slightly."""
    one = visit()
    page = one.go(PAGES[name])
    assert page.title().endswith("lookalike") == (name != "home")
    open_all(page)
    assert found(page) == []
    if name == "unknown":
        one.complaints.clear()  # the browser notes every 404


@pytest.mark.slow
def test_axe_finds_nothing_in_what_comes_by_a_click(visit: Open, archive: Explorer) -> None:
    """A cluster, a picture seen closer, what a picture found, one that was refused, a set that was not learned."""
    one = visit()
    page = one.go("/clusters")
    page.locator(".card h2 a").first.click()
    assert found(page) == []
    page = one.go(f"/images/{CAT}")
    page.set_viewport_size(DESKTOP)
    page.get_by_role("button", name="See it closer").click()
    assert found(page) == []
    page = one.go("/picture")
    page.locator("#picture-file").set_input_files(archive.photographs / "coffee" / "cropped.jpg")
    expect(page.locator("#sent canvas")).to_be_visible(timeout=30_000)
    assert found(page) == []
    page.locator("#picture-file").set_input_files(Path(__file__))
    expect(page.locator("#refused")).to_be_visible(timeout=30_000)
    assert found(page) == []
    page = one.go("/unwanted")
    page.get_by_text("Learn a set from examples").click()
    page.get_by_label("Name of the set").fill("nothing")
    page.get_by_label("Keys of unwanted images").fill("nobody")
    page.get_by_role("button", name="Learn").click()
    expect(page.locator("#learning .notice")).to_contain_text("nothing", timeout=30_000)
    assert found(page) == []
    one.complaints.clear()  # the browser notes the refusal


def _unasked(route: Route) -> None:
    """Passes an answer on as a browser does when its question for name and token was waved away."""
    answer = route.fetch()
    headers = {name: value for name, value in answer.headers.items() if name != "www-authenticate"}
    route.fulfill(response=answer, headers=headers)


def test_axe_finds_nothing_in_errors(visit: Open, sites: Sites) -> None:
    """Whoever needs a token (401), asks too much (429), or comes while the database is away (503)."""
    one = visit()
    one.url = sites.guarded
    page = one.go(f"/images/{CAT}")
    page.route("**/decisions/image", _unasked)
    page.evaluate("document.querySelector('#state form').submit()")
    expect(page.locator("main h1")).to_have_text("Deciding needs a token")
    assert found(page) == []
    page = one.go("/")
    expect(page.locator("main h1")).to_have_text("Too many questions at once")
    assert found(page) == []
    one.url = sites.away
    page = one.go("/")
    expect(page.locator("main h1")).to_have_text("The archive is away for a moment")
    assert found(page) == []
    one.complaints.clear()  # the browser notes each


# What axe cannot see --------------------------------------------------------------------------------------------------

# Text spacing as 1.4.12 has it, as a user's style sheet sets it.
SPACED = """() => { for (const each of document.querySelectorAll("body *")) {
  each.style.setProperty("line-height", "1.5", "important");
  each.style.setProperty("letter-spacing", "0.12em", "important");
  each.style.setProperty("word-spacing", "0.16em", "important"); } }"""
# Words that are cut, where they may not be: of names below pictures the whole stands on their own page.
CUT = """() => [...document.querySelectorAll("main :is(h1, h2, h3, p, dd, dt, label, button, .button, figcaption)")]
  .filter(one => one.checkVisibility() && !one.closest(".unseen, .words"))
  .filter(one => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== "visible")
  .map(one => one.outerHTML.slice(0, 100))"""
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("name", PAGES)
def test_narrow_and_spaced_pages_scroll_in_one_direction(visit: Open, name: str) -> None:
    """At 320 px, which is a desk at 400 % as well (1.4.4, 1.4.10), and with the spacing of 1.4.12, nothing is cut."""
    one = visit(NARROW)
    page = one.go(PAGES[name])
    open_all(page)
    assert page.evaluate(WIDE) <= 0
    page.evaluate(SPACED)
    assert page.evaluate(WIDE) <= 0
    assert page.evaluate(CUT) == []
    if name == "unknown":
        one.complaints.clear()


FOCUS = """() => {
  const one = document.activeElement;
  if (one === document.body) return null;
  const box = one.getBoundingClientRect();
  const style = getComputedStyle(one);
  const over = document.elementFromPoint(box.left + box.width / 2, box.top + Math.min(box.height / 2, 20));
  return {
    html: one.outerHTML.slice(0, 120),
    seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    free: !box.height || !over || one.contains(over) || over.contains(one) || over.closest("label")?.control === one,
    at: [...document.querySelectorAll("*")].indexOf(one),
  };
}"""


@pytest.mark.parametrize("name", ["image", "duplicates", "unwanted", "map", "status", "picture"])
def test_the_focus_goes_through_the_page_in_its_order(visit: Open, name: str) -> None:
    """By Tab: seen at every step (2.4.7), never hidden (2.4.11), in the order of the page, and out of it (2.1.2)."""
    page = visit(viewport={"width": 1000, "height": 700}).go(PAGES[name])
    if name == "map":
        expect(page.locator("#map-list a").first).to_be_visible()
    last = -1
    for _ in range(60):
        page.keyboard.press("Tab")
        now = page.evaluate(FOCUS)
        if now is None:
            break
        assert now["seen"], now
        assert now["free"], now
        assert now["at"] > last or now["html"].startswith('<a class="skip"'), now
        if now["at"] < last:
            break
        last = now["at"]


def test_links_that_are_pictures_have_names(visit: Open) -> None:
    """Each link of a wall says which image it leads to, and once; that of a distance says what it compares (2.4.4)."""
    page = visit().go(f"/images/{CAT}")
    walls = page.locator("#neighbours")
    walls.get_by_role("link", name="chelsea (grey)", exact=True).wait_for()
    walls.get_by_role("link", name="compare with chelsea (grey)").wait_for()
    page = visit().go("/")
    names = page.locator("#wall img").evaluate_all("all => all.map(each => each.alt)")
    assert all(names)


def test_what_happens_is_said(visit: Open) -> None:
    """Filters, copies and refusals stand where screen readers speak them (4.1.3)."""
    page = visit().go(f"/images/{CAT}")
    page.locator("#f-distance").fill("0.3")
    expect(page.locator("#voice")).to_contain_text("images that look like it")
    page.context.grant_permissions(["clipboard-write"])
    page.locator("#same summary").click()
    page.get_by_role("button", name="Copy the SQL").click()
    expect(page.locator("#voice")).to_have_text("Copied")


def test_an_error_belongs_to_its_field(visit: Open) -> None:
    """An address that cannot be searched with stays in its field, which says what is wrong with it (3.3.1, 3.3.3)."""
    one = visit()
    page = one.go("/picture")
    page.locator("#picture-url").fill("http://127.0.0.1:1/secret.jpg")
    page.locator("#picture-url").press("Enter")
    field = page.locator("#picture-url")
    expect(field).to_have_attribute("aria-invalid", "true", timeout=30_000)
    assert field.input_value() == "http://127.0.0.1:1/secret.jpg"
    expect(field).to_have_accessible_description(page.locator("#refused").inner_text())
    one.complaints.clear()  # the browser notes the refusal


def test_nothing_moves_for_those_who_want_no_motion(visit: Open) -> None:
    """No transition and no animation is left (2.3.3)."""
    page = visit(reduced_motion="reduce").go(f"/images/{CAT}")
    moving = page.evaluate(
        "[...document.querySelectorAll('*')].filter(one => { const s = getComputedStyle(one);"
        " return s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0; }).length"
    )
    assert moving == 0


def test_a_picture_seen_closer_is_left_with_escape(visit: Open) -> None:
    """The focus is in the picture, moves it, and comes back to where it was (2.1.2, 2.4.3)."""
    page = visit().go(f"/images/{CAT}")
    opener = page.get_by_role("button", name="See it closer")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#closer .stage")).to_be_focused()
    before = page.locator(".sheet").get_attribute("style")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert page.locator(".sheet").get_attribute("style") != before
    page.keyboard.press("u")  # a key of the page behind
    page.keyboard.press("Escape")
    expect(page.locator("#closer")).to_be_hidden()
    expect(opener).to_be_focused()
    expect(page.get_by_role("button", name="Unwanted")).to_be_visible()


CONTRAST = """([inner, outer]) => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
      .map(v => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const probe = document.body.appendChild(document.createElement("i"));
  const of = (name) => { probe.style.color = `var(${name})`; return light(getComputedStyle(probe).color); };
  const [a, b] = [of(inner), of(outer)].sort((x, y) => y - x);
  probe.remove();
  return (a + 0.05) / (b + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_and_plots_stand_out(visit: Open, scheme: str) -> None:
    """Edges of fields, bars, leaders, ticks and the focus are 3 to 1 or more against what they lie on (1.4.11)."""
    page = visit(scheme=scheme).go("/status")
    for inner in ("--edge", "--accent", "--ink", "--good"):
        for outer in ("--paper", "--raised", "--sunk"):
            assert page.evaluate(CONTRAST, [inner, outer]) >= 3, (inner, outer)
    for inner in ("--faint", "--ink"):
        for outer in ("--paper", "--raised", "--sunk"):
            assert page.evaluate(CONTRAST, [inner, outer]) >= 4.5, (inner, outer)


def test_the_review_goes_by_keys(visit: Open, clean: psycopg.Connection) -> None:
    """Arrows go from image to image, f and u decide about the one that has the focus, which the next one then has."""
    page = visit().go("/unwanted?set=textures")
    links = page.locator("#review a.picture")
    names = page.locator("#review .name").all_inner_texts()
    links.first.focus()
    page.keyboard.press("ArrowRight")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("f")
    expect(page.locator("#review .notice")).to_contain_text(": fine")
    assert page.locator("#review .name").all_inner_texts() == [names[0], *names[2:]]
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("z")
    expect(links).to_have_count(len(names))
    clean.execute("delete from lookalike.decisions")


def test_the_loupe_is_over_both(visit: Open, clean: psycopg.Connection) -> None:
    """By click or key, moved with Shift and arrows, which decide nothing; it stays on for the next pair."""
    page = visit().go("/duplicates")
    pictures = page.locator(".pair .frame img")
    page.keyboard.press("l")
    expect(page.locator("#loupe")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("+")
    styles = pictures.evaluate_all(
        "all => all.map(each => each.style.transform + each.style.transformOrigin)"
    )
    assert styles[0] == styles[1] != ""
    assert clean.execute("select count(*) from lookalike.marked_pairs").fetchone() == (0,)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#judging .notice")).to_be_visible()
    wait_in(page, "document.querySelector('.pair .frame img').style.transform !== ''")
    page.keyboard.press("Escape")
    expect(page.locator("#loupe")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("z")
    expect(page.locator("#judging .notice")).to_have_count(0)
    clean.execute("delete from lookalike.decisions")
