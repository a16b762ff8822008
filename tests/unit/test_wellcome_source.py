"""Wellcome's Catalogue API as a source: its records, its pages, its filters, and who may see what."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jsonschema
import pytest
import yaml

from lookalike.errors import SourceError
from lookalike.images import AwaitedManifest, Image
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import open_source, read_source, source_name
from orchestrator.sources.catalogue_filters import filters_of
from tests.catalogue_records import (
    Json,
    catalogue_settings,
    checkpoints,
    image,
    keys,
    location,
    manifest,
    refusals,
    serve_list,
    snapshot,
    work,
)
from tests.sites import Site, serving

SCHEMA = (
    Path(__file__).resolve().parents[2].parent / "shared" / "data" / "wellcome" / "catalogue.openapi.yaml"
)
SERVICES = "https://iiif.wellcomecollection.org"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        yield site


@pytest.fixture
def settings(site: Site, tmp_path: Path) -> Settings:
    """Settings whose snapshots lie on the site of the test, and whose downloads in its folder."""
    return catalogue_settings(site, tmp_path / "home")


# ------------------------------------------------------------------------------------------------------ records


@pytest.mark.skipif(not SCHEMA.exists(), reason="no shared data")
def test_records_of_these_tests_have_the_shape_of_the_api(site: Site) -> None:
    """What these tests call records and pages is valid against the API's own schema."""
    schema = yaml.safe_load(SCHEMA.read_text())
    serve_list(
        site,
        "/catalogue/v2/images",
        [image("a"), image("b", location("b"), location("m", "iiif-presentation"))],
    )
    serve_list(
        site, "/catalogue/v2/works", [work("a", location("a", status=None)), work("b", workType={"id": "a"})]
    )
    for path, page in site.pages.items():
        kind = "ImageResultList" if "images" in path else "WorkResultList"
        jsonschema.validate(page, {"$ref": f"#/components/schemas/{kind}", **schema})


def test_an_image_in_full(settings: Settings, site: Site) -> None:
    """Key, address, work, title, licence and access of an image that the API lists."""
    serve_list(site, "/catalogue/v2/images", [image("L0000001")])
    host = site.url.removeprefix("http://")
    assert list(open_source(f"{site.url}/catalogue/v2/images", settings)) == [
        Image(
            f"{host}/image/L0000001",
            f"{site.url}/image/L0000001",
            "iiif",
            work="wL0000001",
            title="Title L0000001",
            licence="pdm",
            access="open",
        )
    ]


def test_keys_are_wellcomes_own(tmp_path: Path) -> None:
    """Miro and METS images of Wellcome's services have their identifiers as keys, by service as by thumbnail."""
    records = [
        {
            "type": "Image",
            "source": {},
            "locations": [location("x", url=f"{SERVICES}/image/L0000001/info.json")],
        },
        {
            "type": "Image",
            "source": {},
            "thumbnail": location("x", url=f"{SERVICES}/thumbs/b1_0001.jp2/info.json"),
        },
    ]
    path = tmp_path / "images.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    found = [each for each in open_source(str(path), Settings()) if isinstance(each, Image)]
    assert [each.key for each in found] == ["L0000001", "b1_0001.jp2"]


def test_only_open_images_are_announced(settings: Settings, site: Site) -> None:
    """Other access than open is refused by its status, on the location that is used; none given is open."""
    closed, thumb = location("x", status="closed"), location("t")
    two = {"status": {"id": "open"}}, {"status": {"id": "safeguarded"}}
    records = [
        image("a", location("a", status=None)),
        image("b", location("b", status="open-with-advisory")),
        image("c", closed, thumbnail=thumb),
        image("d", closed, location("d")),
        image("e", location("e"), location("m", "iiif-presentation", "restricted")),
        image("f", location("f", accessConditions=[*two])),
        image("g", location("g", accessConditions=[{"method": {"id": "view-online"}}])),
        image("h", location("none", "online-resource"), thumbnail=thumb),
        image("i", location("none", "online-resource")),
    ]
    serve_list(site, "/catalogue/v2/images", records)
    found = list(open_source(f"{site.url}/catalogue/v2/images", settings))
    assert keys(found) == ["a", "d", "e", "g", "t"]
    assert refusals(found) == [
        ("image b", Reason.NOT_OPEN, "open-with-advisory"),
        ("image c", Reason.NOT_OPEN, "closed"),
        ("image f", Reason.NOT_OPEN, "safeguarded"),
        ("image i", Reason.NO_IMAGE, "nothing"),
    ]


