"""The explorer's pages on a real Postgres, as a browser without script asks: what they show, take and refuse."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import unescape

import pytest
from starlette.testclient import TestClient

from explorer.app import create_app
from lookalike.database import Connection, connect
from lookalike.settings import Settings
from tests.explorer_archive import filled_database
from tests.servers import free_port, wait_until

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Site": "same-origin"}


@contextmanager
def opened(database_url: str, **options: object) -> Iterator[TestClient]:
    """A client of the pages at this machine's own address."""
    app = create_app(Settings(_env_file=None, explorer_rate=0, **options), database_url)
    with TestClient(
        app, base_url="http://localhost", client=("127.0.0.1", 5000), headers=BROWSER, follow_redirects=False
    ) as client:
        yield client


@pytest.fixture(scope="module")
def archive_url(server_url: str, template_database: str) -> Iterator[str]:
    """A database with a filled archive."""
    yield from filled_database(server_url, template_database)


@pytest.fixture(scope="module")
def client(archive_url: str) -> Iterator[TestClient]:
    with opened(archive_url) as made:
        yield made


@pytest.fixture(scope="module")
def reader(archive_url: str) -> Iterator[Connection]:
    with connect(archive_url, application_name="test") as connection:
        yield connection


PAGES = (
    "/",
    "/search?q=Rome",
    "/search?work=work-3",
    "/search?colour=c83c32",
    "/images/image/00001",
    "/images/waiting%2Fsimilar",
    "/image?key=image/00001",
    "/numbers/image/00001",
    "/compare?first=image/00001&second=image/00002",
    "/compare?first=image/00001&second=waiting/similar",
    "/picture",
    "/clusters",
    "/clusters?of=works",
    "/clusters/1",
    "/duplicates",
    "/duplicates?decided=true",
    "/duplicates?end=true",
    "/duplicates/groups",
    "/unwanted",
    "/unwanted?set=charts&state=accepted",
    "/unwanted/learning",
    "/status",
    "/status/live",
)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_there(client: TestClient, path: str) -> None:
    """As HTML that no cache shares, under a policy that lets only files of ours run, with web addresses alone."""
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] in ("no-store", "private, no-cache")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    addresses = [unescape(each) for each in re.findall(r'(?:href|src|action)="([^"]*)"', page.text)]
    assert all(each.startswith(("/", "#", "https://")) for each in addresses), addresses


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/images/nothing", 404),
        ("/clusters/99", 404),
        ("/nothing", 404),
        ("/search?colour=red", 400),
        ("/search?q=x&cursor=nonsense", 422),
    ],
)
def test_errors_are_pages(client: TestClient, path: str, status: int) -> None:
    """With a heading, and a box to search again where nothing was found."""
    page = client.get(path)
    assert page.status_code == status
    assert "<h1" in page.text
    assert status != 404 or "Key or title" in page.text


def test_two_images_say_what_they_share(client: TestClient) -> None:
    """Their distance, and what the archive knows of both; one without a vector has none."""
    page = client.get("/compare?first=image/00002&second=image/00003").text
    assert re.search(r"<dt>Distance</dt><dd>[01]\.\d{3} ", page)
    assert "<dt>Work</dt><dd>work-1</dd>" in page
    assert "<dt>Work</dt>" not in client.get("/compare?first=image/00001&second=image/00002").text
    assert "not known" in client.get("/compare?first=image/00001&second=waiting/similar").text


def test_the_same_in_sql_and_by_the_api(client: TestClient, reader: Connection) -> None:
    """Both answer what the page shows, as they stand there, with all that the page was asked for."""
    path = "/images/image/00001?k=30&max_distance=0.9&licence=cc-by&since=2020-01-01&exclude_same_work=true"
    page = client.get(path).text
    shown = re.findall(r'class="picture" href="/images/([^"]+)"', page)
    found = re.findall(r'<pre tabindex="0"><code>(.*?)</code>', page, re.DOTALL)
    in_sql, by_api, snippet = (unescape(each) for each in found)
    assert shown
    assert [row[1] for row in reader.execute(in_sql.encode()).fetchall()] == shown
    answered = client.get(
        by_api.removeprefix("http://localhost"), headers={"Accept": "application/json"}
    ).json()
    assert [one["key"] for one in answered["neighbours"]] == shown
    assert 'const key = "image/00001"' in snippet


def test_what_a_page_can_be_asked_for_the_api_answers(client: TestClient) -> None:
    """Also with the most images that can be chosen, and where the address names an encoder that is none."""
    (choices,) = re.findall(r'<select name="k".*?</select>', client.get("/images/image/00001").text)
    for many in re.findall(r"<option[^>]*>(\d+)", choices):
        page = client.get(f"/images/image/00001?k={many}&encoder=nobody").text
        by_api = unescape(re.findall(r'data-copy="(http[^"]*)"', page)[0])
        assert client.get(by_api, headers={"Accept": "application/json"}).status_code == 200, by_api


