"""The explorer as people use it, in a real browser, over photographs embedded by the real network."""

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.browser.archive import PHONE, Explorer, wait_in
from tests.browser.conftest import Visit
from tests.servers import wait_until

Open = Callable[..., Visit]
CAT = "demo/chelsea/original.jpg"


@contextmanager
def keeping(connection: psycopg.Connection) -> Iterator[None]:
    """Takes back what is decided within the block."""
    yield
    connection.execute("delete from lookalike.decisions")
    connection.execute("delete from lookalike.marked_pairs")
    connection.execute(
        "delete from lookalike.unwanted_images u using lookalike.unwanted_sets s"
        " where s.id = u.set_id and s.name = 'by hand'"
    )


def keys_of(page: Page, within: str = "#neighbours") -> list[str]:
    """The keys of the images of a wall, in order."""
    links = page.locator(f"{within} a.picture").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    return [link.removeprefix("/images/") for link in links]


def test_an_image_is_found_and_two_neighbours_followed(visit: Open) -> None:
    """From home by words of its title; each page shows the neighbours of its own image, nearest first."""
    one = visit()
    page = one.go("/")
    expect(page.locator("#wall img").first).to_be_visible()
    page.get_by_role("searchbox").fill("chelsea ori")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="chelsea (original)").click()
    expect(page).to_have_url(f"{one.url}/images/{CAT}")

    distances = [float(d) for d in page.locator("#neighbours .number").all_inner_texts()]
    assert len(distances) == 60
    assert distances == sorted(distances)
    assert {key.split("/")[1] for key in keys_of(page)[:4]} == {"chelsea"}

    for _ in range(2):
        follow = keys_of(page)[0]
        page.locator("#neighbours a.picture").first.click()
        expect(page).to_have_url(f"{one.url}/images/{follow}")
        expect(page.locator(".facts")).to_contain_text(follow)
        assert follow not in keys_of(page)


def test_another_wall_is_another_wall(visit: Open) -> None:
    """Without leaving the page, and the cursor stays on the button."""
    page = visit().go("/")
    before = keys_of(page, "#wall")
    page.get_by_role("button", name="Another wall").click()
    # The wall as a whole: the first image may be the same by chance.
    wait_until(lambda: keys_of(page, "#wall") != before, 20, "another wall")
    wait_in(page, "document.activeElement.id === 'another'")


def test_a_step_back_shows_the_same_wall(visit: Open) -> None:
    """Whoever comes back from an image finds the wall that it was on."""
    page = visit().go("/")
    before = keys_of(page, "#wall")
    page.locator("#wall a.picture").first.click()
    expect(page.locator("#neighbours")).to_be_visible()
    page.go_back()
    expect(page.locator("#wall")).to_be_visible()
    assert keys_of(page, "#wall") == before


def test_filters_change_the_neighbours_in_place(visit: Open) -> None:
    """A smaller distance leaves fewer, and stands in the address; without the work, no copy is left."""
    one = visit()
    page = one.go(f"/images/{CAT}")
    slider = page.locator("#f-distance")
    slider.fill("0.3")
    expect(page).to_have_url(re.compile("max_distance=0.3"))
    near = [float(d) for d in page.locator("#neighbours .number").all_inner_texts()]
    assert near
    assert max(near) <= 0.3
    slider.fill("1")
    page.get_by_label("Not of the same work").check()
    expect(page.locator("#neighbours a.picture").first).not_to_have_attribute("href", re.compile("chelsea"))


def test_the_classes_stand_above_the_features(visit: Open) -> None:
    """As soon as one asks for it: all 1,000 classes, the likely ones named, and 1,280 features."""
    page = visit().go(f"/images/{CAT}")
    page.locator(".seen summary").click()
    expect(page.locator("#numbers svg.plot")).to_have_count(2, timeout=30_000)
    expect(page.locator("#numbers")).to_contain_text("1,000 classes")
    expect(page.locator("#numbers svg.plot").first).to_contain_text(
        re.compile("tabby|Egyptian cat|tiger cat")
    )
    expect(page.locator("#numbers")).to_contain_text("1,280 features")


def test_a_file_that_is_chosen_finds_its_original_first(visit: Open, archive: Explorer) -> None:
    """Through the form, with the picture drawn beside what was found."""
    page = visit().go("/picture")
    page.locator("#picture-file").set_input_files(archive.photographs / "coffee" / "cropped.jpg")
    expect(page.locator("main h1")).to_contain_text("60 images", timeout=30_000)
    assert keys_of(page, "main")[0] == "demo/coffee/cropped.jpg"
    assert keys_of(page, "main")[1] == "demo/coffee/original.jpg"
    expect(page.locator("#sent canvas")).to_be_visible()


def _as_file(archive: Explorer, name: str) -> str:
    return base64.b64encode((archive.photographs / name).read_bytes()).decode()


