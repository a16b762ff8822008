"""The explorer's HTTP API on a real Postgres: what it answers, and what it refuses."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import hypothesis
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance
from starlette.testclient import TestClient

from explorer.app import create_app
from explorer.problems import KINDS, REASONS
from explorer.status import BookKeeper
from lookalike import errors
from lookalike.database import Connection
from lookalike.reasons import Reason
from lookalike.settings import Settings
from tests.explorer_archive import fill, filled_database
from tests.explorer_servers import listening

API = "/api/v1"
TOKENS = {"ann": "a-long-token", "bob": "another-token"}


@contextmanager
def opened(
    database_url: str, host: str = "localhost", address: str = "127.0.0.1", **options: object
) -> Iterator[TestClient]:
    """A client of an app with these settings, at an address of its own."""
    app = create_app(Settings(_env_file=None, **options), database_url)
    with TestClient(
        app, base_url=f"http://{host}", client=(address, 5000), raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture(scope="module")
def archive_url(server_url: str, template_database: str) -> Iterator[str]:
    """A database with a filled archive, for tests that only read it."""
    yield from filled_database(server_url, template_database)


@pytest.fixture(scope="module")
def client(archive_url: str) -> Iterator[TestClient]:
    with opened(archive_url, explorer_rate=0) as made:
        yield made


# Reading -------------------------------------------------------------------------------------------------------------


def test_an_image_and_its_neighbours(client: TestClient) -> None:
    """What the catalogue says is there, pictures are where browsers see them, and neighbours are those of SQL."""
    image = client.get(f"{API}/images/image/00001").json()
    assert (image["title"], image["licence"], image["encoders"]) == (
        "A view of Rome, plate 1",
        "cc-by",
        ["tiny"],
    )
    assert image["thumbnail"]["small"] == "https://iiif.example.org/1/full/!400,400/0/default.jpg"
    found = client.get(f"{API}/images/image/00001/similar", params={"k": 7, "licence": "pdm"}).json()
    assert (found["query"], found["encoder"], len(found["neighbours"])) == ("image/00001", "tiny", 7)
    assert {one["licence"] for one in found["neighbours"]} == {"pdm"}
    assert [one["rank"] for one in found["neighbours"]] == list(range(1, 8))
    near = found["neighbours"][3]["distance"]
    nearer = client.get(
        f"{API}/images/image/00001/similar", params={"max_distance": near, "licence": "pdm"}
    ).json()
    assert [one["distance"] <= near for one in nearer["neighbours"]] == [True] * 4


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("waiting%2Fsimilar", "waiting/similar"),
        # No image is called "waiting".
        ("waiting/similar", "waiting/similar"),
        ("image%2F00001", "image/00001"),
    ],
)
def test_keys_hold_slashes_and_end_in_verbs(client: TestClient, path: str, key: str) -> None:
    """A key is found as it is and percent-encoded, also one that ends like a question."""
    assert client.get(f"{API}/images/{path}").json()["key"] == key


def test_the_root_answers_json_to_those_who_ask_for_it(client: TestClient) -> None:
    """The same resource is a page for people, and JSON where JSON is asked for."""
    for path in ("/images/image/00001", "/images/image%2F00001/similar?k=2", "/clusters", "/status"):
        asked = client.get(path, headers={"Accept": "application/json"})
        assert asked.status_code == 200
        if path != "/status":
            assert asked.json() == client.get(API + path).json()


def test_addresses_of_the_archives_own_disks_and_secrets_stay_inside(
    connection: Connection, database_url: str
) -> None:
    """No file path, password or signature is answered as a picture's address."""
    fill(connection)
    connection.execute(
        "update images set url = 'https://ann:pass@example.org/1.jpg?X-Amz-Signature=abc' where key = 'image/00000'"
    )
    with opened(database_url) as client:
        assert "secret" not in client.get(f"{API}/images/waiting%2Fsimilar").text
        answered = client.get(f"{API}/images/image/00000").text
    assert "pass" not in answered
    assert "abc" not in answered
    assert "https://example.org/1.jpg" in answered


def collect(client: TestClient, path: str, **parameters: object) -> list[dict]:
    """All items of a list, page by page."""
    items, cursor = [], None
    while True:
        got = client.get(API + path, params={**parameters, **({"cursor": cursor} if cursor else {})}).json()
        items += got["items"]
        cursor = got["next"]
        if cursor is None:
            return items


