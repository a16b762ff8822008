"""IIIF manifests and collections as sources, as institutions write them: versions, irregularities, trees."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lookalike.errors import SourceError
from lookalike.images import Announcement, AwaitedManifest, Checkpoint, Image, Notice, Position, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import open_source, read_source
from orchestrator.sources.iiif import Document, read_document
from orchestrator.sources.manifest import images_of
from orchestrator.sources.web import AnswerError, OutageError, Web
from tests.sites import Site, serving

SETTINGS = Settings(tries=3, retry_seconds=0.01, connect_timeout=2, fetch_timeout=20)
MANIFESTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "iiif" / "manifests"
SERVICE = "https://h.org/iiif/1"

Json = Any


def read(spec: object, settings: Settings = SETTINGS) -> list[Announcement]:
    return list(open_source(str(spec), settings))


def images(announcements: Sequence[Notice]) -> list[Image]:
    return [each for each in announcements if isinstance(each, Image)]


def refusals(announcements: list[Announcement]) -> list[tuple[str, Reason]]:
    return [(each.where, each.reason) for each in announcements if isinstance(each, Refused)]


def v3(*bodies: Json, motivation: Json = "painting", **manifest: Json) -> Json:
    """A version 3 manifest with one canvas on which the bodies are painted."""
    annotations = [{"type": "Annotation", "motivation": motivation, "body": body} for body in bodies]
    canvas = {
        "id": "https://h.org/c1",
        "type": "Canvas",
        "items": [{"type": "AnnotationPage", "items": annotations}],
    }
    return {"id": "https://h.org/m", "type": "Manifest", "items": [canvas], **manifest}


def v2(*resources: Json, **manifest: Json) -> Json:
    """A version 2 manifest with one canvas that shows the resources."""
    shown = [{"@type": "oa:Annotation", "motivation": "sc:painting", "resource": each} for each in resources]
    canvas = {"@id": "https://h.org/c1", "@type": "sc:Canvas", "label": "1r", "images": shown}
    sequences = [{"@type": "sc:Sequence", "canvases": [canvas]}]
    context = "http://iiif.io/api/presentation/2/context.json"
    return {
        "@context": context,
        "@id": "https://h.org/m",
        "@type": "sc:Manifest",
        "sequences": sequences,
        **manifest,
    }


def picture(url: str = f"{SERVICE}/full/max/0/default.jpg", **more: Json) -> Json:
    return {"id": url, "type": "Image", "format": "image/jpeg", **more}


def found_in(manifest: Json) -> list[Announcement]:
    return list(images_of(json.loads(json.dumps(manifest)), "https://h.org/manifest.json"))


def addresses(manifest: Json) -> list[tuple[str, str]]:
    return [(each.url, each.protocol) for each in images(found_in(manifest))]


# ------------------------------------------------------------------------------------------------- real manifests


def painted(value: Json) -> Iterator[str]:
    """An independent count: every Image below a manifest's items, by its service or else itself."""
    others = {
        "thumbnail",
        "annotations",
        "placeholderCanvas",
        "accompanyingCanvas",
        "rendering",
        "metadata",
        "homepage",
    }
    if isinstance(value, list):
        for each in value:
            yield from painted(each)
    elif isinstance(value, dict) and value.get("type") == "Image":
        service = value.get("service", [{}])[0]
        yield (service.get("id") or service.get("@id") or value["id"]).rstrip("/")
    elif isinstance(value, dict):
        for name, each in value.items():
            if name not in others:
                yield from painted(each)


def shared_manifests() -> list[Path]:
    return sorted(MANIFESTS.glob("*.json"))


@pytest.mark.parametrize("path", shared_manifests(), ids=lambda path: path.stem)
def test_cookbook_manifests(path: Path) -> None:
    """Each image of a real manifest is announced once, by the address of its service or file."""
    found = read(path)
    urls = [each.url for each in images(found)]
    assert sorted(urls) == sorted(set(painted(json.loads(path.read_bytes())["items"])))
    assert {reason for _, reason in refusals(found)} <= {Reason.NO_IMAGE}
    assert urls or refusals(found)


@pytest.mark.skipif(not MANIFESTS.exists(), reason="no shared manifests")
def test_all_cookbook_manifests() -> None:
    """The 153 manifests hold 269 images, and some canvases without one."""
    found = [each for path in shared_manifests() for each in read(path)]
    assert (len(images(found)), len(refusals(found))) == (269, len(found) - 269)
    assert all(each.work and each.work.startswith("http") for each in images(found))


# --------------------------------------------------------------------------------------------------------- shapes


