"""Decisions in the explorer: who may make them, what they change at once, and that they can be taken back."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import sql
from starlette.requests import Request
from starlette.testclient import TestClient

from explorer import deciding
from explorer.access import is_local
from explorer.pages.undoing import QUERIES as PAGES
from explorer.reading import QUERIES
from lookalike import search
from lookalike.database import Connection, connect
from tests.explorer_archive import add_analyses, fill
from tests.integration.test_explorer_api import API, TOKENS, collect, opened
from tests.servers import wait_until


@pytest.fixture
def archive_url(connection: Connection, database_url: str) -> str:
    fill(connection)
    add_analyses(connection)
    return database_url


@pytest.fixture
def client(archive_url: str) -> Iterator[TestClient]:
    """A client at the machine of the explorer, which has no tokens."""
    with opened(archive_url) as made:
        yield made


def nearest(client: TestClient, key: str, **filters: object) -> list[str]:
    found = client.get(f"{API}/images/{key}/similar", params={"k": 5, **filters}).json()
    return [one["key"] for one in found["neighbours"]]


def unwanted_state(connection: Connection) -> list[tuple]:
    return connection.execute(
        "select set, image, state, example, decided_by, decided_at from unwanted order by 1, 2"
    ).fetchall()


def pairs_state(connection: Connection) -> tuple[list[tuple], ...]:
    """What is said of pairs, the pairs, and the groups by their members."""
    return (
        connection.execute("select * from marked_pairs order by a, b").fetchall(),
        connection.execute("select * from duplicate_pairs order by a, b").fetchall(),
        connection.execute(
            "select array_agg(image_id order by image_id) from duplicate_members group by group_id order by 1"
        ).fetchall(),
    )


# What they change ----------------------------------------------------------------------------------------------------


def test_unwanted_on_sight_leaves_searches_at_once_and_comes_back(
    client: TestClient, connection: Connection
) -> None:
    """No set has to be learned: an image that somebody calls unwanted is found by nobody, until that is taken back."""
    before = unwanted_state(connection)
    first, *others = nearest(client, "image/00001")
    decision = client.post(f"{API}/unwanted", json={"image": first, "verdict": "unwanted", "by": "eve"})
    assert (decision.status_code, decision.json()["decided_by"]) == (201, "eve")
    assert first not in nearest(client, "image/00001")
    assert nearest(client, "image/00001", include_unwanted=True)[0] == first
    assert [one.image for one in search.similar(connection, "image/00001", 4)] == others
    assert client.get(f"{API}/images/{first}").json()["unwanted"]
    assert first not in [one["key"] for one in client.get(f"{API}/random?limit=200").json()["items"]]
    work = f"/works/{client.get(f'{API}/images/{first}').json()['work']}"
    assert first not in [one["key"] for one in collect(client, work)]
    assert first in [one["key"] for one in collect(client, work, include_unwanted=True)]
    undone = client.delete(f"{API}/decisions/{decision.json()['id']}")
    assert (undone.status_code, undone.json()["undone_by"]) == (200, "local")
    assert nearest(client, "image/00001")[0] == first
    assert unwanted_state(connection) == before


def test_a_candidate_is_decided_upon_in_its_set(client: TestClient, connection: Connection) -> None:
    """Accepted or fine, it leaves the queue; taken back, it is a candidate as before."""
    before = unwanted_state(connection)
    queue = [one["key"] for one in collect(client, "/unwanted", set="charts")]
    decisions = [
        client.post(f"{API}/unwanted", json={"image": key, "verdict": verdict, "set": "charts"}).json()["id"]
        for key, verdict in zip(queue, ("unwanted", "fine"), strict=False)
    ]
    assert [one["key"] for one in collect(client, "/unwanted", set="charts")] == queue[2:]
    assert queue[0] in [one["key"] for one in collect(client, "/unwanted", set="charts", state="accepted")]
    for decision in decisions:
        client.delete(f"{API}/decisions/{decision}")
    assert unwanted_state(connection) == before


def test_what_is_fine_on_sight_is_so_in_every_set(client: TestClient, connection: Connection) -> None:
    """An image that a set called unwanted is found again; a set's only example is not taken from it."""
    key = collect(client, "/unwanted", set="charts")[0]["key"]
    client.post(f"{API}/unwanted", json={"image": key, "verdict": "unwanted", "set": "charts"})
    assert client.get(f"{API}/images/{key}").json()["unwanted"]
    client.post(f"{API}/unwanted", json={"image": key, "verdict": "fine"})
    assert not client.get(f"{API}/images/{key}").json()["unwanted"]
    (example,) = connection.execute("select image from unwanted where example").fetchone() or ("",)
    refused = client.post(f"{API}/unwanted", json={"image": example, "verdict": "fine"})
    assert (refused.status_code, "no example" in refused.json()["detail"]) == (422, True)