@pytest.mark.parametrize(
    ("path", "parameters", "size"),
    [
        ("/images", {"q": "image/"}, 59),
        ("/images", {"q": "rome VIEW"}, 40),
        ("/images", {"q": "nap"}, 19),
        ("/images", {"q": "it's & (a | b):*"}, 0),
        ("/works/work-3", {}, 2),
        ("/duplicates", {}, 5),
        ("/duplicates/groups", {}, 2),
        ("/clusters", {}, 2),
        ("/clusters/1/members", {}, 29),
        ("/failures", {}, 1),
        ("/unwanted", {"state": "candidate"}, 3),
    ],
)
@pytest.mark.parametrize("limit", [1, 7, 200])
def test_pages_hold_everything_once(
    client: TestClient, path: str, parameters: dict, size: int, limit: int
) -> None:
    """Page by page of whatever size, a list is what it is in one."""
    once = collect(client, path, **parameters, limit=limit)
    assert once == collect(client, path, **parameters, limit=100)
    assert len(once) == size


@pytest.mark.parametrize("cursor", ["x", "W10", "WzFd", "bnVsbA", "WyIxIl0", "W3RydWVd", "WzFlNDAwXQ", "é"])
def test_a_foreign_cursor_is_refused(client: TestClient, cursor: str) -> None:
    """What is no cursor of the list is 422, whatever it holds."""
    for path in ("/images?q=a", "/duplicates", "/clusters/1/members", "/decisions", "/failures"):
        joined = "&" if "?" in path else "?"
        got = client.get(f"{API}{path}{joined}cursor={cursor}")
        if (path, cursor) != ("/decisions", "WzFd"):
            assert got.status_code == 422, (path, got.text)


def test_a_wall_is_random_and_whole(client: TestClient) -> None:
    """Images at random, each once, others every time."""
    walls = [[one["key"] for one in client.get(f"{API}/random?limit=20").json()["items"]] for _ in range(3)]
    assert all(len(set(wall)) == 20 for wall in walls)
    assert len({tuple(wall) for wall in walls}) > 1


def test_what_a_cache_has_is_not_sent_again(client: TestClient) -> None:
    """Answers have an ETag and may be kept; with If-None-Match the same is 304 without a body."""
    first = client.get(f"{API}/images/image/00002/similar")
    assert first.headers["cache-control"] == "public, max-age=60"
    for sent in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = client.get(f"{API}/images/image/00002/similar", headers={"If-None-Match": sent})
        assert (again.status_code, again.content) == (304, b"")
    other = client.get(f"{API}/images/image/00003/similar", headers={"If-None-Match": first.headers["etag"]})
    assert other.status_code == 200
    assert client.get(f"{API}/duplicates").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        (f"{API}/images/image/00001", "*/*"),
        (f"{API}/images/nobody", "*/*"),
        ("/images/image/00001", "application/json"),
        ("/", "text/html"),
        ("/static/pages.js", "*/*"),
        ("/thumbnails/waiting/similar", "*/*"),
        ("/healthz", "*/*"),
        ("/api/docs", "*/*"),
        ("/nothing", "text/html"),
        ("/decisions/image", "text/html"),
    ],
)
def test_head_is_answered_as_get_is(client: TestClient, path: str, accept: str) -> None:
    """The same status and headers without a body, over the API, pages, files and errors."""
    whole = client.get(path, headers={"Accept": accept})
    head = client.head(path, headers={"Accept": accept})
    assert (head.status_code, head.content) == (whole.status_code, b"")
    # A wall is of random images.
    assert {
        name: value for name, value in head.headers.items() if path != "/" or name != "content-length"
    } == {name: value for name, value in whole.headers.items() if path != "/" or name != "content-length"}


def test_a_server_sends_no_body_for_head(archive_url: str) -> None:
    """Over a real connection, which goes on to be of use: the length is that of GET, and nothing follows."""
    with listening(archive_url) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as asking:
        whole = asking.get(f"{API}/images/image/00001")
        for _ in range(2):
            head = asking.head(f"{API}/images/image/00001")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(whole.content))
        assert 'method="HEAD",route="/api/v1/images/{key}"' in asking.get("/metrics").text


def test_status_and_figures(client: TestClient) -> None:
    """The status has the books of each encoder; the figures count what was asked, by route."""
    (encoder,) = client.get(f"{API}/status").json()["encoders"]
    assert {name: encoder["counted"][name] for name in ("registered", "done", "failed", "open", "lost")} == {
        "registered": 62,
        "done": 60,
        "failed": 1,
        "open": 1,
        "lost": 0,
    }
    assert (encoder["active"], encoder["left"], encoder["failures"]) == (True, 1, {"not_found": 1})
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    client.get(f"{API}/images/nobody")
    figures = client.get("/metrics").text
    assert re.search(
        r'lookalike_explorer_requests_total\{code="404",method="GET",route="/api/v1/images/\{key\}"\} [1-9]',
        figures,
    )
    assert 'lookalike_explorer_request_seconds_bucket{le="0.1",route="/api/v1/status"}' in figures