def test_version_3_in_full() -> None:
    """Key, address, work, title and licence of a regular image of version 3."""
    manifest = v3(
        picture(service=[{"id": SERVICE, "type": "ImageService3", "profile": "level1"}]),
        label={"fr": ["Un livre"], "en": ["A  book", "in parts"]},
        rights="http://creativecommons.org/licenses/by/4.0/",
    )
    manifest["items"][0]["label"] = {"none": ["12r"]}
    assert found_in(manifest) == [
        Image(
            "h.org/iiif/1", SERVICE, "iiif", "https://h.org/m", "A book; in parts – 12r",
            "http://creativecommons.org/licenses/by/4.0/", outside=True,
        )
    ]  # fmt: skip


def test_version_2_in_full() -> None:
    """Key, address, work, title and licence of a regular image of version 2."""
    service = {
        "@context": "http://iiif.io/api/image/2/context.json",
        "@id": f"{SERVICE}/",
        "profile": ["http://iiif.io/api/image/2/level1.json", {"formats": ["jpg"]}],
    }
    resource = {"@id": f"{SERVICE}/full/full/0/default.jpg", "@type": "dctypes:Image", "service": service}
    manifest = v2(
        resource, label=[{"@value": "Livre", "@language": "fr"}, {"@value": "Book", "@language": "en"}]
    )
    manifest["license"] = ["https://l.org/1"]
    assert found_in(manifest) == [
        Image(
            "h.org/iiif/1", SERVICE, "iiif", "https://h.org/m", "Book – 1r", "https://l.org/1", outside=True
        )
    ]  # fmt: skip


AUTH = {
    "@context": "http://iiif.io/api/auth/1/context.json",
    "@id": "https://h.org/login",
    "profile": "http://iiif.io/api/auth/1/login",
}
AUTH2 = {
    "id": "https://h.org/probe",
    "type": "AuthProbeService2",
    "service": [{"id": "x", "type": "AuthAccessService2"}],
}
SEARCH = {
    "@context": "http://iiif.io/api/search/1/context.json",
    "@id": "https://h.org/search",
    "profile": "http://iiif.io/api/search/1/search",
}
TYPED = {"@id": SERVICE, "@type": "ImageService2"}


@pytest.mark.parametrize(
    "service",
    [
        TYPED,
        [TYPED],
        {"id": SERVICE, "type": "ImageService1", "profile": "level2"},
        {
            "@id": f"{SERVICE}/info.json",
            "profile": "http://library.stanford.edu/iiif/image-api/1.1/compliance.html#level1",
        },
        {
            "@id": SERVICE,
            "dcterms:conformsTo": "http://library.stanford.edu/iiif/image-api/1.1/conformance.html#level2",
        },
        {"@id": SERVICE, "@context": "http://library.stanford.edu/iiif/image-api/1.1/context.json"},
        {"@id": SERVICE, "@type": "iiif:Image"},
        {"@id": SERVICE},
        SERVICE,
        [AUTH, TYPED],
        [AUTH2, SEARCH, {**TYPED, "service": [AUTH]}],
        {"@id": "https://h.org/wrapper", "service": {"@id": "https://h.org/inner", "service": [AUTH, TYPED]}},
        [TYPED, {"id": "https://h.org/iiif/2", "type": "ImageService3"}],
    ],
)
def test_image_services_are_recognised(service: Json) -> None:
    """Services of any version, typed or not, one or several, beside or below access services."""
    assert addresses(v3(picture(service=service))) == [(SERVICE, "iiif")]


@pytest.mark.parametrize(
    "service", [None, [], AUTH, [AUTH2, SEARCH], {"id": ""}, {"type": "ImageService3"}, "x", 7]
)
def test_images_without_image_service_are_files(service: Json) -> None:
    """A plain image, or one with access services only, is fetched as a file."""
    assert addresses(v3(picture("https://h.org/a.jpg", service=service))) == [("https://h.org/a.jpg", "file")]


@pytest.mark.parametrize(
    "identifier",
    [
        "https://h.org/iiif/a b é.tif",
        "https://h.org/iiif/a%2Fb%252Fc",
        "https://h.org/fcgi?IIIF=/d/a.tif",
        "https://h.org:8443/iiif/ark:/12148/1",
    ],
)
def test_addresses_stay_as_written(identifier: str) -> None:
    """Odd identifiers are neither encoded nor decoded; only a slash at their end goes."""
    (image,) = images(found_in(v3(picture(service=[{"id": f"{identifier}/", "type": "ImageService3"}]))))
    assert (image.url, image.key) == (identifier, identifier.removeprefix("https://"))


