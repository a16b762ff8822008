"""What of the explorer is for operators alone; nothing public names their machines, folders and buckets."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import httpx
import pytest
from starlette.testclient import TestClient

from cli.serve import prepare
from explorer.problems import describe
from lookalike.database import connect
from lookalike.errors import LookalikeError, WeightsError
from lookalike.settings import Settings
from tests.explorer_archive import filled_database
from tests.explorer_servers import listening
from tests.integration.test_explorer_api import API, TOKENS, opened
from tests.integration.test_readiness import beat
from tests.servers import free_port

# Stands in the name of whatever must not be seen.
INSIDE = "inside-name"
FOLDER, BUCKET = f"/mnt/{INSIDE}", f"s3://{INSIDE}/scans"
FOR_OPERATORS = ("/metrics", "/status/details", f"{API}/failures")
BEARER = {"Authorization": f"Bearer {TOKENS['ann']}"}


@pytest.fixture(scope="module")
def archive_url(server_url: str, template_database: str) -> Iterator[str]:
    """A filled archive with a worker, sources and a failure that name what lies inside."""
    for url in filled_database(server_url, template_database):
        with connect(url, application_name="test") as connection:
            beat(connection, f"{INSIDE}.12")
            for number, name in enumerate((FOLDER, BUCKET, "https://iiif.example.org/manifest?token=secret")):
                connection.execute("insert into sources (name, error) values (%s, %s)", [name, FOLDER])
                key = f"image/{number:05}"
                connection.execute("update images set source = %s where key = %s", [name, key])
            connection.execute("update failures set detail = %s", [f"{FOLDER}/1.tif"])
        yield url


@pytest.fixture(params=["no tokens", "tokens"])
def stranger(archive_url: str, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """Somebody elsewhere."""
    tokens = TOKENS if request.param == "tokens" else {}
    with opened(archive_url, "museum.org", "192.0.2.7", explorer_rate=0, explorer_tokens=tokens) as client:
        yield client


def test_a_stranger_sees_how_far_it_is_and_nothing_of_the_inside(stranger: TestClient) -> None:
    """Counts are there; no worker, source, failure, path or bucket, on pages nor in the API."""
    status = stranger.get(f"{API}/status")
    (encoder,) = status.json()["encoders"]
    assert (encoder["counted"]["done"], encoder["failures"]) == (60, {"not_found": 1})
    assert (encoder["workers"], status.json()["sources"]) == (None, None)
    page = stranger.get("/status").text
    assert "for operators" in page
    assert "decisions/retry" not in page
    images = [f"image/0000{number}" for number in range(3)]
    public = ["/status", "/status/live", f"{API}/status", *(f"/images/{key}" for key in images)]
    for path in public + [f"{API}/images/{key}" for key in images]:
        got = stranger.get(path)
        assert got.status_code == 200
        assert INSIDE not in got.text, path
        assert "secret" not in got.text, path
    source = stranger.get(f"{API}/images/image/00002").json()["source"]
    assert source.startswith("https://iiif.example.org/manifest")


def test_a_stranger_is_refused_what_is_for_operators(stranger: TestClient) -> None:
    """With the word for what is missing; supervisors are answered."""
    expected = 401 if stranger.app.state.settings.explorer_tokens else 403
    for path in FOR_OPERATORS:
        got = stranger.get(path)
        assert (got.status_code, INSIDE in got.text) == (expected, False), path
        assert stranger.head(path).status_code == expected
    assert "operators' figures" in stranger.get("/metrics").json()["detail"]
    for path in ("/healthz", "/readyz"):
        assert stranger.get(path).status_code == 200


def test_an_operator_sees_all(archive_url: str) -> None:
    """By a token from anywhere, or at this machine where there are none; and no cache keeps it for others."""
    elsewhere = opened(archive_url, "museum.org", "192.0.2.7", explorer_tokens=TOKENS)
    for opening, headers in ((elsewhere, BEARER), (opened(archive_url), {})):
        with opening as client:
            status = client.get(f"{API}/status", headers=headers)
            assert status.json()["encoders"][0]["workers"][0]["name"] == f"{INSIDE}.12"
            assert {one["name"] for one in status.json()["sources"]} >= {FOLDER, BUCKET}
            assert status.headers["cache-control"] == "private, no-cache"
            assert "Authorization" in status.headers["vary"]
            assert (
                client.get(f"{API}/failures", headers=headers).json()["items"][0]["detail"].startswith(FOLDER)
            )
            for path in ("/status", "/status/details"):
                page = client.get(path, headers=headers).text
                assert all(words in page for words in (BUCKET, f"{INSIDE}.12", "decisions/retry")), path
            assert "lookalike_explorer_requests_total" in client.get("/metrics", headers=headers).text


def test_a_browser_is_asked_and_led_back_to_what_it_may_see(archive_url: str) -> None:
    """The page of details asks for name and token, and what is tried again there leads back there."""
    with opened(archive_url, "museum.org", "192.0.2.7", explorer_tokens=TOKENS) as client:
        asked = client.get("/status/details", headers={"Accept": "text/html"})
        assert asked.headers["www-authenticate"].startswith("Basic ")
        form = {"encoder": "tiny", "key": "image/00000"}
        said = client.post("/decisions/retry", data=form, auth=("bob", TOKENS["bob"]), follow_redirects=False)
        assert said.headers["location"] == "/status/details"


def test_a_link_of_another_website_leads_an_operator_there(archive_url: str) -> None:
    """As from a ticket or a dashboard: the page opens, or asks for the token; scripts and frames get nothing."""
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    with opened(archive_url, "museum.org", "192.0.2.7", explorer_tokens=TOKENS) as client:
        ann = ("ann", TOKENS["ann"])
        assert client.get("/status/details", headers=link).status_code == 401
        assert BUCKET in client.get("/status/details", headers=link, auth=ann).text
        for other in ({"Sec-Fetch-Mode": "no-cors"}, {"Sec-Fetch-Dest": "iframe"}):
            assert client.get("/status/details", headers={**link, **other}, auth=ann).status_code == 403
        form = {"encoder": "tiny", "key": "image/00000"}
        assert client.post("/decisions/retry", data=form, headers=link, auth=ann).status_code == 403


def test_who_waits_for_a_count_keeps_no_connection_from_it(archive_url: str) -> None:
    """However many look at the status of an archive that is not counted yet, all are answered."""
    with (
        listening(archive_url, explorer_connections=2) as port,
        ThreadPoolExecutor(12) as pool,
    ):
        address = f"http://127.0.0.1:{port}{API}/status"
        answers = list(pool.map(lambda _: httpx.get(address, timeout=20), range(12)))
    assert [one.status_code for one in answers] == [200] * 12
    assert any(one.json()["encoders"][0]["counted"] for one in answers)


def test_errors_name_no_files_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """What only the operator can mend is told to the log, and to strangers that it is so."""
    for error in (WeightsError(f"{FOLDER}/x.pth cannot be read as weights"), LookalikeError(FOLDER)):
        problem = describe(error)
        assert INSIDE not in str(problem)
        assert re.search("the log of the explorer says", problem.detail or "")


def test_prometheus_has_a_port_of_its_own(archive_url: str) -> None:
    """`lookalike serve` gives its figures where the setting says, to whoever reaches that port."""
    settings = Settings(_env_file=None, metrics_port=free_port())
    app = prepare(settings, archive_url)
    with TestClient(app, base_url="http://museum.org", client=("192.0.2.7", 5000)) as client:
        assert client.get("/metrics").status_code == 403
        with urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics", timeout=5) as answer:
            assert b'lookalike_explorer_requests_total{code="403"' in answer.read()