# Refusing ------------------------------------------------------------------------------------------------------------


def test_a_count_that_takes_too_long_is_no_trouble_and_rests() -> None:
    """Books that cannot be counted in time leave the status readable, and are not counted again at once."""
    began: list[float] = []

    class Slow:
        @contextmanager
        def deciding(self) -> Iterator[None]:
            began.append(time.monotonic())
            time.sleep(0.05)
            raise psycopg.errors.QueryCanceled("statement timeout")
            yield

    keeper = BookKeeper(Slow())
    assert [keeper.count("tiny") for _ in range(5)] == [None] * 5
    assert len(began) == 1
    keeper.close()


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/images/nobody", 404, "unknown-image"),
        ("/images/nobody/similar", 404, "unknown-image"),
        ("/images/waiting%2Fsimilar/similar", 409, "not-embedded"),
        ("/images/image%2F00001/similar?encoder=other", 404, "unknown-encoder"),
        ("/images/image%2F00001/similar?k=0", 422, "invalid-request"),
        ("/images/image%2F00001/similar?k=1000", 422, "invalid-request"),
        ("/images/image%2F00001/similar?max_distance=nan", 422, "invalid-request"),
        ("/images/image%2F00001/similar?colour=red", 422, "invalid-request"),
        ("/images/image%2F00001/similar?since=yesterday", 422, "invalid-request"),
        ("/images/a%00b", 422, "invalid-request"),
        ("/images?q=%00", 422, "invalid-request"),
        ("/clusters/99", 404, "unknown-cluster"),
        ("/clusters/9999999999999999999", 422, "invalid-request"),
        ("/unwanted?set=nothing", 404, "unknown-set"),
        ("/nothing", 404, None),
    ],
)
def test_problems_say_what_is_wrong(client: TestClient, path: str, status: int, kind: str | None) -> None:
    """Each error is a problem document with its kind, and nobody keeps it."""
    got = client.get(API + path)
    assert (got.status_code, got.headers["content-type"]) == (status, "application/problem+json")
    problem = got.json()
    assert problem["type"] == (f"urn:lookalike:problem:{kind}" if kind else "about:blank")
    assert (problem["status"], got.headers["cache-control"]) == (status, "no-store")


def test_every_error_of_ours_is_a_known_problem() -> None:
    """Each class of errors.py has its status; each reason of an image leads to a status of a client or a host."""
    ours = {
        each
        for each in vars(errors).values()
        if isinstance(each, type)
        and issubclass(each, errors.LookalikeError)
        and each is not errors.ImageError
    }
    assert {each for each in ours if not any(base in KINDS for base in each.__mro__[:2])} == set()
    assert set(REASONS) <= set(Reason)