def test_irregular_annotations() -> None:
    """Empty and missing motivations paint, comments do not; a body may be a list, a page may be left out."""
    body = picture(type="dcTypes:Image", service=[TYPED])
    for motivation in (
        "",
        None,
        "sc:painting",
        ["painting"],
        "Painting",
        "http://iiif.io/api/presentation/3#painting",
    ):
        assert addresses(v3(body, motivation=motivation)) == [(SERVICE, "iiif")]
    assert addresses(v3(body, motivation="commenting")) == []
    assert addresses(v3([body], items=v3([body])["items"])) == [(SERVICE, "iiif")]
    bare = {
        "type": "Manifest",
        "items": [{"type": "Canvas", "items": [{"type": "Annotation", "body": body}]}],
    }
    assert [(each.url, each.work) for each in images(found_in(bare))] == [
        (SERVICE, "https://h.org/manifest.json")
    ]


def test_choices_and_parts_and_several_images() -> None:
    """Every image of a choice counts, with its label; a part of an image is the image; one image counts once."""
    one, two, three = (
        picture(f"https://h.org/{n}.jpg", label={"en": [word]})
        for n, word in enumerate(("Light", "X-ray", "IR"))
    )
    manifest = v3(
        {"type": "Choice", "items": [one, {"type": "Choice", "items": [two]}]},
        {"type": "SpecificResource", "source": three, "selector": {"type": "ImageApiSelector"}},
        {"type": "SpecificResource", "source": [one]},
        label="Book",
    )
    assert [(each.url, each.title) for each in images(found_in(manifest))] == [
        ("https://h.org/0.jpg", "Book – Light"),
        ("https://h.org/1.jpg", "Book – X-ray"),
        ("https://h.org/2.jpg", "Book – IR"),
    ]


def test_version_2_choices_and_parts() -> None:
    """`oa:Choice` with default and items, `rdf:nil`, and `oa:SpecificResource` with `full`."""
    one, two, three = ({"@id": f"https://h.org/{n}.jpg", "@type": "dctypes:Image"} for n in range(3))
    manifest = v2(
        {"@type": "oa:Choice", "default": one, "item": [two, "rdf:nil"]},
        {"@type": "oa:SpecificResource", "@id": "https://h.org/part", "full": three},
    )
    assert [url for url, _ in addresses(manifest)] == [
        "https://h.org/0.jpg",
        "https://h.org/1.jpg",
        "https://h.org/2.jpg",
    ]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"id": "https://h.org/a.mp4", "type": "Video", "format": "video/mp4"}, "video"),
        ({"id": "https://h.org/a.mp4", "type": "dctypes:MovingImage"}, "video"),
        ({"id": "https://h.org/a.mp3", "type": "Sound"}, "sound"),
        ({"id": "https://h.org/a", "format": "audio/mp3"}, "sound"),
        ({"id": "https://h.org/a.pdf", "type": "Text", "format": "application/pdf"}, "pdf"),
        ({"id": "https://h.org/a.pdf", "type": "Image", "format": "application/pdf"}, "pdf"),
        ({"id": "https://h.org/a.glb", "type": "Model"}, "other"),
        ({"id": "https://h.org/a.zip"}, "other"),
        ({"type": "TextualBody", "value": "words"}, "text"),
        ({"type": "Choice", "items": [{"id": "https://h.org/a.mp3", "type": "dctypes:Sound"}]}, "sound"),
        ({"type": "SpecificResource", "source": "https://h.org/canvas/2"}, "other"),
        ("urn:x", "nothing"),
        (17, "nothing"),
        (None, "nothing"),
    ],
)
def test_canvases_without_still_image(body: Json, word: str) -> None:
    """Sound, video, PDF, models and words are one refusal for the canvas, in a word that can be counted."""
    assert found_in(v3(body)) == [Refused("https://h.org/c1", Reason.NO_IMAGE, word)]
    assert found_in({"type": "Manifest", "id": "https://h.org/m"}) == [
        Refused("https://h.org/m", Reason.NO_IMAGE, "no canvases")
    ]


def test_video_beside_an_image() -> None:
    """An image painted beside a video is an image."""
    assert addresses(v3({"id": "https://h.org/a.mp4", "type": "Video"}, picture(service=[TYPED]))) == [
        (SERVICE, "iiif")
    ]


def test_only_what_is_painted_counts() -> None:
    """Thumbnails, ranges, comments, placeholders and accompanying canvases are not images of the manifest."""
    other = v3(picture("https://h.org/other.jpg"))["items"]
    manifest = v3(picture(service=[TYPED]), thumbnail=[picture("https://h.org/t.jpg")], structures=other)
    manifest["items"][0] |= {
        "placeholderCanvas": other[0],
        "accompanyingCanvas": other[0],
        "annotations": other[0]["items"],
    }
    assert addresses(manifest) == [(SERVICE, "iiif")]


