"""The explorer as a part of a larger website, https://museum.org/lookalike/, behind a real reverse proxy."""

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from explorer.app import create_app
from explorer.prefix import OWN, parse_prefix
from lookalike import maps
from lookalike.database import connect
from lookalike.errors import ConfigurationError
from lookalike.settings import Settings
from tests.explorer_archive import filled_database
from tests.explorer_servers import listening, reverse_proxy

ROOT = "/lookalike"
TOKEN = {"ann": "a-long-token"}
# Whatever in a page or a script leads on: links, files, forms, and what scripts are told to ask.
ADDRESSES = re.compile(
    r'(?:href|src|action|data-(?:load|source|picture|points|images|region|next))="([^"]*)"|from "(\./[^"]+)"'
)
MANY = (f"{ROOT}/images/", f"{ROOT}/thumbnails/", f"{ROOT}/numbers/")
TO_POST = {f"{ROOT}/decisions/{one}" for one in ("undo", "pair", "image", "images", "cluster", "retry")} | {
    f"{ROOT}/{one}" for one in ("unwanted/learn", "picture/search")
}
PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def archive_url(server_url: str, template_database: str) -> Iterator[str]:
    """A filled archive with a map, and a picture whose thumbnail is ours."""
    for url in filled_database(server_url, template_database):
        with connect(url, application_name="test") as connection:
            maps.make(connection, "tiny", 50)
        yield url


