"""Addresses that outsiders give, on real servers: no name, form, redirect, document or proxy leads into the network."""

import gzip
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pycurl
import pytest

from lookalike import awaited, deletion, ledger
from lookalike.archive import add_encoder
from lookalike.database import Connection
from lookalike.errors import ForbiddenAddressError, ImageError
from lookalike.images import Checkpoint, Image, Position, Refused, Removal
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.events.manifests import read_due
from orchestrator.sources import open_source, read_source
from orchestrator.sources.web import Web, fingerprint
from tests.factories import TINY
from tests.pictures import jpeg, photographs
from tests.servers import Misbehaving, http_server, misbehaving_server
from workers.fetch import Fetcher
from workers.picture import embed_picture, embed_upload

SETTINGS = Settings(
    _env_file=None, connect_timeout=2, fetch_timeout=2, tries=1, retry_seconds=0.01, max_bytes=10**6
)
OPEN = SETTINGS.model_copy(update={"allow_networks": "127.0.0.0/8,::1"})
PICTURE = b"a picture" * 100


@contextmanager
def fetching(settings: Settings) -> Iterator[Fetcher]:
    fetcher = Fetcher(settings)
    try:
        yield fetcher
    finally:
        fetcher.close()


def reason_of(fetch: Callable[[], object]) -> Reason | None:
    try:
        fetch()
    except ImageError as error:
        return error.reason
    return None


FORMS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0.0.0.0",
    "localhost",
    "localhost.",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::1]",
    "[::ffff:7f00:1]",
]


@pytest.mark.parametrize("host", FORMS)
def test_no_form_of_an_address_leads_to_this_machine(host: str) -> None:
    """Decimal, octal, mapped, dotted or by name: an outsider's image is not fetched, nor is anything connected to."""
    with misbehaving_server() as site, fetching(SETTINGS) as fetcher:
        site.pages["/a"] = (200, {}, PICTURE)
        url = site.url.replace("127.0.0.1", host) + "/a"
        found = reason_of(lambda: fetcher.fetch(url, "file", 1, outside=True))
        web = Web(SETTINGS)
        with pytest.raises(ForbiddenAddressError if "%" not in host else Exception):
            web.json(url)
        web.close()

    assert found in (Reason.FORBIDDEN_ADDRESS, Reason.BAD_ADDRESS)
    assert site.connections == 0


@pytest.mark.parametrize("protocol", ["file", "iiif"])
def test_the_operator_and_the_setting_open_what_is_closed_to_outsiders(protocol: str) -> None:
    """The same address, given by the operator or in an allowed network, is fetched."""
    info = json.dumps({"width": 100, "height": 100, "profile": "level0"}).encode()
    with misbehaving_server() as site, fetching(SETTINGS) as fetcher, fetching(OPEN) as allowed:
        for path, body in (("/a", PICTURE), ("/a/info.json", info), ("/a/full/full/0/default.jpg", PICTURE)):
            site.pages[path] = (200, {}, body)
        site.pages["/a/full/full/0/native.jpg"] = (200, {}, PICTURE)
        url = f"{site.url}/a"
        assert fetcher.fetch(url, protocol, 1).data == PICTURE
        assert reason_of(lambda: fetcher.fetch(url, protocol, 1, outside=True)) is Reason.FORBIDDEN_ADDRESS
        assert allowed.fetch(url, protocol, 1, outside=True).data == PICTURE


def test_a_connection_of_the_operators_is_not_reused_for_outsiders() -> None:
    """One that is kept open for the operator's own address is no way round the guard."""
    with misbehaving_server() as site, fetching(SETTINGS) as fetcher:
        site.pages["/a"] = (200, {}, PICTURE)
        for _ in range(2):
            assert fetcher.fetch(f"{site.url}/a", "file", 1).data == PICTURE
        assert site.connections == 1
        found = reason_of(lambda: fetcher.fetch(f"{site.url}/a", "file", 1, outside=True))

    assert found is Reason.FORBIDDEN_ADDRESS
    assert len(site.asked) == 2