def test_images_may_not_point_into_this_machine() -> None:
    """A manifest comes from outside: it may not name files or objects; relative addresses are resolved."""
    found = found_in(
        v3(picture("file:///etc/passwd.jpg"), picture("s3://b/a.jpg"), picture("a.jpg"), picture(""))
    )
    assert [reason for _, reason in refusals(found)] == [
        Reason.BAD_ADDRESS,
        Reason.BAD_ADDRESS,
        Reason.BAD_RECORD,
    ]
    assert [each.url for each in images(found)] == ["https://h.org/a.jpg"]
    assert refusals(found_in(v3(picture("//[x.jpg")))) == [("https://h.org/c1", Reason.BAD_ADDRESS)]


@pytest.mark.parametrize(
    ("label", "title"),
    [
        (None, None),
        ("", None),
        ("-", None),
        ("a\0b\ud800", "a b"),
        ({"none": ["x"]}, "x"),
        ({"de": ["x"]}, "x"),
        ({"en-GB": ["x"], "de": ["y"]}, "x"),
        ({"en": "x"}, "x"),
        ({"@value": "x", "@language": "cy"}, "x"),
        (["x", {"@value": "y"}], "x; y"),
        ({"en": [None, {}, 5]}, "5"),
        (12, "12"),
        ([], None),
        ("t" * 5000, "t" * 1000),
    ],
)
def test_labels(label: Json, title: str | None) -> None:
    """Plain text, language maps and lists of both give a title of one line."""
    (image,) = images(found_in(v3(picture(), label=label)))
    assert image.title == title


@pytest.mark.parametrize(
    "junk", [None, 7, "x", [], {}, [[]], [None], [{}], [{"items": 3}], {"items": {"items": "x"}}]
)
def test_junk_in_any_place_is_no_crash(junk: Json) -> None:
    """Whatever stands in place of canvases, pages, annotations, bodies, services and labels, nothing raises."""
    for name in ("items", "sequences", "label", "rights", "license", "id", "type"):
        found_in({**v3(picture()), name: junk})
        found_in({**v2({"@id": "https://h.org/1.jpg"}), name: junk})
    for name in ("items", "images", "label", "id"):
        manifest = v3(picture())
        manifest["items"][0][name] = junk
        found_in(manifest)
    for name in ("id", "type", "format", "service", "label", "rights", "source"):
        found_in(v3({**picture(), name: junk}))
        found_in(v3(picture(service=[{name: junk, "id": SERVICE}])))


def test_choices_nested_without_end() -> None:
    """A choice nested a hundred deep ends in a refusal."""
    body: Json = picture()
    for _ in range(100):
        body = {"type": "Choice", "items": [body]}
    assert refusals(found_in(v3(body))) == [("https://h.org/c1", Reason.NO_IMAGE)]


# ------------------------------------------------------------------------------------------- collections over HTTP


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        yield site


def book(number: int) -> Json:
    return v3(picture(f"https://h.org/{number}.jpg"), id=f"SITE/m{number}")


def numbers(found: Sequence[Notice]) -> list[int]:
    return [int(each.url.removeprefix("https://h.org/").removesuffix(".jpg")) for each in images(found)]


def test_nested_collection_of_both_versions(site: Site) -> None:
    """Manifests and collections of both versions, nested, listed twice and in a circle, are read once each."""
    site.pages = {
        "/top": {
            "type": "Collection",
            "id": "SITE/top",
            "items": [
                {"id": "SITE/m1", "type": "Manifest"},
                {"id": "SITE/v2", "type": "Collection"},
                {"id": "SITE/top", "type": "Collection"},
                {"id": "SITE/in", "type": "Collection", "items": [{"id": "SITE/m4", "type": "Manifest"}]},
                book(5),
            ],
        },
        "/v2": {
            "@type": "sc:Collection",
            "@id": "SITE/v2",
            "members": [
                {"@id": "SITE/m2", "@type": "sc:Manifest"},
                {"@id": "SITE/top", "@type": "sc:Collection"},
            ],
            "manifests": [{"@id": "SITE/m2", "@type": "sc:Manifest"}, "SITE/m3"],
            "collections": [{"@id": "SITE/v2"}],
        },
        "/m3": v2({"@id": "https://h.org/3.jpg", "@type": "dctypes:Image"}),
        **{f"/m{number}": book(number) for number in (1, 2, 4)},
    }
    found = read(f"{site.url}/top")
    assert numbers(found) == [1, 2, 3, 4, 5]
    assert refusals(found) == []
    assert len(site.asked) == len(set(site.asked)) == 6