def test_a_database_that_is_away_is_no_end(archive_url: str) -> None:
    """The app starts without its database, says so with 503 and Retry-After, and is alive."""
    with opened("postgresql://nobody@127.0.0.1:9/none") as client:
        got = client.get(f"{API}/images/image/00001")
        assert (got.status_code, got.headers["retry-after"]) == (503, "5")
        assert got.json()["type"] == "urn:lookalike:problem:unavailable"
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_an_address_that_asks_too_much_waits(archive_url: str) -> None:
    """Beyond its burst an address gets 429 and when to come back; others, and supervisors, do not."""
    with opened(archive_url, explorer_rate=1, explorer_burst=3) as client:
        codes = [client.get(f"{API}/works/work-1").status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        refused = client.get(f"{API}/works/work-1")
        assert (refused.json()["status"], refused.headers["retry-after"]) == (429, "1")
        # A header that anybody can write makes nobody somebody else.
        forged = client.get(f"{API}/works/work-1", headers={"X-Forwarded-For": "192.0.2.7"})
        assert forged.status_code == 429
        assert client.get("/healthz").status_code == 200


def test_each_client_of_a_socket_for_both_has_its_own_limit(archive_url: str) -> None:
    """Listening at `::`, IPv4 clients come as ::ffff:192.0.2.7: they are not one network of IPv6."""
    for net, expected in (("::ffff:192.0.2.", [200, 200]), ("2001:db8:0:1::", [200, 429])):
        with opened(archive_url, explorer_rate=1, explorer_burst=1, explorer_proxies="127.0.0.1") as client:
            sent = [{"X-Forwarded-For": f"{net}{end}"} for end in (7, 8)]
            codes = [client.get(f"{API}/works/work-1", headers=one).status_code for one in sent]
        assert codes == expected


def test_the_word_of_believed_proxies_counts(archive_url: str) -> None:
    """Behind a believed proxy each client has its own limit: the last address that no believed proxy has."""
    with opened(
        archive_url, explorer_rate=1, explorer_burst=1, explorer_proxies="127.0.0.0/8,10.0.0.0/8"
    ) as client:
        for sent, status in [
            ("192.0.2.7", 200),
            ("192.0.2.7", 429),
            ("192.0.2.8", 200),
            ("192.0.2.99, 192.0.2.8, 10.1.1.1", 429),
            # Some proxies add the port, which each connection has another of.
            ("192.0.2.9:5001", 200),
            ("192.0.2.9:5002, 10.1.1.1:80", 429),
            ("[2001:db8::1]:5001", 200),
            ("[2001:db8::1]:5002", 429),
        ]:
            got = client.get(f"{API}/works/work-1", headers={"X-Forwarded-For": sent})
            assert got.status_code == status, sent


def test_only_known_websites_may_ask_from_their_pages(archive_url: str) -> None:
    """CORS names the origins of the setting and no others."""
    with opened(archive_url, explorer_origins="https://museum.example") as client:
        for origin, allowed in (
            ("https://museum.example", "https://museum.example"),
            ("https://evil.example", None),
        ):
            got = client.get(f"{API}/works/work-1", headers={"Origin": origin})
            assert got.headers.get("access-control-allow-origin") == allowed


def test_bodies_are_limited_and_headers_guard(client: TestClient) -> None:
    """A body beyond its limit is refused, with its length said or not; every answer has the headers of safety."""
    long = b"x" * 300_000
    assert client.post(f"{API}/unwanted", content=long).status_code == 413
    assert client.post(f"{API}/unwanted", content=iter([long])).status_code == 413
    # Only files may be as long as pictures: the rest would be held in memory.
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        for path in (f"{API}/search", "/picture/search"):
            assert client.post(path, content=long, headers={"Content-Type": kind}).status_code == 413
    got = client.get(f"{API}/works/work-1")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-security-policy"].startswith("default-src 'none'")


# The description -----------------------------------------------------------------------------------------------------


def test_the_documentation_names_what_there_is(client: TestClient) -> None:
    """Every path in docs/api.md is one of the API, and every path of the API is there."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    paths = {path.removeprefix(API) for path in client.get("/api/openapi.json").json()["paths"]}
    named = set(re.findall(r"`(?:GET |POST |DELETE )?(?:/api/v1)?(/[a-z/{}]+)(?:\?q=)?`", text))
    assert named - paths <= {"/healthz", "/readyz", "/metrics", "/status/details", "/api/docs", "/search"} | {
        each for each in named if each.startswith("/api")
    }
    assert paths - named <= {"/clusters/{cluster}/members"}


def test_the_description_is_a_page_without_scripts(client: TestClient) -> None:
    """It names every path with its parameters, and loads nothing from elsewhere."""
    page = client.get("/api/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for path in client.get("/api/openapi.json").json()["paths"]:
        assert path in page.text
    assert "<script" not in page.text
    assert re.findall(r'(?:src|href)="([^/][^"]*)"', page.text) == []


@pytest.fixture(scope="module")
def described(server_url: str, template_database: str) -> Iterator[schemathesis.BaseSchema]:
    """The API by its own description, over an archive that may be changed."""
    for url in filled_database(server_url, template_database):
        app = create_app(Settings(_env_file=None, explorer_rate=0, explorer_tokens=TOKENS), url)
        with TestClient(app):
            yield schemathesis.openapi.from_asgi("/api/openapi.json", app)


def test_the_api_is_as_it_describes_itself(described: schemathesis.BaseSchema) -> None:
    """Whatever is asked within the OpenAPI document, nothing is a server error, and answers fit their schemas."""
    operations = [each.ok() for each in described.get_all_operations()]
    assert len(operations) >= 20
    for operation in operations:
        if operation.path.endswith("/search"):
            continue

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(
                headers={"Authorization": f"Bearer {TOKENS['ann']}"},
                checks=[not_a_server_error, response_schema_conformance],
            )

        ask()