def test_a_redirect_does_not_lead_the_operators_address_elsewhere() -> None:
    """A host in a private network may redirect to itself, not to another one; allowed networks are allowed here too."""
    with misbehaving_server() as site, misbehaving_server() as other:
        other.pages["/b"] = site.pages["/b"] = (200, {}, PICTURE)
        site.pages["/near"] = (302, {"Location": "/b"}, b"")
        site.pages["/far"] = (302, {"Location": f"{other.url}/b"}, b"")
        site.pages["/metadata"] = (307, {"Location": "http://169.254.169.254/latest/meta-data/"}, b"")
        site.pages["/zero"] = (301, {"Location": f"http://0.0.0.0:{site.port}/b"}, b"")
        with fetching(SETTINGS) as fetcher, fetching(OPEN) as allowed:
            assert fetcher.fetch(f"{site.url}/near", "file", 1).data == PICTURE
            for path in ("/far", "/metadata", "/zero"):
                url = f"{site.url}{path}"
                assert reason_of(lambda url=url: fetcher.fetch(url, "file", 1)) is Reason.FORBIDDEN_ADDRESS
            assert not other.asked
            assert allowed.fetch(f"{site.url}/far", "file", 1, outside=True).data == PICTURE
            metadata = reason_of(lambda: allowed.fetch(f"{site.url}/metadata", "file", 1, outside=True))
            assert metadata is Reason.FORBIDDEN_ADDRESS


def test_names_that_change_their_mind_are_judged_by_where_they_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: what a name led to when it was looked at counts for nothing; the connection's own address does."""
    answers = iter(["93.184.215.14", "127.0.0.1", "127.0.0.1", "127.0.0.1"])
    looked_up = []

    def rebinding(host: str, port: int, *rest: object) -> list[tuple[object, ...]]:
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    # Only a name server of its own could lie, so the resolver of this process does.
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert socket.getaddrinfo("rebinding.example.org", 80)[0][4][0] == "93.184.215.14"  # a check beforehand
    web = Web(SETTINGS)
    with pytest.raises(ForbiddenAddressError, match=r"127\.0\.0\.1 is not a public address"):
        web.json("http://rebinding.example.org/manifest")
    assert looked_up == ["rebinding.example.org"] * 2