@pytest.fixture(scope="module", params=[True, False], ids=["path taken off", "path left on"])
def site(archive_url: str, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of the website."""
    with (
        listening(archive_url, explorer_root_path=ROOT, explorer_tokens=TOKEN) as port,
        reverse_proxy(port, ROOT, strips=request.param) as front,
        httpx.Client(base_url=f"http://127.0.0.1:{front}", timeout=20) as client,
    ):
        yield client


@pytest.mark.parametrize("site", [True], indirect=True)
def test_every_address_of_every_page_is_on_the_site(site: httpx.Client) -> None:
    """From the home page on, each link, file, script and form leads below the path, and is there."""
    left = [
        f"{ROOT}/",
        f"{ROOT}/api/docs",
        f"{ROOT}/map?square=0",
        f"{ROOT}/nothing",
        f"{ROOT}/static/nothing",
    ]
    # Pages of errors, and what a script asks for some images by their numbers.
    shown = {f"{ROOT}/nothing", f"{ROOT}/static/nothing", f"{ROOT}/api/v1/map/images"}
    seen: set[str] = set()
    kinds: dict[str, int] = {}
    many: Counter[str] = Counter()
    while left:
        path = left.pop()
        # A few images stand for all.
        many[path.split("/")[2]] += path not in seen
        if path in seen or (many[path.split("/")[2]] > 4 and path.startswith(MANY)):
            continue
        seen.add(path)
        assert path.startswith(f"{ROOT}/"), path
        # Where a browser would ask its operator.
        auth = ("ann", TOKEN["ann"]) if path.endswith("/details") else None
        got = site.get(path, headers=PAGE, auth=auth)
        kind = got.headers.get("content-type", "").partition(";")[0]
        if path in TO_POST:
            assert got.status_code == 405, path
            continue
        drawn = path.startswith(f"{ROOT}/thumbnails/") and kind == "image/svg+xml"
        assert got.status_code in (200, 302) or drawn or path in shown, (
            path,
            got.status_code,
            got.text[:300],
        )
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind not in ("text/html", "text/javascript", "application/javascript"):
            continue
        for found in ADDRESSES.findall(got.text):
            for address in unescape(found[0] or found[1]).split():
                whole = urlsplit(urljoin(f"http://site{path}", address))
                if whole.netloc == "site":
                    left.append(whole.path + (f"?{whole.query}" if whole.query else ""))
    assert kinds["text/html"] > 40
    assert {"text/css", "image/svg+xml", "application/octet-stream"} <= set(kinds)
    assert any(path.endswith("/swap.js") for path in seen)


def test_redirects_stay_on_the_site(site: httpx.Client) -> None:
    """To the path itself, behind a slash too many and after a decision: never to the name that the proxy calls us."""
    assert site.get(f"{ROOT}/clusters/").headers["location"] == f"{ROOT}/clusters"
    assert site.get(f"{ROOT}/images/image/00001/similar", headers=PAGE).headers["location"] == (
        f"{ROOT}/images/image/00001"
    )
    form = {"key": "image/00007", "state": "unwanted"}
    said = site.post(f"{ROOT}/decisions/image", data=form, auth=("ann", TOKEN["ann"]))
    assert (said.status_code, said.headers["location"]) == (303, f"{ROOT}/images/image/00007")
    pair = {"first": "image/00001", "second": "image/00002", "verdict": "same"}
    for back, expected in (
        (f"{ROOT}/duplicates?decided=true", f"{ROOT}/duplicates?decided=true&decision="),
        # Another part of the website is not ours to send anybody to.
        ("/shop", f"{ROOT}/duplicates?decision="),
    ):
        said = site.post(f"{ROOT}/decisions/pair", data={**pair, "back": back}, auth=("ann", TOKEN["ann"]))
        assert said.headers["location"].startswith(expected)


def test_the_path_itself_leads_to_the_home_page(archive_url: str) -> None:
    """Without its slash as well, where the proxy leaves the path on."""
    with listening(archive_url, explorer_root_path=ROOT) as port, httpx.Client() as client:
        got = client.get(f"http://127.0.0.1:{port}{ROOT}")
        assert got.headers["location"] == f"{ROOT}/"


def test_the_api_speaks_of_the_site(site: httpx.Client, archive_url: str) -> None:
    """Our pictures, problems and the description have the path; keys with slashes, and JSON at the root, are found."""
    with connect(archive_url, application_name="test") as connection:
        connection.execute(
            "insert into thumbnails (image_id, revision, jpeg) select id, revision, '\\xff' from images"
            " where key = 'waiting/similar' on conflict do nothing"
        )
    image = site.get(f"{ROOT}/api/v1/images/waiting%2Fsimilar").json()
    assert image["key"] == "waiting/similar"
    assert image["thumbnail"]["small"].startswith(f"{ROOT}/thumbnails/waiting/similar")
    assert site.get(image["thumbnail"]["small"]).status_code == 200
    problem = site.get(f"{ROOT}/api/v1/images/nobody").json()
    assert problem["instance"] == f"{ROOT}/api/v1/images/nobody"
    assert site.get(f"{ROOT}/images/image/00001", headers={"Accept": "application/json"}).json()["key"]
    too_long = site.post(f"{ROOT}/api/v1/unwanted", content=b"x" * 300_000)
    assert (too_long.status_code, too_long.json()["instance"]) == (413, f"{ROOT}/api/v1/unwanted")
    described = site.get(f"{ROOT}/api/openapi.json").json()
    assert described["servers"] == [{"url": ROOT}]
    assert f"{ROOT}/api/v1/images/{{key}}" in site.get(f"{ROOT}/api/docs").text


def test_no_header_moves_the_explorer(archive_url: str) -> None:
    """X-Forwarded-Prefix may be a visitor's word, which a cache would keep for others: it changes nothing."""
    with TestClient(
        create_app(Settings(_env_file=None, explorer_proxies="127.0.0.1"), archive_url)
    ) as client:
        plain = client.get("/api/docs").text
        assert client.get("/api/docs", headers={"X-Forwarded-Prefix": "/evil"}).text == plain


@pytest.mark.parametrize(
    "path", ["lookalike", "//evil", "/a b", "/a/../b", "/a?b", "/images", "/api/x", "/é"]
)
def test_a_path_that_is_none_is_refused(path: str) -> None:
    """Before anything is served, with what to write instead."""
    with pytest.raises(ConfigurationError, match="LOOKALIKE_EXPLORER_ROOT_PATH"):
        parse_prefix(path)


def test_what_lies_at_the_root_is_known(archive_url: str) -> None:
    """No path of a website can be mistaken for one of ours: the list holds the first part of every route."""
    app = create_app(Settings(_env_file=None), archive_url)
    paths = [*app.openapi()["paths"]]
    with TestClient(app) as client:
        paths += re.findall(r'(?:href|action)="(/[^"?]*)', client.get("/").text)
    paths = [path.removeprefix("/api/v1") for path in paths]
    assert {path.split("/")[1] for path in paths} - {"", "random", "colours"} <= OWN
    assert parse_prefix("/lookalike/") == ROOT