def test_every_page_of_every_book(settings: Settings, site: Site) -> None:
    """Manifests of works, and collections of volumes, are followed in version 3, each once; titles are the work's."""
    volumes = [{"id": f"SITE/presentation/v3/v{number}", "type": "Manifest"} for number in (1, 2)]
    site.pages = {
        "/presentation/v3/b1": manifest("b1", 2, rights="http://l.org/1", label="not this"),
        "/presentation/v3/b2": {"id": "SITE/presentation/v3/b2", "type": "Collection", "items": volumes},
        "/presentation/v3/v1": manifest("v1", 1),
        "/presentation/v3/v2": manifest("v2", 2),
        "/presentation/v3/html": b"<html>",
    }
    records = [
        work("one", location("b1", "iiif-presentation")),
        work("set", location("m1"), location("b2", "iiif-presentation", license={"id": "cc-by"})),
        work("twin", location("b1", "iiif-presentation")),
        work("paper", {"type": "PhysicalLocation", "locationType": {"id": "closed-stores"}}),
        work("bare"),
        work("shut", location("b9", "iiif-presentation", "permission-required"), location("m2")),
        work("gone", location("none", "iiif-presentation"), location("html", "iiif-presentation")),
        {"id": "old", "type": "Redirected"},
        {"id": "dead", "type": "Deleted"},
    ]
    serve_list(site, "/catalogue/v2/works", records)
    found = list(open_source(f"{site.url}/catalogue/v2/works", settings))
    images = [each for each in found if isinstance(each, Image)]
    assert [(each.url.rpartition("/")[2], each.work, each.title, each.licence) for each in images] == [
        ("b1_1.jp2", "one", "Title one – 1", "http://l.org/1"),
        ("b1_2.jp2", "one", "Title one – 2", "http://l.org/1"),
        ("m1", "set", "Title set", "pdm"),
        ("v1_1.jp2", "set", "Title set – 1", "cc-by"),
        ("v2_1.jp2", "set", "Title set – 1", "cc-by"),
        ("v2_2.jp2", "set", "Title set – 2", "cc-by"),
        ("m2", "shut", "Title shut", "pdm"),
    ]  # fmt: skip
    assert [each[:2] for each in refusals(found)] == [
        ("work shut", Reason.NOT_OPEN),
        (f"{site.url}/presentation/v3/none", Reason.NOT_FOUND),
        (f"{site.url}/presentation/v3/html", Reason.UNREADABLE_MANIFEST),
    ]
    assert site.asked.count("/presentation/v3/b1") == 1


def test_a_page_of_results_whose_host_fails_for_the_moment(settings: Settings, site: Site) -> None:
    """It is asked for longer than a manifest; then the query breaks off, and goes on behind what was read."""
    serve_list(site, "/catalogue/v2/images", [image(f"i{number}") for number in range(4)], size=2)
    spec = f"{site.url}/catalogue/v2/images?pageSize=2"
    second = "/catalogue/v2/images?pageSize=2&page=2"
    assert second in site.pages
    there, site.pages[second] = site.pages[second], (503, {}, b"")
    rest = read_source(spec, settings)
    found = [next(rest) for _ in range(4)]  # two images and their positions
    with pytest.raises(SourceError, match="answered 503"):
        next(rest)
    assert keys(found) == ["i0", "i1"]
    assert site.asked.count(second) > 2 * settings.tries
    site.pages[second] = there
    assert keys(list(read_source(spec, settings, checkpoints(found)[-1]))) == ["i2", "i3"]


@pytest.mark.parametrize("how", ["api", "snapshot"])
def test_manifests_whose_host_fails_for_the_moment_are_awaited(
    settings: Settings, site: Site, how: str
) -> None:
    """They keep what the catalogue says of their work, and the position lies behind it."""
    records = [work("one", location("b1", "iiif-presentation")), work("two", location("m2"))]
    site.pages = {"/presentation/v3/b1": (429, {"Retry-After": "0"}, b"")}
    serve_list(site, "/catalogue/v2/works", records)
    spec = f"{site.url}/catalogue/v2/works"
    if how == "snapshot":
        site.files["/works.json.gz"] = snapshot(site, records)
        spec = f"{site.url}/works.json.gz"
    found = list(read_source(spec, settings))
    assert keys(found) == ["m2"]
    assert len(checkpoints(found)) == 2
    (awaited,) = [each for each in found if isinstance(each, AwaitedManifest)]
    assert awaited == AwaitedManifest(
        f"{site.url}/presentation/v3/b1",
        f"{site.url}/presentation/v3/b1",
        None,
        None,
        whole=False,
        described={"work": "one", "title": "Title one", "licence": "pdm", "access": "open"},
        detail=f"{site.url}/presentation/v3/b1 answered 429 Too Many Requests; try again later",
    )