@pytest.mark.parametrize("same", [True, False])
def test_a_pair_is_the_same_picture_or_not(client: TestClient, connection: Connection, same: bool) -> None:
    """A pair that is decided leaves the queue; groups follow, and all is as before when it is taken back."""
    before = pairs_state(connection)
    pairs = collect(client, "/duplicates")
    pair = next(one for one in pairs if one["distance"] > 0.025)
    keys = {"first": pair["second"]["key"], "second": pair["first"]["key"]}
    said = client.post(f"{API}/duplicates", json={**keys, "same": same})
    assert said.status_code == 201
    assert pair not in collect(client, "/duplicates")
    groups = sorted(one["size"] for one in collect(client, "/duplicates/groups"))
    assert groups == ([3, 3] if same else [2, 3])
    assert len(collect(client, "/duplicates", decided=True)) == (5 if same else 4)
    other = client.post(f"{API}/duplicates", json={**keys, "same": not same}).json()["id"]
    assert client.delete(f"{API}/decisions/{said.json()['id']}").status_code == 409
    assert client.delete(f"{API}/decisions/{other}").status_code == 200
    assert client.delete(f"{API}/decisions/{said.json()['id']}").status_code == 200
    assert pairs_state(connection) == before


def test_pairs_that_wait_are_found_past_all_that_were_decided(
    client: TestClient, connection: Connection
) -> None:
    """What it costs to read them does not grow with decisions, whoever made these, and in whatever order."""
    connection.execute(
        "delete from duplicate_pairs;"
        "insert into marked_pairs (a, b, same, marked_by) select 1, n, true, 'ann' from generate_series(2, 30) n;"
        "insert into duplicate_pairs (encoder, a, b, distance) select 'tiny', a, b, (60 * a + b) / 10000.0"
        " from generate_series(1, 60) a, generate_series(1, 60) b where a < b;"
        "insert into marked_pairs (a, b, same, marked_by) select a, b, true, 'ann' from duplicate_pairs"
        " where a < 50 on conflict do nothing;"
        "delete from marked_pairs where (a, b) = (7, 8)"
    )
    connection.execute("vacuum analyze duplicate_pairs, marked_pairs, images")
    waiting = [(one["first"]["key"], one["second"]["key"]) for one in collect(client, "/duplicates", limit=7)]
    assert len(waiting) == 1 + 55
    assert waiting[0] == ("image/00005", "image/00006")
    asked = {"encoder": "tiny", "after_distance": -1.0, "after_a": 0, "after_b": 0, "limit": 2}
    connection.execute("set enable_seqscan = off")
    for query, most in (
        (sql.SQL(QUERIES["pairs"]).format(which=sql.SQL("not decided")), 60),
        (sql.SQL(PAGES["waiting_pairs"]), 20),
    ):
        explained = sql.SQL("explain (analyze, buffers, format json) ") + query
        connection.execute(query, {**asked, "most": 10})  # what a session reads once
        ((plan,),) = connection.execute(explained, {**asked, "most": 10}).fetchone() or (({},),)
        assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < most


def test_a_decision_is_taken_back_once(client: TestClient, connection: Connection) -> None:
    """To ask twice changes nothing more, and both times answers who took it back and when; so do two at once."""
    keys = {"first": "image/00000", "second": "image/00001"}
    numbers = [
        client.post(f"{API}/duplicates", json={**keys, "same": one}).json()["id"] for one in (True, False)
    ]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.delete(f"{API}/decisions/{numbers[1]}"), range(4)))
    assert {one.status_code for one in answers} == {200}
    assert len({one.text for one in answers}) == 1
    assert answers[0].json()["undone_by"] == "local"
    holding = connection.execute("select id from decisions where undone_at is null").fetchall()
    assert holding == [(numbers[0],)]


def test_what_is_decided_meanwhile_is_not_undone(
    client: TestClient, connection: Connection, archive_url: str
) -> None:
    """Whoever takes back a decision while somebody else decides about the same hears of that, and changes nothing."""
    key = "image/00001"
    first = client.post(f"{API}/unwanted", json={"image": key, "verdict": "unwanted"}).json()["id"]
    with connect(archive_url, application_name="other") as other, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            deciding.decide_unwanted(other, key, "fine", "bob")
            undone = pool.submit(client.delete, f"{API}/decisions/{first}")
            waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            wait_until(lambda: connection.execute(waiting).fetchone() == (1,), 5)
        assert undone.result().json()["type"] == "urn:lookalike:problem:outdated-decision"
    assert [said[2] for said in unwanted_state(connection) if said[1] == key] == ["fine"]