def test_collection_in_pages(site: Site) -> None:
    """Pages are followed by `first` and `next`, given by address or in full, and end where they run in a circle."""
    site.pages = {
        "/top": {"@type": "sc:Collection", "@id": "SITE/top", "first": "SITE/p1", "total": 3},
        "/p1": {
            "@type": "sc:Collection",
            "manifests": [{"@id": "SITE/m1"}],
            "first": "SITE/p1",
            "next": {"id": "SITE/p2"},
        },
        "/p2": {
            "type": "CollectionPage",
            "items": ["SITE/m2"],
            "next": {"id": "SITE/p3", "items": ["SITE/m3"], "next": "SITE/p1"},
        },
        **{f"/m{number}": book(number) for number in (1, 2, 3)},
    }
    assert numbers(read(f"{site.url}/top")) == [1, 2, 3]


def test_unreadable_members_are_refused_one_by_one(site: Site) -> None:
    """Missing, broken, foreign, cut, slow and endless members are refusals with a cause, and the rest is read."""
    members = ["gone", "html", "list", "other", "deep", "cut", "loop", "m1"]
    site.pages = {
        "/top": {
            "type": "Collection",
            "items": [*({"id": f"SITE/{name}"} for name in members), {"id": "file:///etc/passwd"}, {}, 3],
        },
        "/html": b"<html>Please log in</html>",
        "/list": b"[1, 2]",
        "/other": {"type": "AnnotationPage"},
        "/deep": b'{"a":' * 100_000,
        "/cut": (200, {"Content-Length": "100"}, b"{}"),
        "/loop": (302, {"Location": "/loop"}, b""),
        "/m1": book(1),
    }
    found = read(f"{site.url}/top")
    assert numbers(found) == [1]
    assert refusals(found) == [
        (f"{site.url}/gone", Reason.NOT_FOUND),
        *((f"{site.url}/{name}", Reason.UNREADABLE_MANIFEST) for name in members[1:5]),
        (f"{site.url}/cut", Reason.UNREACHABLE),
        (f"{site.url}/loop", Reason.UNREADABLE_MANIFEST),
        ("file:///etc/passwd", Reason.UNREADABLE_MANIFEST),
        (f"{site.url}/top", Reason.UNREADABLE_MANIFEST),
        (f"{site.url}/top", Reason.UNREADABLE_MANIFEST),
    ]
    details = [each.detail for each in found if isinstance(each, Refused)]
    assert "answered 404 Not Found" in details[0]
    assert "not JSON but an HTML page" in details[1]


def test_an_unreadable_page_keeps_the_images_before_it(site: Site) -> None:
    """A page that cannot be had is one refusal after the images of the pages before it."""
    site.pages = {"/top": {"type": "Collection", "items": ["SITE/m1"], "next": "SITE/p2"}, "/m1": book(1)}
    found = read(f"{site.url}/top")
    assert numbers(found) == [1]
    assert refusals(found) == [(f"{site.url}/p2", Reason.NOT_FOUND)]


def test_members_whose_host_fails_for_the_moment_are_awaited(site: Site) -> None:
    """They are named with what they belong to, the rest is read, and the position lies behind them."""
    site.pages = {
        "/top": {"type": "Collection", "items": ["SITE/busy", "SITE/cut", "SITE/m1"]},
        "/busy": (503, {}, b""),
        "/cut": (200, {"Content-Length": "100"}, b"{}"),
        "/m1": book(1),
    }
    found = notices(f"{site.url}/top")
    assert numbers(found) == [1]
    awaited = [each for each in found if isinstance(each, AwaitedManifest)]
    assert [(each.address, each.whole, each.as_of) for each in awaited] == [
        (f"{site.url}/{name}", False, None) for name in ("busy", "cut")
    ]
    assert "503 Service Unavailable" in awaited[0].detail
    assert [type(each) for each in found] == [
        AwaitedManifest,
        Checkpoint,
        AwaitedManifest,
        Checkpoint,
        Image,
        Checkpoint,
    ]


def test_a_page_whose_host_fails_for_the_moment_ends_the_source(site: Site) -> None:
    """It is asked for longer than a member; then the source breaks off, and goes on there when it is read again."""
    site.pages = {
        "/top": {"type": "Collection", "items": ["SITE/m1"], "next": "SITE/p2"},
        "/p2": (503, {}, b""),
        **{f"/m{number}": book(number) for number in (1, 2)},
    }
    with pytest.raises(SourceError, match="p2 answered 503"):
        read(f"{site.url}/top")
    found = until_it_breaks(f"{site.url}/top")
    assert numbers(found) == [1]
    assert site.asked.count("/p2") > 2 * SETTINGS.tries
    site.pages["/p2"] = {"type": "CollectionPage", "items": ["SITE/m2"]}
    (checkpoint,) = [each for each in found if isinstance(each, Checkpoint)]
    site.asked.clear()
    assert numbers(notices(f"{site.url}/top", checkpoint.position)) == [2]
    assert "/m1" not in site.asked