def test_two_images_are_compared_by_what_found_them(client: TestClient) -> None:
    """Who has chosen an encoder sees its distance side by side as well."""
    plain, chosen = (
        unescape(client.get(f"/images/image/00001{words}").text) for words in ("", "?encoder=tiny")
    )
    assert 'href="/compare?first=image%2F00001&second=' in plain
    assert not re.search(r'href="/compare[^"]*encoder=', plain)
    assert re.search(r'class="number" href="/compare[^"]*&encoder=tiny"', chosen)


def test_a_list_goes_on(client: TestClient) -> None:
    """More leads on, until all members of a cluster were shown once."""
    seen: list[str] = []
    path = "/search?q=image/"
    while path:
        page = client.get(path).text
        seen += re.findall(r'class="picture" href="/images/([^"]+)"', page)
        more = re.search(r'rel="next" href="([^"]+)"', page)
        path = unescape(more[1]) if more else ""
    # One is unwanted.
    assert len(seen) == len(set(seen)) == 59


def test_no_file_of_this_machine_is_shown(client: TestClient) -> None:
    """A picture that lies on the archive's own disks is its colours; its path is nowhere."""
    page = client.get("/images/waiting%2Fsimilar").text
    assert "secret" not in page
    thumbnail = re.search(r'src="(/thumbnails/[^"]+)"', page)
    assert thumbnail
    picture = client.get(thumbnail[1])
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert "<script" not in picture.text


def test_files_are_kept_by_their_content(client: TestClient) -> None:
    """The address in a page is for ever; without the digest browsers ask again."""
    address = re.search(r'src="(/static/[^"]+pages\.js)"', client.get("/").text)
    assert address
    assert "immutable" in client.get(address[1]).headers["cache-control"]
    assert client.get("/static/pages.js").headers["cache-control"] == "no-cache"
    assert client.get("/static/../rendering.py").status_code == 404


# Deciding ------------------------------------------------------------------------------------------------------------


def test_an_image_is_unwanted_and_as_before(client: TestClient, reader: Connection) -> None:
    """The answer leads back to its page; what was said is a row with who and when; the second word takes it back."""
    said = client.post("/decisions/image", data={"key": "image/00005", "state": "unwanted"})
    assert (said.status_code, said.headers["location"]) == (303, "/images/image/00005")
    page = client.get("/images/image/00005").text
    assert "searches leave it out" in page
    assert '"/images/image/00005"' not in client.get("/search?q=image/00005").text
    kept = reader.execute("select verdict, decided_by from decisions order by id desc limit 1").fetchone()
    assert kept == ("unwanted", "local")
    assert client.post("/decisions/image", data={"key": "image/00005", "state": "undo"}).status_code == 422
    numbers = re.search(r'name="decision" value="(\d+)"', page)
    assert numbers
    client.post("/decisions/image", data={"key": "image/00005", "state": "undo", "decision": numbers[1]})
    assert "searches leave it out" not in client.get("/images/image/00005").text


def test_undo_pressed_twice_takes_back_one_decision(client: TestClient, reader: Connection) -> None:
    """The form names what it takes back: a second press says that this was done, and the decision before it holds."""
    for verdict in ("unwanted", "fine"):
        client.post("/decisions/image", data={"key": "image/00008", "state": verdict})
    number = re.search(r'name="decision" value="(\d+)"', client.get("/images/image/00008").text)
    assert number
    form = {"key": "image/00008", "state": "undo", "decision": number[1]}
    assert client.post("/decisions/image", data=form).headers["location"] == "/images/image/00008"
    again = client.post("/decisions/image", data=form)
    assert again.status_code == 303
    page = client.get(again.headers["location"]).text
    assert "local took this back already" in page
    assert "searches leave it out" in page
    # What is left can be taken back as well.
    left = re.search(r'name="decision" value="(\d+)"', page)
    assert left
    client.post("/decisions/image", data={**form, "decision": left[1]})
    assert "searches leave it out" not in client.get("/images/image/00008").text
    pair = {"first": "image/00040", "second": "image/00041", "back": "/duplicates"}
    said = [client.post("/decisions/pair", data={**pair, "verdict": one}) for one in ("same", "different")]
    number = re.search(r"decision=(\d+)", said[1].headers["location"])
    assert number
    for _ in range(2):
        again = client.post("/decisions/undo", data={"decision": number[1], "back": "/duplicates"})
    page = client.get(again.headers["location"]).text
    assert "local took this back already" in page
    assert 'action="/decisions/undo"' not in page
    kept = reader.execute(
        "select same from marked_pairs m join images i on i.id = m.a where key = 'image/00040'"
    )
    assert kept.fetchall() == [(True,)]