def test_a_cluster_gets_a_name(client: TestClient) -> None:
    """The name is shown at once, and the old one comes back."""
    said = client.post(f"{API}/clusters/1/name", json={"name": "Faces"}).json()
    assert client.get(f"{API}/clusters/1").json()["name"] == "Faces"
    client.delete(f"{API}/decisions/{said['id']}")
    assert client.get(f"{API}/clusters/1").json()["name"] == "Portraits"
    assert client.post(f"{API}/clusters/99/name", json={"name": "Faces"}).status_code == 404


def test_failures_are_tried_again(client: TestClient) -> None:
    """They are pending again; that cannot be taken back, and nothing is tried again unasked."""
    assert client.post(f"{API}/failures/retry", json={}).status_code == 422
    said = client.post(f"{API}/failures/retry", json={"reasons": ["not_found"]}).json()
    assert said["images"] == 1
    assert collect(client, "/failures") == []
    assert client.delete(f"{API}/decisions/{said['decision']['id']}").status_code == 409
    (decision,) = collect(client, "/decisions")
    assert (decision["kind"], decision["subject"]) == ("retry", ["tiny"])


# Who may make them ---------------------------------------------------------------------------------------------------

UNWANTED = {"image": "image/00001", "verdict": "unwanted"}


def basic(name: str, token: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{token}".encode()).decode()


def test_with_tokens_only_their_owners_decide(archive_url: str) -> None:
    """A token is who decides, whatever the request says; a wrong one, or none, is 401, and asks for one."""
    with opened(archive_url, explorer_tokens=TOKENS) as client:
        for sent in (
            None,
            "Bearer wrong",
            "Bearer ",
            "Bearer",
            "Token a-long-token",
            basic("ann", "wrong"),
            basic("ann", TOKENS["bob"]),
            "Basic x",
        ):
            got = client.post(
                f"{API}/unwanted", json=UNWANTED, headers={"Authorization": sent} if sent else {}
            )
            assert got.status_code == 401, sent
            assert got.headers["www-authenticate"].startswith("Basic")
        for sent, name in ((f"Bearer {TOKENS['ann']}", "ann"), (basic("bob", TOKENS["bob"]), "bob")):
            got = client.post(
                f"{API}/unwanted", json={**UNWANTED, "by": "eve"}, headers={"Authorization": sent}
            )
            assert (got.status_code, got.json()["decided_by"]) == (201, name)
        # Reading needs none.
        assert client.get(f"{API}/images/image/00001").status_code == 200


@pytest.mark.parametrize(
    ("host", "address", "headers"),
    [
        ("localhost", "192.0.2.7", {}),
        # A proxy at this machine speaks for anybody.
        ("localhost", "127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}),
        ("localhost", "127.0.0.1", {"Forwarded": "for=192.0.2.7"}),
        # A name of somebody's, that leads here.
        ("evil.example", "127.0.0.1", {}),
    ],
)
def test_without_tokens_only_this_machine_decides(
    archive_url: str, host: str, address: str, headers: dict
) -> None:
    """Whoever is elsewhere, or may be, reads and changes nothing."""
    with opened(archive_url, host, address) as client:
        got = client.post(f"{API}/unwanted", json=UNWANTED, headers=headers)
        assert (got.status_code, got.json()["type"]) == (403, "urn:lookalike:problem:refused")
        assert client.delete(f"{API}/decisions/1", headers=headers).status_code == 403
        assert client.get(f"{API}/images/image/00001", headers=headers).status_code == 200


@pytest.mark.parametrize(("version", "local"), [("1.1", True), ("1.0", False)])
def test_a_proxy_that_says_nothing_is_not_this_machine(version: str, local: bool) -> None:
    """nginx without a word of configuration asks by HTTP/1.0 and calls us 127.0.0.1."""
    scope = {"type": "http", "http_version": version, "client": ("127.0.0.1", 5000)}
    assert is_local(Request({**scope, "headers": [(b"host", b"127.0.0.1:8080")]})) is local


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"}, 403),
        ({"Origin": "http://localhost"}, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
    ],
)
def test_pages_of_other_websites_decide_nothing(client: TestClient, headers: dict, status: int) -> None:
    """What a browser sends for another website's page is refused, also from this machine."""
    assert client.post(f"{API}/unwanted", json=UNWANTED, headers=headers).status_code == status