def test_the_worker_judges_the_address_of_the_connection(tmp_path: Path) -> None:
    """DNS rebinding in libcurl: a name is closed by the address that the connection would go to."""
    with misbehaving_server() as site, fetching(SETTINGS) as fetcher:
        site.pages["/a"] = (200, {}, PICTURE)
        with fetcher._http._handles.take(True) as handle:
            handle.curl.setopt(pycurl.RESOLVE, [f"rebinding.example.org:{site.port}:127.0.0.1"])
        url = f"http://rebinding.example.org:{site.port}/a"
        found = reason_of(lambda: fetcher.fetch(url, "file", 1, outside=True))

    assert found is Reason.FORBIDDEN_ADDRESS
    assert site.connections == 0


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "HTTPS_PROXY"])
def test_no_proxy_carries_outsiders_into_the_network(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Proxies of the environment, which would connect in our place, are not asked for addresses from outside."""
    with misbehaving_server() as proxy, fetching(OPEN) as fetcher:
        proxy.pages["http://127.0.0.1:9/a"] = (200, {}, PICTURE)
        monkeypatch.setenv(variable, proxy.url)
        found = reason_of(lambda: fetcher.fetch("http://127.0.0.1:9/a", "file", 1, outside=True))
        web = Web(OPEN)
        with pytest.raises(Exception, match="refused"):
            web.json("http://127.0.0.1:9/a")
        web.close()

    assert found is Reason.UNREACHABLE
    assert not proxy.asked


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "FILE:///etc/passwd"])
def test_outsiders_name_no_files(url: str) -> None:
    """The worker refuses them once more, should a source let one pass."""
    with fetching(OPEN) as fetcher:
        assert reason_of(lambda: fetcher.fetch(url, "file", 1, outside=True)) is Reason.FORBIDDEN_ADDRESS


# ------------------------------------------------------------------------------------------------------- documents


def manifest(address: str, *images: str) -> bytes:
    canvases = [
        {"type": "Canvas", "items": [{"type": "AnnotationPage", "items": [
            {"type": "Annotation", "motivation": "painting", "body": {"id": url, "type": "Image"}}]}]}
        for url in images
    ]  # fmt: skip
    return json.dumps({"id": address, "type": "Manifest", "items": canvases}).encode()


def test_a_manifest_speaks_for_its_own_host_alone() -> None:
    """Images on the host and port of the document that the operator named are his own; all others come from outside."""
    files: dict[str, bytes] = {}
    with http_server(files) as web:
        urls = [
            f"{web}/1.jpg",
            "http://127.0.0.1:1/2.jpg",
            "http://10.0.0.1/3.jpg",
            "https://example.org/4.jpg",
        ]
        files["/manifest"] = manifest(f"{web}/manifest", *urls)
        found = list(open_source(f"{web}/manifest", SETTINGS))

    assert [(each.url, each.outside) for each in found if isinstance(each, Image)] == [
        (url, url != urls[0]) for url in urls
    ]


def test_a_collection_leads_nowhere_else() -> None:
    """Members and pages on another port, by redirect too, are refused with their reason; those of its host are read."""
    files: dict[str, bytes] = {}
    with http_server(files) as web, misbehaving_server() as other:
        other.pages["/m"] = (200, {}, manifest(f"{other.url}/m", "https://example.org/other.jpg"))
        files["/m"] = manifest(f"{web}/m", f"{web}/1.jpg")
        members = [f"{web}/m", f"{other.url}/m", "http://169.254.169.254/latest", "file:///etc/passwd"]
        files["/c"] = json.dumps(
            {"type": "Collection", "items": [{"id": each, "type": "Manifest"} for each in members]}
        ).encode()
        found = list(open_source(f"{web}/c", SETTINGS))

    assert [each.url for each in found if isinstance(each, Image)] == [f"{web}/1.jpg"]
    refused = [(each.where, each.reason) for each in found if isinstance(each, Refused)]
    assert refused == [
        (members[1], Reason.FORBIDDEN_ADDRESS), (members[2], Reason.FORBIDDEN_ADDRESS),
        (members[3], Reason.UNREADABLE_MANIFEST),
    ]  # fmt: skip
    assert not other.asked


def test_tables_of_this_machine_are_the_operators_and_tables_of_the_web_are_not(tmp_path: Path) -> None:
    """The same table, as a file and at an address: only the file's addresses are the operator's own."""
    text = "url\nhttp://127.0.0.1:1/a.jpg\nb.jpg\n"
    (tmp_path / "t.csv").write_text(text)
    with http_server({"/t.csv": text.encode()}) as web:
        ours = list(open_source(str(tmp_path / "t.csv"), SETTINGS))
        theirs = list(open_source(f"{web}/t.csv", SETTINGS))

    assert [each.outside for each in ours if isinstance(each, Image)] == [False, False]
    # The relative one lies on the table's own host.
    assert [(each.url, each.outside) for each in theirs if isinstance(each, Image)] == [
        ("http://127.0.0.1:1/a.jpg", True), (f"{web}/b.jpg", False),
    ]  # fmt: skip


CATALOGUE = "/catalogue/v2/images"


def serve_list(site: Misbehaving, *places: str) -> str:
    """The address of a list of the Catalogue API, with one image at each of these addresses."""
    records = [
        {"type": "Image", "id": str(number), "source": {"id": "w"}, "locations": [
            {"type": "DigitalLocation", "url": url, "locationType": {"id": "iiif-image"}}]}
        for number, url in enumerate(places)
    ]  # fmt: skip
    page = {"type": "ResultList", "results": records, "totalResults": len(records)}
    site.pages[f"{CATALOGUE}?pageSize=100"] = (200, {}, json.dumps(page).encode())
    site.pages["/images.json.gz"] = (
        200,
        {},
        gzip.compress(b"\n".join(json.dumps(r).encode() for r in records)),
    )
    return f"{site.url}{CATALOGUE}"


def outside_of(spec: str, settings: Settings, position: Position | None = None) -> dict[str, bool]:
    found = read_source(spec, settings, position)
    return {each.url: each.outside for each in found if isinstance(each, Image)}


def test_a_catalogue_and_its_snapshot_speak_for_their_own_host_alone(tmp_path: Path) -> None:
    """As a manifest does; also when a read goes on where it was stopped, without asking for the given address again."""
    settings = SETTINGS.model_copy(update={"home": tmp_path})
    with misbehaving_server() as site:
        places = [f"{site.url}/image/1", "http://127.0.0.1:1/image/2", "https://example.org/image/3"]
        expected = {url: url != places[0] for url in places}
        catalogue = serve_list(site, *places)
        assert outside_of(catalogue, settings) == expected
        page = f"{catalogue}?page=2"
        site.pages[f"{CATALOGUE}?page=2"] = site.pages[f"{CATALOGUE}?pageSize=100"]
        assert (
            outside_of(catalogue, settings, {"catalogue": fingerprint(catalogue), "page": page}) == expected
        )
        assert outside_of(f"{site.url}/images.json.gz", settings) == expected


def test_a_download_that_is_complete_is_read_on_as_it_began(tmp_path: Path) -> None:
    """A table on the operator's own host, stopped while it was read, vouches for that host from disk as well."""
    settings = SETTINGS.model_copy(update={"home": tmp_path})
    with misbehaving_server() as site:
        text = b"url\n" + b"".join(b"%d.jpg\n" % number for number in range(600))
        site.pages["/t.csv"] = (200, {"ETag": '"1"'}, text)
        notices, position = read_source(f"{site.url}/t.csv", settings), None
        while position is None:
            notice = next(notices)
            position = notice.position if isinstance(notice, Checkpoint) else None
        with pytest.raises(KeyboardInterrupt):
            notices.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
        found = outside_of(f"{site.url}/t.csv", settings, position)

    assert site.asked == ["/t.csv"]
    assert len(found) == 600 - 256
    assert not any(found.values())


def test_a_stream_of_changes_leads_nowhere_else() -> None:
    """Manifests on its own host are read, those elsewhere in the network refused, and nothing counts as gone there."""
    with misbehaving_server() as site, misbehaving_server() as other:
        other.pages["/m"] = (200, {}, manifest(f"{other.url}/m", "https://example.org/other.jpg"))
        site.pages["/m"] = (
            200,
            {},
            manifest(f"{site.url}/m", f"{site.url}/1.jpg", "http://127.0.0.1:1/2.jpg"),
        )
        activities = [
            {"type": "Update", "endTime": f"2026-01-0{day}T00:00:00Z",
             "object": {"id": f"{each}/m", "type": "Manifest"}}
            for day, each in enumerate((site.url, other.url), 1)
        ]  # fmt: skip
        stream = {"type": "OrderedCollection", "last": {"id": f"{site.url}/page"}}
        page = {"type": "OrderedCollectionPage", "orderedItems": activities}
        site.pages["/all"] = (200, {}, json.dumps(stream).encode())
        site.pages["/page"] = (200, {}, json.dumps(page).encode())
        found = list(read_source(f"{site.url}/all", SETTINGS))

    assert [(each.url, each.outside) for each in found if isinstance(each, Image)] == [
        (f"{site.url}/1.jpg", False), ("http://127.0.0.1:1/2.jpg", True),
    ]  # fmt: skip
    refused = [(each.where, each.reason) for each in found if isinstance(each, Refused)]
    assert refused == [(f"{other.url}/m", Reason.FORBIDDEN_ADDRESS)]
    assert [each.work for each in found if isinstance(each, Removal)] == [f"{site.url}/m"]
    assert not other.asked


def test_an_awaited_manifest_speaks_for_its_own_host_alone(connection: Connection) -> None:
    """Its address is the operator's, by a setting; a part of it that lies elsewhere in the network is not read."""
    with misbehaving_server() as site, misbehaving_server() as other:
        other.pages["/m"] = (200, {}, manifest(f"{other.url}/m", "https://example.org/other.jpg"))
        members = [{"id": f"{each}/m", "type": "Manifest"} for each in (site.url, other.url)]
        site.pages["/b1"] = (
            200,
            {},
            json.dumps({"id": f"{site.url}/b1", "type": "Collection", "items": members}).encode(),
        )
        site.pages["/m"] = (
            200,
            {},
            manifest(f"{site.url}/m", f"{site.url}/1.jpg", "http://127.0.0.1:1/2.jpg"),
        )
        promised = awaited.AwaitedManifest(f"{site.url}/b1", "b1", "v1", "2026-03-01T12:00:00+00:00")
        awaited.await_manifests(connection, [promised])
        settings = SETTINGS.model_copy(update={"manifest_hours": 0})
        assert read_due(settings, connection) == 0
        (missing,) = awaited.list_missing(connection)

    rows = connection.execute("select url, outside from images order by url").fetchall()
    assert rows == [("http://127.0.0.1:1/2.jpg", True), (f"{site.url}/1.jpg", False)]
    assert missing.reason == Reason.FORBIDDEN_ADDRESS
    assert not other.asked


# ---------------------------------------------------------------------------------------------------------- ledger


def started(connection: Connection) -> list[tuple[str, bool]]:
    (claim,) = ledger.lease(connection, TINY.name, "backfill", 10, 60)
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    return [(image.key, image.outside) for image in chunk.images]


def test_the_worker_is_told_where_an_address_came_from(connection: Connection) -> None:
    """It is kept with the image, handed out with its chunk, and survives a deletion."""
    add_encoder(connection, TINY, 8)
    ledger.register(connection, [Image("a", "http://x/a", outside=True), Image("b", "http://x/b")])
    assert started(connection) == [("a", True), ("b", False)]
    deletion.remove(connection, Removal("a"), by_hand=True)
    deletion.restore(connection, ["a"], 8)
    assert started(connection) == [("a", True)]


@pytest.mark.parametrize(
    ("announcements", "outside"),
    [
        ([("http://x/a", True), ("http://x/a", False)], False),  # the operator vouches for it
        ([("http://x/a", False), ("http://x/a", True)], False),  # and his word stands
        ([("http://x/a", False), ("http://x/b", True)], True),  # but for this address alone
        ([("http://x/a", True), ("http://x/b", True)], True),
    ],
)
def test_an_address_stays_the_operators_own(
    connection: Connection, announcements: list[tuple[str, bool]], outside: bool
) -> None:
    """Whoever repeats it from outside; a new address from outside is not covered by the old one."""
    for url, said in announcements:
        ledger.register(connection, [Image("a", url, outside=said)])
    assert connection.execute("select outside from images").fetchone() == (outside,)


# ---------------------------------------------------------------------------------------------------------- limits


LIMITED: dict[str, tuple[Callable[[Misbehaving], None], set[Reason]]] = {
    "never ends": (Misbehaving.pour_for_ever, {Reason.TOO_LARGE, Reason.TIMEOUT}),
    "drips": (Misbehaving.drip, {Reason.TIMEOUT}),
    "drips its headers": (Misbehaving.drip_headers, {Reason.TIMEOUT}),
    "promises more": (Misbehaving.promise_more, {Reason.INCOMPLETE}),
    "promises too much": (Misbehaving.promise_too_much, {Reason.TOO_LARGE}),
    "redirects for ever": (Misbehaving.redirect_for_ever, {Reason.REJECTED}),
}


@pytest.mark.parametrize("misdeed", LIMITED)
def test_streams_are_limited_in_size_and_time(misdeed: str) -> None:
    """Whatever the server sends, and says of it, the worker holds no more than its limit and waits no longer."""
    misbehave, reasons = LIMITED[misdeed]
    held = 0

    def reserve(size: int) -> None:
        nonlocal held
        held += size

    with misbehaving_server() as site, fetching(SETTINGS) as fetcher:
        site.misdeed = misbehave
        found = reason_of(lambda: fetcher.fetch(f"{site.url}/x", "file", 1, reserve))

    assert found in reasons
    assert held <= 1.5 * SETTINGS.max_bytes


def test_packed_answers_are_not_unpacked_by_the_worker() -> None:
    """It accepts no encoding, so that a small answer cannot become a large one."""
    with misbehaving_server() as site, fetching(SETTINGS) as fetcher:
        site.misdeed = Misbehaving.answer_packed
        data = fetcher.fetch(f"{site.url}/x", "file", 1).data

    assert data.startswith(b"\x1f\x8b")
    assert "accept-encoding" not in site.headers


def test_documents_are_limited_in_size_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed manifest of some kilobytes that would unpack to gigabytes is given up at the limit."""
    monkeypatch.setattr("orchestrator.sources.web.MAX_DOCUMENT", 2**20)
    with misbehaving_server() as site:
        site.misdeed = Misbehaving.answer_packed
        web = Web(SETTINGS, given=f"{site.url}/x")
        with pytest.raises(Exception, match="larger than 1 MiB"):
            web.json(f"{site.url}/x")
        web.close()


def test_uploads_are_limited_as_they_are_read() -> None:
    """No more than the limit is read of what somebody sends; within it, the picture gets a vector."""
    sent = io.BytesIO(jpeg(photographs()[0]))
    size = len(sent.getvalue())
    settings = SETTINGS.model_copy(update={"batch_size": 4})
    with pytest.raises(ImageError, match="too_large"):
        embed_upload(sent, "efficientnet-lite0", settings, limit=size - 1)
    assert sent.tell() == size
    sent.seek(0)
    vector = embed_upload(sent, "efficientnet-lite0", settings, limit=size)
    assert abs(float((vector**2).sum()) - 1) < 1e-3


def test_search_by_url_passes_the_guard_for_outsiders() -> None:
    """The operator's own command may fetch from this machine, what is passed on for others may not, nor name a file."""
    with http_server({"/a.jpg": jpeg(photographs()[0])}) as web:
        for address in (f"{web}/a.jpg", "/etc/hostname"):
            with pytest.raises(ImageError, match="forbidden_address"):
                embed_picture(address, "efficientnet-lite0", SETTINGS, outside=True)


def test_waiting_for_room_is_not_the_hosts_fault() -> None:
    """A download that waits longer than its time limit, because decoders are busy, is neither late nor slow."""
    body = bytes(range(256)) * 4096
    waits = iter([1.5, 1.5, 1.5])
    with misbehaving_server() as site, fetching(OPEN.model_copy(update={"max_bytes": 2**21})) as fetcher:
        site.pages["/a"] = (200, {}, body)
        found = fetcher.fetch(f"{site.url}/a", "file", 1, lambda _: time.sleep(next(waits, 0)))

    assert found.data == body