def until_it_breaks(spec: str) -> list[Notice]:
    """What a source yields before it breaks off."""
    found: list[Notice] = []
    with suppress(SourceError):
        for each in read_source(spec, SETTINGS):
            found.append(each)
    return found


def test_a_collection_within_whose_page_fails_is_awaited_as_a_whole(site: Site) -> None:
    """What leads to an unknown number of manifests is read later, by its own address, and the others go on."""
    site.pages = {
        "/top": {
            "type": "Collection",
            "items": ["SITE/in", {"items": ["SITE/deep"], "type": "Collection"}, "SITE/m4"],
        },
        "/in": {"type": "Collection", "items": ["SITE/m1"], "next": "SITE/p2"},
        "/deep": {
            "type": "Collection",
            "items": [{"type": "Collection", "items": ["SITE/m3"], "next": "SITE/p2"}],
        },
        "/p2": (500, {}, b""),
        **{f"/m{number}": book(number) for number in (1, 3, 4)},
    }
    everything = notices(f"{site.url}/top")
    assert numbers(everything) == [1, 3, 4]
    awaited = [each.address for each in everything if isinstance(each, AwaitedManifest)]
    assert awaited == [f"{site.url}/in", f"{site.url}/deep"]
    for stop, checkpoint in enumerate(everything):
        if isinstance(checkpoint, Checkpoint):
            rest = notices(f"{site.url}/top", json.loads(json.dumps(checkpoint.position)))
            assert numbers(rest)[-1:] == numbers(everything[stop:])[-1:]
            assert not {1, 3, 4} & set(numbers(everything[:stop])) & set(numbers(rest))


def test_relative_addresses_in_a_collection(site: Site) -> None:
    """Pages and members are found from the address of the page that names them, as RFC 3986 has it."""
    site.pages = {
        "/a/top": {"type": "Collection", "items": ["m1"], "next": "p/2?x=1"},
        "/a/p/2?x=1": {"type": "CollectionPage", "items": [{"id": "../m2"}], "next": {"id": "?x=2"}},
        "/a/p/2?x=2": {"type": "CollectionPage", "items": ["/m3"], "next": "../top"},
        "/a/m1": book(1),
        "/a/m2": book(2),
        "/m3": book(3),
    }
    assert numbers(read(f"{site.url}/a/top")) == [1, 2, 3]
    assert len(site.asked) == 6


def test_a_relative_page_leads_only_where_the_guard_allows(site: Site, tmp_path: Path) -> None:
    """A reference without a scheme may name another host, and one in a file has nothing to begin from."""
    with serving(Site()) as other:
        other.pages = {"/p2": {"type": "Collection", "items": []}}
        site.pages = {
            "/top": {"type": "Collection", "items": [], "next": other.url.removeprefix("http:") + "/p2"}
        }
        assert refusals(read(f"{site.url}/top")) == [(f"{other.url}/p2", Reason.FORBIDDEN_ADDRESS)]
        assert other.asked == []
    path = tmp_path / "collection.json"
    path.write_text(json.dumps({"type": "Collection", "items": [], "next": "p2"}))
    assert refusals(read(path)) == [("p2", Reason.UNREADABLE_MANIFEST)]
    path.write_text(json.dumps({"type": "Collection", "id": f"{site.url}/c", "items": [], "next": "p2"}))
    assert refusals(read(path)) == [(f"{site.url}/p2", Reason.FORBIDDEN_ADDRESS)]


def test_collections_without_end(site: Site) -> None:
    """Collections that always hold another one end at the depth limit with a refusal."""
    site.pages = {f"/c{n}": {"type": "Collection", "items": [{"id": f"SITE/c{n + 1}"}]} for n in range(30)}
    (refused,) = read(f"{site.url}/c0")
    assert isinstance(refused, Refused)
    assert "more than 20 collections deep" in refused.detail


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_tried_again(site: Site, status: int) -> None:
    """A host that is busy for a moment is asked again, after the time it asks for."""
    site.pages = {
        "/m1": [(status, {"Retry-After": "0"}, b""), (status, {"Retry-After": "later"}, b""), book(1)]
    }
    assert numbers(read(f"{site.url}/m1")) == [1]
    assert len(site.asked) == 3


