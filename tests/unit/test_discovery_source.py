"""IIIF Change Discovery streams as sources: levels, pages, times, what each activity means, and going on."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lookalike.errors import ForbiddenAddressError, SourceError
from lookalike.images import AwaitedManifest, Checkpoint, Image, Notice, Position, Refused, Removal
from lookalike.settings import Settings
from orchestrator.sources import open_source, read_source
from orchestrator.sources.discovery_stream import Activity, Page, Spool
from tests.sites import Site, serving

SETTINGS = Settings(_env_file=None, tries=2, retry_seconds=0.01, connect_timeout=2, fetch_timeout=20)
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "iiif" / "discovery"

Json = Any


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        yield site


def at(day: int, hour: int = 0) -> str:
    return f"2024-01-{day:02}T{hour:02}:00:00Z"


def as_of(day: int, hour: int = 0) -> str:
    return f"2024-01-{day:02}T{hour:02}:00:00.000000+00:00"


def activity(kind: str, name: str, time: str | None = None, of: str = "Manifest", **more: Json) -> Json:
    """An activity on the manifest or collection of this name."""
    ended = {} if time is None else {"endTime": time}
    return {"type": kind, "object": {"id": f"SITE/{name}", "type": of}, **ended, **more}


def manifest(name: str, *pages: str) -> Json:
    """A manifest with a canvas for each of these pages."""
    canvases = [
        {
            "type": "Canvas",
            "items": [{"items": [{"body": {"id": f"https://h.org/{page}.jpg", "type": "Image"}}]}],
        }
        for page in pages
    ]
    return {"id": f"SITE/{name}", "type": "Manifest", "items": canvases}


def serve_stream(site: Site, *pages: list[Json]) -> str:
    """Lets the site serve a stream of these pages; returns its address."""
    last = len(pages) - 1
    site.pages["/all"] = {
        "@context": "http://iiif.io/api/discovery/1/context.json",
        "id": "SITE/all",
        "type": "OrderedCollection",
        "first": {"id": "SITE/page-0", "type": "OrderedCollectionPage"},
        "last": {"id": f"SITE/page-{last}", "type": "OrderedCollectionPage"},
    }
    for number, activities in enumerate(pages):
        prev = (
            {}
            if number == 0
            else {"prev": {"id": f"SITE/page-{number - 1}", "type": "OrderedCollectionPage"}}
        )
        following = {} if number == last else {"next": {"id": f"SITE/page-{number + 1}"}}
        site.pages[f"/page-{number}"] = {
            "id": f"SITE/page-{number}",
            "type": "OrderedCollectionPage",
            "orderedItems": activities,
            **prev,
            **following,
        }
    return f"{site.url}/all"


def notices(spec: str, position: Position | None = None) -> list[Notice]:
    return list(read_source(spec, SETTINGS, position))


def said(found: Sequence[Notice], site: Site) -> list[tuple[str, ...]]:
    """The notices in short, but for Checkpoints: images by name and time, removals by work and what is kept."""
    short: list[tuple[str, ...]] = []
    for each in found:
        if isinstance(each, Image):
            name = each.url.removeprefix("https://h.org/").removesuffix(".jpg")
            short.append((name, (each.work or "").removeprefix(f"{site.url}/"), each.as_of or ""))
        elif isinstance(each, Removal):
            kept = sorted(key.removeprefix("h.org/").removesuffix(".jpg") for key in each.kept)
            short.append(("-", (each.work or "").removeprefix(f"{site.url}/"), each.as_of or "", *kept))
        elif isinstance(each, Refused):
            short.append((str(each.reason), each.where.removeprefix(f"{site.url}/")))
    return short


def last_position(found: Sequence[Notice]) -> Position:
    """The position of the last Checkpoint, as the database gives it back."""
    (*_, last) = [each for each in found if isinstance(each, Checkpoint)]
    assert last.lasting
    return json.loads(json.dumps(last.position))  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------ what is announced


def test_a_first_harvest(site: Site) -> None:
    """From the oldest to the newest, of each object the last activity: its images as of then, and what is gone."""
    site.pages |= {"/a": manifest("a", "a1", "a2"), "/b": manifest("b", "b1"), "/c": manifest("c", "c1")}
    spec = serve_stream(
        site,
        [activity("Create", "a", at(1)), activity("Create", "b", at(2))],
        [activity("Add", "c", at(3)), activity("Update", "a", at(4))],
        [activity("Delete", "b", at(5)), activity("Update", "canvas", at(6), of="Canvas")],
    )
    found = notices(spec)
    assert said(found, site) == [
        ("c1", "c", as_of(3)),
        ("-", "c", as_of(3), "c1"),
        ("a1", "a", as_of(4)),
        ("a2", "a", as_of(4)),
        ("-", "a", as_of(4), "a1", "a2"),
        ("-", "b", as_of(5)),
    ]
    assert said(notices(spec, last_position(found)), site) == []
    assert [each.url for each in open_source(spec, SETTINGS) if isinstance(each, Image)] == [
        f"https://h.org/{name}.jpg" for name in ("c1", "a1", "a2")
    ]


def test_collections_announce_what_they_hold(site: Site) -> None:
    """The images of a collection are announced under their manifests; what it holds no more is not known to be gone."""
    site.pages |= {
        "/a": manifest("a", "a1"),
        "/col": {"id": "SITE/col", "type": "Collection", "items": [{"id": "SITE/a", "type": "Manifest"}]},
    }
    spec = serve_stream(site, [activity("Update", "col", at(1), of="Collection")])
    assert said(notices(spec), site) == [("a1", "a", as_of(1))]


def test_moved_manifests(site: Site) -> None:
    """A move reads the new place first, then what is left under the old is gone; what was deleted since is not read."""
    site.pages |= {"/new": manifest("new", "a1", "a2")}
    target = {"target": {"id": "SITE/new", "type": "Manifest"}}
    spec = serve_stream(site, [activity("Move", "old", at(1), **target)])
    assert said(notices(spec), site) == [
        ("a1", "new", as_of(1)),
        ("a2", "new", as_of(1)),
        ("-", "old", as_of(1), "a1", "a2"),
    ]
    spec = serve_stream(site, [activity("Move", "old", at(1), **target), activity("Delete", "new", at(2))])
    assert said(notices(spec), site) == [("-", "old", as_of(1)), ("-", "new", as_of(2))]


def test_what_cannot_be_read_removes_nothing(site: Site) -> None:
    """A manifest that is not there, is no manifest, or could not be read in full, is refused and keeps its images."""
    site.pages |= {
        "/torn": {"type": "Collection", "items": [{"id": "SITE/a"}, {"id": "SITE/none"}]},
        "/empty": {"type": "Manifest", "id": "SITE/empty", "items": []},
        "/hollow": {"type": "Collection", "id": "SITE/hollow", "items": []},
        "/html": b"<html>",
        "/a": manifest("a", "a1"),
    }
    target = {"target": {"id": "SITE/none", "type": "Manifest"}}
    spec = serve_stream(
        site,
        [activity("Update", name, at(1)) for name in ("none", "torn", "empty", "hollow", "html")],
        [activity("Move", "old", at(2), **target)],
    )
    assert said(notices(spec), site) == [
        ("not_found", "none"),
        ("not_found", "none"),
        ("a1", "torn", as_of(1)),
        ("no_image", "empty"),
        ("unreadable_manifest", "html"),
        ("not_found", "none"),
    ]


def test_what_cannot_be_read_for_the_moment_is_awaited(site: Site) -> None:
    """The stream goes on behind a manifest whose host fails: it is asked for later, since no one tells of it again."""
    address = serve_stream(site, [activity("Update", "m", at(1)), activity("Update", "n", at(2))])
    site.pages["/m"] = (503, {}, b"busy")
    site.pages["/n"] = manifest("n", "b")
    found = notices(address)
    awaited = [each for each in found if isinstance(each, AwaitedManifest)]
    detail = f"{site.url}/m answered 503 Service Unavailable; try again later"
    assert awaited == [AwaitedManifest(f"{site.url}/m", f"{site.url}/m", None, as_of(1), detail=detail)]
    assert said(found, site) == [("b", "n", as_of(2)), ("-", "n", as_of(2), "b")]
    assert last_position(found)["endTime"] == as_of(2)


def test_other_streams_additions_and_removals(site: Site) -> None:
    """Add and Remove that name another stream than this one are passed over."""
    site.pages |= {"/a": manifest("a", "a1"), "/b": manifest("b", "b1")}
    ours, other = (
        {"id": address, "type": "OrderedCollection"} for address in ("SITE/all", "https://o.org/all")
    )
    spec = serve_stream(
        site,
        [
            activity("Add", "a", at(1), target=ours),
            activity("Add", "b", at(1), target=other),
            activity("Remove", "c", at(2), origin=ours),
            activity("Remove", "a", at(2), origin=other),
        ],
    )
    assert said(notices(spec), site) == [
        ("a1", "a", as_of(1)),
        ("-", "a", as_of(1), "a1"),
        ("-", "c", as_of(2)),
    ]


def test_refresh(site: Site) -> None:
    """A first harvest ends at a Refresh; a later one takes only deletions from before it."""
    site.pages |= {name: manifest(name[1:], name[1:]) for name in ("/a", "/b", "/c")}
    refresh = {"type": "Refresh", "startTime": at(5)}
    before = [activity("Create", "a", at(1)), activity("Create", "b", at(2))]
    first = notices(serve_stream(site, before))
    spec = serve_stream(
        site,
        [*before, activity("Update", "a", at(3)), activity("Delete", "b", at(4))],
        [refresh, activity("Update", "c", at(6))],
    )
    assert said(notices(spec), site) == [("c", "c", as_of(6)), ("-", "c", as_of(6), "c")]
    assert "/page-0" not in site.asked[-3:]
    assert said(notices(spec, last_position(first)), site) == [
        ("-", "b", as_of(4)),
        ("c", "c", as_of(6)),
        ("-", "c", as_of(6), "c"),
    ]


def test_malformed_activities_are_refused_once(site: Site) -> None:
    """What is no activity is refused by its page, the others count, and no later reading refuses it again."""
    site.pages |= {"/a": manifest("a", "a1")}
    future = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    spec = serve_stream(
        site,
        [
            "text",
            {},
            {"type": "Update"},
            {"type": "Update", "object": "urn:x", "endTime": at(1)},
            {"type": "Update", "object": "http://[x", "endTime": at(1)},
            {"type": "Update", "object": "//[x", "endTime": at(1)},
            {"type": "Update", "object": {"id": 3, "type": "Manifest"}, "endTime": at(1)},
            activity("Update", "b", "yesterday"),
            activity("Update", "b", "2024-13-01T00:00:00Z"),
            activity("Update", "b", future),
            activity("Move", "b", at(1)),
            activity("Delete", "../../etc/passwd", at(1), object="file:///etc/passwd"),
            activity("Delete", "a\0b", at(1)),
            activity("Delete", "a" * 3000, at(1)),
            activity("Update", "a", at(1)),
            activity("Like", "a", at(1)),
            {"type": "Announce", "endTime": at(1)},
        ],
    )
    found = notices(spec)
    assert said(found, site) == [
        *[("bad_record", "page-0")] * 4,
        ("unreadable_manifest", "(a malformed address)"),
        *[("bad_record", "page-0")] * 9,
        ("a1", "a", as_of(1)),
        ("-", "a", as_of(1), "a1"),
    ]
    assert said(notices(spec, last_position(found)), site) == []


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2024-01-01T00:00:00Z", as_of(1)),
        ("2024-01-01T02:00:00+02:00", as_of(1)),
        ("2023-12-31T19:00:00-0500", as_of(1)),
        ("2024-01-01T00:00:00", as_of(1)),
        ("2024-01-01", as_of(1)),
        (" 2024-01-01T00:00:00.1234567Z", as_of(1).replace(".000000", ".123456")),
    ],
)
def test_times_of_any_zone(site: Site, time: str, expected: str) -> None:
    """Times are compared in UTC, whatever their zone; without one they are in UTC."""
    site.pages |= {"/a": manifest("a", "a1")}
    assert said(notices(serve_stream(site, [activity("Create", "a", time)])), site)[0] == (
        "a1",
        "a",
        expected,
    )


# ---------------------------------------------------------------------------------------------------------- going on


def test_only_pages_behind_the_position_are_read(site: Site) -> None:
    """A later reading goes back to the page that reaches behind the position, and announces what is new."""
    names = "abcdefgh"
    site.pages |= {f"/{name}": manifest(name, name) for name in names}
    created = [[activity("Create", name, at(day))] for day, name in enumerate(names, 1)]
    found = notices(serve_stream(site, *created[:5]))
    spec = serve_stream(site, *created)
    site.asked.clear()
    later = notices(spec, last_position(found))
    assert [each[0] for each in said(later, site) if each[0] != "-"] == ["f", "g", "h"]
    assert sorted(path for path in site.asked if "page" in path) == [
        "/page-3",
        "/page-4",
        "/page-5",
        "/page-6",
        "/page-7",
    ]


def test_an_interrupted_harvest_goes_on(site: Site) -> None:
    """From the Checkpoint of each page on, what came before it is neither announced nor fetched again."""
    names = "abcdefgh"
    site.pages |= {f"/{name}": manifest(name, name) for name in names}
    times = {name: at(1 + number // 3) for number, name in enumerate(names)}
    spec = serve_stream(
        site,
        *(
            [activity("Create", name, times[name]) for name in names[start : start + 2]]
            for start in (0, 2, 4, 6)
        ),
    )
    everything = notices(spec)
    stops = [number for number, each in enumerate(everything) if isinstance(each, Checkpoint)]
    assert len(stops) == 5
    for stop in stops:
        site.asked.clear()
        found = notices(spec, last_position(everything[: stop + 1]))
        assert said(found, site) == said(everything[stop + 1 :], site)
        done = {f"/{each[0]}" for each in said(everything[:stop], site)}
        assert not done & set(site.asked)


def test_activities_of_one_time(site: Site) -> None:
    """What joins the time of the position is announced, and so is all of that time when what was done has changed."""
    site.pages |= {f"/{name}": manifest(name, name) for name in "abc"}
    both = [activity("Create", "a", at(1)), activity("Create", "b", at(1))]
    found = notices(serve_stream(site, both))
    spec = serve_stream(site, both, [activity("Create", "c", at(1))])
    assert [each[0] for each in said(notices(spec, last_position(found)), site)] == ["c", "-"]
    spec = serve_stream(site, [activity("Create", "c", at(1)), both[1]])
    later = notices(spec, last_position(found))
    assert [each[0] for each in said(later, site)] == ["c", "-", "b", "-"]
    assert said(notices(spec, last_position(later)), site) == []


def test_level_0_is_read_as_a_whole(site: Site) -> None:
    """A list without times is read from its beginning each time; untyped objects are tried."""
    site.pages |= {"/a": manifest("a", "a1"), "/b": manifest("b", "b1")}
    spec = serve_stream(site, [activity("Update", "a")], [{"type": "Update", "object": "SITE/b"}])
    found = notices(spec)
    expected = [("a1", "a", ""), ("-", "a", "", "a1"), ("b1", "b", ""), ("-", "b", "", "b1")]
    assert said(found, site) == expected
    assert said(notices(spec, last_position(found)), site) == expected


def test_a_position_of_another_stream_is_ignored(site: Site) -> None:
    """Positions of other sources, or of no meaning, begin anew."""
    site.pages |= {"/a": manifest("a", "a1")}
    spec = serve_stream(site, [activity("Create", "a", at(1))])
    name = last_position(notices(spec))["discovery"]
    for position in (
        {},
        {"discovery": "x", "endTime": at(9)},
        {"discovery": name, "endTime": 3},
        {"discovery": name},
    ):
        assert said(notices(spec, position), site)[0] == ("a1", "a", as_of(1))


def test_what_else_is_awaited(site: Site) -> None:
    """So is a manifest that has moved, a part of a collection, and one of a stream that knows no times."""
    site.pages |= {
        "/m": (503, {}, b"busy"),
        "/col": {"id": "SITE/col", "type": "Collection", "items": [{"id": "SITE/m", "type": "Manifest"}]},
    }
    target = {"target": {"id": "SITE/m", "type": "Manifest"}}
    moved = waited(notices(serve_stream(site, [activity("Move", "old", at(1), **target)])))
    assert moved == [("m", True, "old", as_of(1))]
    part = waited(notices(serve_stream(site, [activity("Update", "col", at(1), of="Collection")])))
    assert part == [("m", False, None, as_of(1))]
    work = waited(notices(serve_stream(site, [activity("Update", "col", at(1))])))
    assert work == [("col", True, None, as_of(1))]
    timeless = {"type": "Update", "object": {"id": "SITE/m", "type": "Manifest"}}
    assert waited(notices(serve_stream(site, [timeless]))) == [("m", True, None, None)]


def waited(found: Sequence[Notice]) -> list[tuple[object, ...]]:
    """What is awaited: name, whether it is all of its work, where it was, of when."""

    def name(address: str | None) -> str | None:
        return address and address.rpartition("/")[2]

    return [
        (name(each.address), each.whole, name(each.moved_from), each.as_of)
        for each in found
        if isinstance(each, AwaitedManifest)
    ]


# ------------------------------------------------------------------------------------------------------------- shapes


def test_odd_streams(site: Site) -> None:
    """Circles of pages end, ids may be relative, the last page be missing, activities stand in the collection."""
    site.pages |= {"/a": manifest("a", "a1"), "/b": manifest("b", "b1")}
    expected = [
        ("a1", "a", as_of(1)),
        ("-", "a", as_of(1), "a1"),
        ("b1", "b", as_of(2)),
        ("-", "b", as_of(2), "b1"),
    ]
    spec = serve_stream(site, [activity("Create", "a", at(1))], [activity("Create", "b", at(2))])
    site.pages["/page-0"]["prev"] = {"id": "SITE/page-1"}
    assert said(notices(spec), site) == expected
    site.pages["/all"].pop("last")
    assert said(notices(spec), site) == expected
    site.pages["/all"] |= {"last": "page-1"}
    site.pages["/page-1"]["prev"] = "page-0"
    site.pages["/page-0"] = {
        "orderedItems": [{"type": "Create", "object": {"id": "a", "type": "Manifest"}, "endTime": at(1)}]
    }
    assert said(notices(spec), site) == expected
    site.pages["/page-1"]["orderedItems"] = [activity("Create", "b", at(2)), activity("Create", "a", at(1))]
    assert said(notices(spec), site) == expected
    both = [activity("Create", "a", at(1)), activity("Create", "b", at(2))]
    site.pages["/all"] = {"type": "OrderedCollection", "orderedItems": both}
    assert said(notices(spec), site) == expected
    site.pages["/all"] = {"type": "OrderedCollection", "totalItems": 0}
    assert isinstance(notices(spec)[0], Checkpoint)


@pytest.mark.parametrize(
    ("page", "advice"),
    [
        (None, "404 Not Found"),
        ({"type": "x"}, "no page of a stream"),
        ([1], "no page"),
        (b"<html>", "not JSON"),
    ],
)
def test_a_page_that_cannot_be_had_stops_the_stream(site: Site, page: Json, advice: str) -> None:
    """Nothing is announced when a page is missing: the next reading begins where this one did."""
    site.pages |= {"/a": manifest("a", "a1")}
    spec = serve_stream(site, [activity("Create", "a", at(1))], [activity("Create", "a", at(2))])
    site.pages["/page-0"] = (404, {}, b"") if page is None else [page]
    found: list[Notice] = []
    with pytest.raises(SourceError, match=advice):
        found.extend(read_source(spec, SETTINGS))
    assert found == []
    site.pages["/all"] = {"type": "OrderedCollection"}
    with pytest.raises(SourceError, match="names no page"):
        notices(spec)
    for address in ("file:///etc/passwd", "//[x"):
        site.pages["/all"] = {"type": "OrderedCollection", "last": address}
        with pytest.raises(SourceError, match="have http"):
            notices(spec)


def test_a_page_whose_host_fails_for_the_moment(site: Site) -> None:
    """It is asked for longer than a manifest; then the stream breaks off, announces nothing, and goes on later."""
    site.pages |= {"/a": manifest("a", "a1"), "/b": manifest("b", "b1")}
    spec = serve_stream(site, [activity("Create", "a", at(1))], [activity("Create", "b", at(2))])
    there, site.pages["/page-0"] = site.pages["/page-0"], (503, {}, b"")
    found: list[Notice] = []
    with pytest.raises(SourceError, match="page-0 answered 503"):
        found.extend(read_source(spec, SETTINGS))
    assert found == []
    assert site.asked.count("/page-0") > 2 * SETTINGS.tries
    site.pages["/page-0"] = [(429, {"Retry-After": "0"}, b"")] * (2 * SETTINGS.tries) + [there]
    assert [each[0] for each in said(notices(spec), site) if each[0] != "-"] == ["a1", "b1"]


def test_a_stream_in_a_file(site: Site, tmp_path: Path) -> None:
    """The head of a stream that was saved as a file is followed to its pages, in a private network only if allowed."""
    site.pages |= {"/a": manifest("a", "a1")}
    serve_stream(site, [activity("Create", "a", at(1))])
    path = tmp_path / "stream.json"
    path.write_text(json.dumps(site.pages["/all"]).replace("SITE", site.url))
    with pytest.raises(ForbiddenAddressError, match="LOOKALIKE_ALLOW_NETWORKS"):
        notices(str(path))
    allowed = SETTINGS.model_copy(update={"allow_networks": "127.0.0.0/8"})
    found = list(read_source(str(path), allowed))
    assert said(found, site)[0] == ("a1", "a", as_of(1))


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data")
@pytest.mark.parametrize("version", ["0.9", "1.0"])
def test_the_examples_of_the_specification(site: Site, version: str) -> None:
    """The documents of the specification, put together to a stream, are read as it says."""

    def example(number: int) -> Json:
        (path,) = SHARED.glob(f"spec-{version}-{number:02}-*.json")
        return json.loads(path.read_text().replace("https://example.org", "SITE"))

    head, first, last = example(16), example(24), example(6)
    assert (head["type"], first["type"], last["type"]) == (
        "OrderedCollection",
        *["OrderedCollectionPage"] * 2,
    )
    site.pages |= {
        f"/iiif/{number}/manifest": manifest(f"iiif/{number}/manifest", str(number)) for number in (1, 2, 9)
    }
    head["last"]["id"] = last["id"] = "SITE/activity/page-9"
    last["prev"]["id"] = first["id"] = "SITE/activity/page-8"
    first["prev"]["id"] = "SITE/activity/page-7"
    aggregated = "SITE/activity/aggregated-changes"
    oldest = {
        "type": "OrderedCollectionPage",
        "orderedItems": [example(1), example(2), example(33), example(4)],
    }
    assert aggregated in json.dumps(oldest)
    site.pages |= {
        "/activity/all-changes": head,
        "/activity/page-7": oldest,
        "/activity/page-8": first,
        "/activity/page-9": last,
    }
    found = notices(f"{site.url}/activity/all-changes")
    assert [(each[0], each[2][:16]) for each in said(found, site) if each[0] != "-"] == [
        ("1", "2018-03-10T10:00"),
        ("9", "2018-03-10T10:00"),
        ("2", "2018-03-11T16:30"),
    ]
    site.pages["/level0"] = {"type": "OrderedCollection", "orderedItems": [example(0)]}
    assert said(notices(f"{site.url}/level0"), site)[0] == ("1", "iiif/1/manifest", "")


def test_long_streams_go_to_disk() -> None:
    """More activities than fit the buffer come back as they were put, the last page first."""
    spool = Spool()
    pages = [Page(f"p{number}", [Activity("update", "x" * 1000, "manifest")] * 1000) for number in range(30)]
    for page in pages:
        spool.put(page)
    assert list(spool.pages()) == pages[::-1]
    spool.close()