def test_an_image_with_a_manifest_alone(settings: Settings, site: Site) -> None:
    """An image record that only has a manifest gives what that shows."""
    book = location("b1", "iiif-presentation")
    site.pages = {"/presentation/v3/b1": manifest("b1", 2)}
    serve_list(site, "/catalogue/v2/images", [image("a", book)])
    assert keys(list(open_source(f"{site.url}/catalogue/v2/images", settings))) == ["b1_1.jp2", "b1_2.jp2"]


@pytest.mark.parametrize("junk", [None, 7, "x", [], {}, [[]], [None], [{}], {"id": 3}])
def test_junk_in_any_place_is_no_crash(tmp_path: Path, junk: Json) -> None:
    """Whatever stands in place of a record's parts, nothing raises."""
    records: list[Json] = [image("a"), work("b")]
    for name in ("id", "locations", "thumbnail", "source"):
        records.append({**image("a"), name: junk})
    for name in ("id", "items", "title", "type"):
        records.append({**work("a", location("a")), name: junk})
    for name in ("type", "locationType", "url", "license", "accessConditions"):
        records += [work("a", location("a", **{name: junk})), image("a", location("a", **{name: junk}))]
    records.append(junk)
    path = tmp_path / "works.json"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    list(open_source(str(path), Settings()))


# ---------------------------------------------------------------------------------------------------------- the API


def test_pages_are_followed_and_resumed(settings: Settings, site: Site) -> None:
    """All pages of a query are read; from each Checkpoint on, exactly what came after it."""
    spec = f"{site.url}/catalogue/v2/images?locations.license=pdm&pageSize=3"
    serve_list(site, "/catalogue/v2/images?locations.license=pdm", [image(f"i{n}") for n in range(8)], size=3)
    everything = list(read_source(spec, settings))
    assert keys(everything) == [f"i{n}" for n in range(8)]
    positions = checkpoints(everything)
    assert len(positions) == 8
    for number, position in enumerate(positions, 1):
        site.asked.clear()
        assert keys(list(read_source(spec, settings, position))) == [f"i{n}" for n in range(number, 8)]
        assert len(site.asked) == 3 - (number - 1) // 3
    other = spec.replace("pdm", "inc")
    serve_list(site, "/catalogue/v2/images?locations.license=inc", [image("other")], size=3)
    assert keys(list(read_source(other, settings, positions[4]))) == ["other"]


def test_the_query_is_passed_on(settings: Settings, site: Site) -> None:
    """Filters reach the API as they were given; of works, their items are asked for as well."""
    query = "items.locations.accessConditions.status=!closed&include=notes&genres=a&genres=b"
    spec = f"{site.url}/catalogue/v2/works?{query}"
    with pytest.raises(SourceError):
        list(open_source(spec, settings))
    assert parse_qs(urlsplit(site.asked[0]).query) == {
        "items.locations.accessConditions.status": ["!closed"],
        "genres": ["a", "b"],
        "include": ["notes,items"],
        "pageSize": ["100"],
    }


def test_queries_are_sources_of_their_own() -> None:
    """The name of a source keeps the filters of a query, which elsewhere might be secrets."""
    address = "https://api.wellcomecollection.org/catalogue/v2/works?workType="
    assert source_name(f"{address}a") == f"{address}a"
    assert "secret" not in source_name("https://h.org/catalogue/v3/works?token=secret")
    assert "secret" not in source_name("https://me:secret@h.org/catalogue/v2/works?workType=a")
    # A finished source is not read again by the orchestrator: another one must not pass for it.
    assert source_name("https://h.org/manifest?id=a") != source_name("https://h.org/manifest?id=b")


def test_single_records(settings: Settings, site: Site) -> None:
    """One work or image is read by its own address; a merged one is redirected, a deleted one said to be gone."""
    site.pages = {
        "/catalogue/v2/works/a?include=items": work("a", location("a")),
        "/catalogue/v2/works/old?include=items": (
            302,
            {"Location": "/catalogue/v2/works/a?include=items"},
            b"",
        ),
        "/catalogue/v2/works/dead?include=items": (410, {}, b""),
        "/catalogue/v2/images/i": image("i"),
    }
    for path, name in (("works/a", "a"), ("works/old", "a"), ("images/i", "i")):
        assert keys(list(open_source(f"{site.url}/catalogue/v2/{path}", settings))) == [name]
    with pytest.raises(SourceError, match="410 Gone"):
        list(open_source(f"{site.url}/catalogue/v2/works/dead", settings))


def test_next_pages_stay_on_their_host(settings: Settings, site: Site) -> None:
    """A next page on another host is not followed; one that leads back ends the list."""
    page = {"results": [image("a")], "nextPage": "https://evil.example/catalogue/v2/images?page=2"}
    site.pages["/catalogue/v2/images?pageSize=100"] = page
    with pytest.raises(SourceError, match=r"another host, https://evil\.example"):
        list(open_source(f"{site.url}/catalogue/v2/images", settings))
    page["nextPage"] = "//[x"
    with pytest.raises(SourceError, match="another host"):
        list(open_source(f"{site.url}/catalogue/v2/images", settings))
    page["nextPage"] = "SITE/catalogue/v2/images?pageSize=100"
    assert keys(list(open_source(f"{site.url}/catalogue/v2/images", settings))) == ["a"]