MAKE_FILE = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, { type: "image/jpeg" }));
  return carried;
}"""


def test_a_file_that_is_dropped_on_any_page_finds_its_original_first(visit: Open, archive: Explorer) -> None:
    """The way back leads to the page that it was dropped on."""
    one = visit()
    page = one.go(f"/images/{CAT}")
    carried = page.evaluate_handle(MAKE_FILE, [_as_file(archive, "rocket/original.jpg"), "rocket.jpg"])
    page.dispatch_event("main", "dragover", {"dataTransfer": carried})
    expect(page.locator("#veil")).to_be_visible()
    page.dispatch_event("main", "drop", {"dataTransfer": carried})
    expect(page).to_have_url(f"{one.url}/picture", timeout=30_000)
    assert keys_of(page, "main")[0] == "demo/rocket/original.jpg"
    expect(page.locator("#veil")).to_be_hidden()
    page.go_back()
    expect(page.locator("#neighbours")).to_be_visible()


def test_a_picture_that_is_pasted_is_looked_for(visit: Open, archive: Explorer) -> None:
    """From the clipboard, on the home page."""
    page = visit().go("/")
    page.evaluate(
        f"""([data, name]) => {{
          const carried = ({MAKE_FILE})([data, name]);
          document.dispatchEvent(new ClipboardEvent("paste", {{ clipboardData: carried, bubbles: true }}));
        }}""",
        [_as_file(archive, "china/grey.jpg"), "china.jpg"],
    )
    expect(page.locator("#sent canvas")).to_be_visible(timeout=30_000)
    assert keys_of(page, "main")[0] == "demo/china/grey.jpg"


def test_what_is_no_picture_is_refused_in_words(archive: Explorer, visit: Open) -> None:
    """The form stays, for another one. (The browser itself notes the refusal on its console.)"""
    one = visit()
    page = one.go("/picture")
    page.locator("#picture-file").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture at all"}
    )
    expect(page.locator("main [role=alert]").last).to_contain_text(
        "the bytes are not an image", timeout=30_000
    )
    expect(page.locator("#picture-file")).to_be_attached()
    assert all("Failed to load resource" in said for said in one.complaints)
    one.complaints.clear()


def test_pairs_are_judged_with_the_keys_and_taken_back(visit: Open, clean: psycopg.Connection) -> None:
    """Right is the same, left is not, z takes back, down keeps for later; each is a row with who and when."""
    page = visit().go("/duplicates")
    captions = page.locator(".pair figcaption")
    with keeping(clean):
        first = captions.all_inner_texts()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#judging .notice")).to_contain_text("the same picture")
        assert captions.all_inner_texts() != first
        decided = clean.execute("select same, marked_by, marked_at from lookalike.marked_pairs").fetchall()
        assert [(same, bool(by), at is not None) for same, by, at in decided] == [(True, True, True)]

        page.keyboard.press("z")
        expect(page.locator("#judging .notice")).to_have_count(0)
        assert captions.all_inner_texts() == first
        assert clean.execute("select count(*) from lookalike.marked_pairs").fetchone() == (0,)

        page.keyboard.press("ArrowDown")
        expect(page).to_have_url(re.compile("cursor="))
        assert captions.all_inner_texts() != first
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#judging .notice")).to_contain_text("not the same picture")
        assert clean.execute("select same from lookalike.marked_pairs").fetchall() == [(False,)]
        page.keyboard.press("z")
        expect(page.locator("#judging .notice")).to_have_count(0)


def test_keys_can_be_switched_off(visit: Open, clean: psycopg.Connection) -> None:
    """Whoever speaks to the machine, or leans on the keyboard, decides nothing by it; it is remembered."""
    page = visit().go("/duplicates")
    page.get_by_label("Keyboard shortcuts").uncheck()
    page.reload()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert clean.execute("select count(*) from lookalike.marked_pairs").fetchone() == (0,)
    expect(page.get_by_label("Keyboard shortcuts")).not_to_be_checked()


def test_an_unwanted_image_leaves_the_results_and_comes_back(visit: Open, clean: psycopg.Connection) -> None:
    """By the button on its page, and the button that takes it back."""
    one, neighbour = visit(), "demo/chelsea/cropped.jpg"
    with keeping(clean):
        page = one.go(f"/images/{neighbour}")
        page.get_by_role("button", name="Unwanted").click()
        expect(page.locator("#state")).to_contain_text("searches leave it out")
        assert neighbour not in keys_of(one.go(f"/images/{CAT}"))
        assert neighbour in keys_of(one.go(f"/images/{CAT}?include_unwanted=true"))

        page = one.go(f"/images/{neighbour}")
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_role("button", name="Unwanted")).to_be_visible()
        assert neighbour in keys_of(one.go(f"/images/{CAT}"))


def test_candidates_are_reviewed_one_by_one_and_together(visit: Open, clean: psycopg.Connection) -> None:
    """Accepted ones leave the queue and the searches; what is done together is taken back together."""
    one = visit()
    with keeping(clean):
        page = one.go("/unwanted?set=textures")
        queue = page.locator("#review a.picture")
        before = queue.count()
        assert before >= 3
        page.locator("#review .under button", has_text="Unwanted").first.click()
        expect(queue).to_have_count(before - 1)
        page.get_by_role("button", name="Undo").click()
        expect(queue).to_have_count(before)
        for box in page.locator("#review .choose input").all()[:2]:
            box.check()
        page.get_by_role("button", name="Chosen: Fine").click()
        expect(page.locator("#review .notice")).to_contain_text("2 images: fine")
        expect(queue).to_have_count(before - 2)
        page.get_by_role("button", name="Undo").click()
        expect(queue).to_have_count(before)


def test_a_cluster_is_a_wall_that_can_be_named(visit: Open) -> None:
    """The name stands at once where the suggestion was."""
    page = visit().go("/clusters")
    expect(page.locator(".card")).to_have_count(8)
    page.locator(".card h2 a").first.click()
    assert page.locator("main .wall li").count() > 3
    page.get_by_label("Name").fill("Household things")
    page.get_by_role("button", name=re.compile("Name it|Rename")).click()
    expect(page.locator("#named h1")).to_have_text("Household things")
    page.get_by_label("Name").fill("")
    page.get_by_role("button", name="Rename").click()
    expect(page.locator("#named h1")).not_to_have_text("Household things")


def test_progress_moves_while_a_run_goes_on(archive: Explorer, visit: Open) -> None:
    """On a status page that was opened before the run, without a hand on it; at its end all is done."""
    assert archive.watched == sorted(archive.watched)
    assert len(set(archive.watched)) >= 3, archive.watched
    page = visit().go("/status")
    expect(page.locator("#live")).to_contain_text("complete")
    done, most = (page.locator("#live progress").get_attribute(name) for name in ("value", "max"))
    assert done == most


def test_failed_images_are_shown_by_reason_and_tried_again(
    visit: Open, archive: Explorer, clean: psycopg.Connection
) -> None:
    """The button makes the failure pending, which the figures above show at once."""
    clean.execute(
        "insert into lookalike.failures (encoder, image_id, revision, reason, detail, attempts)"
        " select 'efficientnet-lite0', id, revision, 'timeout', 'no answer within 60 s', 5 from lookalike.images"
        " where key = %s",
        [CAT],
    )
    page = visit().go("/status")
    expect(page.locator("#failures")).to_contain_text("timeout")
    expect(page.locator("#failures")).to_contain_text("no answer within 60 s")
    expect(page.locator("#failures .failed img")).to_be_visible()
    page.get_by_role("button", name=f"Try {CAT} again").click()
    expect(page.locator("#failures .failed")).to_have_count(0)
    assert clean.execute("select count(*) from lookalike.failures").fetchone() == (0,)
    clean.execute("delete from lookalike.chunks where state = 'pending'")


def test_the_keyboard_alone_suffices(visit: Open) -> None:
    """Tab shows a way past the head, focus is seen, Enter follows a neighbour; / goes to the search."""
    one = visit()
    page = one.go(f"/images/{CAT}")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator("#find")).to_be_focused()
    page.locator("#neighbours a.picture").first.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    expect(page).not_to_have_url(f"{one.url}/images/{CAT}")


def test_an_unknown_key_gets_a_search_box_with_it(visit: Open) -> None:
    """It says so with 404, and what was asked for can be searched at once."""
    one = visit()
    page = one.go("/images/demo/chel")
    expect(page.locator("main h1")).to_have_text("No image has this key")
    page.locator("main").get_by_role("button", name="Find").click()
    expect(page.locator("main .wall li").first).to_be_visible()
    one.complaints.clear()  # the browser notes every 404


def test_without_script_everything_is_there(
    visit: Open, clean: psycopg.Connection, archive: Explorer
) -> None:
    """Filters, decisions and searches with a picture are plain forms."""
    one = visit(java_script_enabled=False)
    with keeping(clean):
        page = one.go(f"/images/{CAT}?max_distance=0.3")
        assert keys_of(page)
        page.get_by_role("button", name="Apply").click()
        assert keys_of(page)
        page.get_by_role("button", name="Unwanted").click()
        expect(page.locator("#state")).to_contain_text("searches leave it out")
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_role("button", name="Unwanted")).to_be_visible()
        page = one.go("/picture")
        page.locator("#picture-file").set_input_files(archive.photographs / "coffee" / "original.jpg")
        page.locator("form", has=page.locator("#picture-file")).get_by_role("button", name="Look").click()
        assert keys_of(page, "main")[0] == "demo/coffee/original.jpg"


PAGES = {
    "home": "/",
    "image": f"/images/{CAT}",
    "duplicates": "/duplicates",
    "unwanted": "/unwanted",
}


WATCH_SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) window.shifted += each.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("name", PAGES)
def test_nothing_jumps_while_pictures_come(visit: Open, name: str) -> None:
    """Each picture has its place before it is there."""
    for viewport in (None, PHONE):
        one = visit(viewport)
        one.page.add_init_script(WATCH_SHIFTS)
        one.page.goto(one.url + PAGES[name], wait_until="load")
        one.page.wait_for_timeout(200)
        assert one.page.evaluate("window.shifted") < 0.02