def test_images_of_a_set_are_decided_together_and_taken_back_together(
    client: TestClient, reader: Connection
) -> None:
    """The way back holds the numbers of what was decided, for a button that undoes all of it."""
    chosen = {
        "set": "charts",
        "state": "unwanted",
        "key": ["image/00020", "image/00021"],
        "back": "/unwanted",
    }
    said = client.post("/decisions/images", data=chosen)
    back = said.headers["location"]
    page = client.get(back).text
    assert "2 images: unwanted." in page
    numbers = re.search(r'name="decision" value="([\d.]+)"', page)
    assert numbers
    count = "select count(*) from unwanted_images where state = 'accepted'"
    before = reader.execute(count).fetchone()
    client.post("/decisions/undo", data={"decision": numbers[1], "back": "/unwanted"})
    assert before == (3,)
    assert reader.execute(count).fetchone() == (1,)
    alone = client.post("/decisions/images", data={"set": "charts", "only": "fine image/00020"})
    assert "image/00020: fine." in client.get(alone.headers["location"]).text


def test_two_who_decide_about_the_same_in_different_orders_wait_for_each_other(client: TestClient) -> None:
    """Both decisions hold, one after the other, and so do two who take them back: nobody is thrown out."""
    keys = [f"image/{number:05}" for number in range(20, 50)]

    def decide(order: list[str]) -> list[str]:
        chosen = {"set": "charts", "state": "fine", "key": order}
        said = client.post("/decisions/images", data=chosen)
        assert said.status_code == 303
        return said.headers["location"].partition("decision=")[2].split(".")

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            numbers = list(pool.map(decide, (keys, keys[::-1])))
        latest = max(numbers, key=lambda one: max(map(int, one)))
        back = [{"decision": ".".join(order)} for order in (latest, latest[::-1])]
        said = list(pool.map(lambda form: client.post("/decisions/undo", data=form).status_code, back))
    assert said == [303, 303]


def test_a_failure_is_tried_again(client: TestClient, reader: Connection) -> None:
    """One image, or all with a reason; without either nothing is."""
    assert "broken" in client.get("/status").text
    assert client.post("/decisions/retry", data={"encoder": "tiny"}).status_code == 422
    assert client.post("/decisions/retry", data={"encoder": "tiny", "reason": "not_found"}).status_code == 303
    assert reader.execute("select count(*) from failures").fetchone() == (0,)


def test_a_set_is_learned_in_the_background(client: TestClient) -> None:
    """The page says how far it is, and in the end what came of it."""
    examples = "image/00030\nimage/00031\n\nimage/00030"
    said = client.post("/unwanted/learn", data={"name": "blank", "examples": examples})
    assert said.headers["location"] == "/unwanted?set=blank"
    wait_until(lambda: "data-refresh" not in client.get("/unwanted/learning").text, 20, "the set")
    assert re.search("blank is learned|blank was not learned", client.get("/unwanted/learning").text)


@pytest.mark.parametrize("back", ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nX: y"])
def test_the_way_back_leads_nowhere_else(client: TestClient, back: str) -> None:
    """A form may name only a path of ours."""
    pair = {"first": "image/00009", "second": "image/00010", "verdict": "same"}
    said = client.post("/decisions/pair", data={**pair, "back": back})
    assert said.status_code == 303
    assert said.headers["location"].startswith("/duplicates?decision=")


def test_other_websites_decide_nothing(client: TestClient) -> None:
    """A form on another website's page is refused, in words."""
    foreign = {**BROWSER, "Sec-Fetch-Site": "cross-site"}
    said = client.post("/decisions/image", data={"key": "image/00007", "state": "unwanted"}, headers=foreign)
    assert said.status_code == 403
    assert "other websites" in said.text


def test_with_tokens_a_browser_is_asked_for_one(archive_url: str, reader: Connection) -> None:
    """By its own dialogue; the name that comes with the token is who decided."""
    form = {"cluster": "1", "name": "Views"}
    with opened(archive_url, explorer_tokens={"ann": "secret"}) as client:
        refused = client.post("/decisions/cluster", data=form)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert client.post("/decisions/cluster", data=form, auth=("ann", "secret")).status_code == 303
        assert "Views" in client.get("/clusters/1").text
    kept = reader.execute("select decided_by from decisions where kind = 'name'").fetchone()
    assert kept == ("ann",)


def test_a_database_that_is_away_has_a_page_that_tries_again() -> None:
    """With 503, and without script as well."""
    with opened(f"postgresql://nobody@127.0.0.1:{free_port()}/none") as client:
        page = client.get("/")
    assert page.status_code == 503
    assert "data-reload" in page.text
    assert 'http-equiv="refresh"' in page.text
    assert page.headers["retry-after"]


def test_an_empty_archive_has_pages(database_url: str) -> None:
    """They say what to do, and none is an error."""
    with opened(database_url) as client:
        for path in (
            *("/", "/search?q=x", "/picture", "/clusters"),
            *("/duplicates", "/duplicates/groups", "/unwanted", "/status"),
        ):
            assert client.get(path).status_code == 200, path
        assert "lookalike run" in client.get("/").text