@pytest.mark.parametrize(
    ("page", "times", "advice"),
    [
        ((404, {}, b""), 1, "404 Not Found; check the address"),
        ((403, {}, b""), 1, "403 Forbidden"),
        ((503, {}, b""), 3, "503 Service Unavailable; try again later"),
        ((200, {"Content-Length": "9"}, b"{}"), 3, "broke off"),
        ((301, {"Location": "file:///etc/passwd"}, b""), 1, "cannot be reached"),
        (b"<!DOCTYPE html>", 1, "not JSON but an HTML page"),
        (b"\xff\xfe\xff", 1, "not JSON"),
        (b'{"type": "ImageService3"}', 1, "neither a IIIF manifest nor a collection"),
    ],
)
def test_unreadable_roots_stop_the_source(site: Site, page: Json, times: int, advice: str) -> None:
    """An address that gives no manifest raises SourceError with the cause; only what may pass is tried again."""
    site.pages = {"/m": page}
    with pytest.raises(SourceError, match=advice):
        read(f"{site.url}/m")
    assert len(site.asked) == times


def test_documents_have_a_size_limit(site: Site) -> None:
    """A small answer that unpacks into a huge one is not read to its end."""
    bomb = gzip.compress(b" " * (65 * 2**20))
    site.pages = {"/m": (200, {"Content-Encoding": "gzip"}, bomb)}
    with pytest.raises(SourceError, match="larger than 64 MiB"):
        read(f"{site.url}/m")


def test_silent_hosts_end_in_time(site: Site) -> None:
    """A host that does not answer within the time limit is given up."""
    answer: Callable[[str], tuple[int, dict[str, str], bytes]] = site.answer
    released = threading.Event()

    def silent(path: str) -> tuple[int, dict[str, str], bytes]:
        released.wait(10)
        return answer(path)

    site.answer = silent  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="timed out"):
        list(open_source(f"{site.url}/m", SETTINGS.model_copy(update={"fetch_timeout": 0.2})))
    released.set()


def test_redirects_and_odd_encodings(site: Site) -> None:
    """A redirect is followed; a BOM and gzip are read."""
    text = b"\xef\xbb\xbf" + json.dumps(book(1)).encode()
    site.pages = {
        "/old": (302, {"Location": "/new%20place"}, b""),
        "/new%20place": (200, {"Content-Encoding": "gzip"}, gzip.compress(text)),
    }
    assert numbers(read(f"{site.url}/old")) == [1]


def test_a_collection_in_a_file(site: Site, tmp_path: Path) -> None:
    """A collection saved as a file is read, and its members are fetched, from a private network only if allowed."""
    site.pages = {"/m1": book(1)}
    path = tmp_path / "collection.json"
    path.write_text(json.dumps({"@type": "sc:Collection", "manifests": [{"@id": f"{site.url}/m1"}]}))
    assert refusals(read(path)) == [(f"{site.url}/m1", Reason.FORBIDDEN_ADDRESS)]
    assert numbers(read(path, SETTINGS.model_copy(update={"allow_networks": "127.0.0.0/8"}))) == [1]
    path.write_text("{")
    with pytest.raises(SourceError, match="not JSON"):
        read(path)


@pytest.mark.parametrize(
    ("document", "sort"),
    [
        ({"items": [{"type": "Canvas"}]}, "manifest"),
        ({"sequences": []}, "manifest"),
        ({"manifests": []}, "collection"),
        ({"items": [{"type": "Manifest", "id": "urn:x"}]}, "collection"),
    ],
)
def test_documents_without_type(tmp_path: Path, document: Json, sort: str) -> None:
    """Where the type is missing, the contents tell manifest and collection apart."""
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    reasons = {reason for _, reason in refusals(read(path))}
    assert reasons <= ({Reason.NO_IMAGE} if sort == "manifest" else {Reason.UNREADABLE_MANIFEST})


# ------------------------------------------------------------------------------------------------- going on, and in one


def notices(spec: object, position: Position | None = None) -> list[Notice]:
    return list(read_source(str(spec), SETTINGS, position))


def nested(site: Site) -> None:
    """A collection of six books in two pages, with another collection in it."""
    site.pages = {
        "/top": {
            "type": "Collection",
            "id": "SITE/top",
            "items": [{"id": "SITE/m1"}, {"id": "SITE/in"}, {"id": "SITE/no"}],
            "next": {"id": "SITE/p2"},
        },
        "/in": {
            "@type": "sc:Collection",
            "@id": "SITE/in",
            "manifests": [{"@id": "SITE/m2"}, {"@id": "SITE/m3"}],
        },
        "/p2": {"type": "Collection", "items": [{"id": "SITE/m4"}, book(5), {"id": "SITE/m6"}]},
        **{f"/m{number}": book(number) for number in (1, 2, 3, 4, 6)},
    }