def test_errors_of_the_api_are_shown(settings: Settings, site: Site) -> None:
    """The description of an error is part of the message; what is no list of results says so."""
    error = {"type": "Error", "httpStatus": 400, "description": "workType: 'zz' is not a valid value"}
    site.pages["/catalogue/v2/works?workType=zz&pageSize=100&include=items"] = (
        400,
        {},
        json.dumps(error).encode(),
    )
    with pytest.raises(SourceError, match="'zz' is not a valid value"):
        list(open_source(f"{site.url}/catalogue/v2/works?workType=zz", settings))
    site.pages["/catalogue/v2/images?pageSize=100"] = {"results": "none"}
    with pytest.raises(SourceError, match="no list of results"):
        list(open_source(f"{site.url}/catalogue/v2/images", settings))


TOO_MANY = (
    "Only the first 10000 works are available in the API. If you want more works, you can download a snapshot of the "
    "complete catalogue: https://developers.wellcomecollection.org/datasets"
)


def test_more_than_the_api_gives_is_read_from_the_snapshot(settings: Settings, site: Site) -> None:
    """With more than 10,000 results the snapshot is read in the API's place, filtered alike, and resumed there."""
    records = [
        image(f"i{n}", location(f"i{n}", license={"id": "pdm" if n % 2 else "inc"})) for n in range(10)
    ]
    serve_list(site, "/catalogue/v2/images?locations.license=pdm", [records[1]], total=10_001)
    site.files["/snapshots/images.json.gz"] = snapshot(site, records)
    spec = f"{site.url}/catalogue/v2/images?locations.license=pdm"
    everything = list(read_source(spec, settings))
    assert keys(everything) == ["i1", "i3", "i5", "i7", "i9"]
    site.asked.clear()
    assert keys(list(read_source(spec, settings, checkpoints(everything)[2]))) == ["i7", "i9"]
    assert site.asked == ["/snapshots/images.json.gz"]


def test_a_refused_page_leads_to_the_snapshot(settings: Settings, site: Site) -> None:
    """A 400 that points to the snapshots does the same."""
    error = {"type": "Error", "httpStatus": 400, "description": TOO_MANY}
    site.pages["/catalogue/v2/works?pageSize=100&include=items"] = (400, {}, json.dumps(error).encode())
    site.files["/snapshots/works.json.gz"] = snapshot(site, [work("a", location("a"))])
    assert keys(list(open_source(f"{site.url}/catalogue/v2/works", settings))) == ["a"]


def test_what_the_snapshot_cannot_answer_is_said(settings: Settings, site: Site) -> None:
    """A query that records cannot be compared with says to narrow it, and which filters there are."""
    serve_list(site, "/catalogue/v2/works?query=heart&workType=a", [], total=20_000)
    with pytest.raises(
        SourceError, match=r"cannot be filtered by query: narrow the query, or filter only by items"
    ):
        list(open_source(f"{site.url}/catalogue/v2/works?query=heart&workType=a", settings))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("items.locations.license=pdm,cc-by", "ab"),
        ("items.locations.locationType=iiif-presentation", "b"),
        ("items.locations.accessConditions.status=open", "a"),
        ("items.locations.accessConditions.status=!closed,!restricted", "ad"),
        ("items.locations.accessConditions.status=open,!closed", "a"),
        ("workType=a&items.locations.license=cc-by", "b"),
        ("workType=a,k&languages=eng", "b"),
        ("type=Collection", "d"),
        ("availabilities=online", "a"),
        (
            "workType=&sort=production.dates&sortOrder=asc&pageSize=10&include=items&aggregations=workType",
            "abcd",
        ),
    ],
)
def test_filters_of_works(query: str, expected: str) -> None:
    """Each filter passes the records that the API's index would: of several values any, of `!` none."""
    records = [
        work("a", location("a"), availabilities=[{"id": "online"}]),
        work(
            "b",
            location("b", "iiif-presentation", "closed", license={"id": "cc-by"}),
            workType={"id": "a"},
            languages=[{"id": "eng"}],
        ),
        work("c", location("c", status="restricted", license=None)),
        work("d", type="Collection", workType={"id": "h"}),
    ]  # fmt: skip
    filters = filters_of(f"https://h.org/catalogue/v2/works?{query}", "works")
    assert "".join(each["id"] for each in records if all(passes(each) for passes in filters)) == expected