def test_a_stopped_collection_goes_on(site: Site) -> None:
    """From each Checkpoint on, exactly what came after it is read, and no manifest before it is fetched again."""
    nested(site)
    everything = notices(f"{site.url}/top")
    assert numbers(everything) == [1, 2, 3, 4, 5, 6]
    stops = [number for number, each in enumerate(everything) if isinstance(each, Checkpoint)]
    assert len(stops) == 8  # of each manifest and refusal, and of the collection within
    for stop in stops:
        site.asked.clear()
        checkpoint = everything[stop]
        assert isinstance(checkpoint, Checkpoint)
        assert not checkpoint.lasting
        position = json.loads(json.dumps(checkpoint.position))
        assert notices(f"{site.url}/top", position) == everything[stop + 1 :]
        read_before = {f"/m{number}" for number in numbers(everything[:stop])}
        assert not read_before & set(site.asked)


def test_a_changed_collection_is_read_anew(site: Site) -> None:
    """Where another member is in the place of the position, or none, or it is of another source, all is read."""
    nested(site)
    everything = notices(f"{site.url}/top")
    positions = [each.position for each in everything if isinstance(each, Checkpoint)]
    site.pages["/in"]["manifests"].insert(0, {"@id": "SITE/m6"})
    assert numbers(notices(f"{site.url}/top", positions[1])) == [1, 6, 2, 3, 4, 5]
    site.pages["/top"]["items"] = [{"id": "SITE/m1"}]
    site.pages["/top"].pop("next")
    assert numbers(notices(f"{site.url}/top", positions[-1])) == [1]
    assert numbers(notices(f"{site.url}/in", positions[-1])) == [6, 2, 3]
    for junk in ({}, {"iiif": "x"}, {"discovery": "x", "endTime": 3}, {"snapshot": 3}):
        assert numbers(notices(f"{site.url}/top", junk)) == [1]


def test_each_manifest_is_read_once(site: Site) -> None:
    """A manifest that several collections hold is fetched once."""
    member = [{"id": "SITE/m1"}]
    inner = [{"id": f"SITE/c{number}", "type": "Collection", "items": member} for number in range(3)]
    site.pages = {"/top": {"type": "Collection", "items": inner}, "/m1": book(1)}
    assert numbers(read(f"{site.url}/top")) == [1]
    assert site.asked == ["/top", "/m1"]


def whole(site: Site, path: str) -> Document:
    with Web(SETTINGS, given=f"{site.url}{path}") as web:
        return read_document(web, f"{site.url}{path}")


def test_a_document_in_one(site: Site) -> None:
    """One manifest or a work of several volumes is read in full, and it is known whether every part came."""
    sound = {"id": "https://h.org/a.mp3", "type": "Sound"}
    volumes = [{"id": "SITE/m1"}, {"id": "SITE/m2"}]
    site.pages = {
        "/work": {"type": "Collection", "behavior": ["multi-part"], "items": volumes},
        "/torn": {"type": "Collection", "items": [*volumes, {"id": "SITE/m3"}]},
        "/bare": {"type": "Manifest", "items": []},
        "/odd": v3(picture("ftp://h.org/a.jpg")),
        "/m1": v3(picture("https://h.org/1.jpg"), sound),
        "/m2": v3(sound, items=[*v3(sound)["items"], *v3(picture("https://h.org/2.jpg"))["items"]]),
    }
    assert numbers(list(whole(site, "/work").images)) == [1, 2]
    assert whole(site, "/work").is_complete
    assert numbers(list(whole(site, "/torn").images)) == [1, 2]
    assert not whole(site, "/torn").is_complete
    assert not whole(site, "/bare").is_complete
    assert not whole(site, "/odd").is_complete
    with pytest.raises(AnswerError) as caught:
        whole(site, "/none")
    assert caught.value.status == 404


@pytest.mark.parametrize(("status", "breaks_off"), [(403, True), (503, True), (404, False)])
def test_an_outage_ends_the_source(site: Site, status: int, breaks_off: bool) -> None:
    """When the twentieth document in a row is refused or fails, the source breaks off and loses no more."""
    settings = SETTINGS.model_copy(update={"tries": 1})
    members = [{"id": f"SITE/x{number}"} for number in range(30)]
    site.pages = {f"/x{number}": (status, {}, b"") for number in range(30)}
    items = [*members[:19], {"id": "SITE/m1"}, *members[19:], {"id": "SITE/m2"}]
    site.pages |= {"/top": {"type": "Collection", "items": items}, "/m1": book(1), "/m2": book(2)}
    assert numbers(list(open_source(f"{site.url}/top", settings))) == [1, 2]
    site.pages["/m1"] = (status, {}, b"")
    if not breaks_off:
        assert numbers(list(open_source(f"{site.url}/top", settings))) == [2]
        return
    with pytest.raises(OutageError, match="20 documents in a row"):
        list(open_source(f"{site.url}/top", settings))
