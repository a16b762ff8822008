"""Finds the images in a IIIF Presentation manifest, version 1, 2 or 3, however irregular. It fetches nothing.

Our own walker, by evidence (November 2026, the cookbook's 153 manifests and the shapes in our tests): iiif-prezi3 3.1.1
reads the cookbook, but gives an empty manifest for version 2 without a word, and refuses a whole manifest for a missing
label, a licence that is no URI, or a service without a type or given as its id; piffle 0.9.0 cannot see version 3's
`id` and `items`, and interprets nothing; iiisight 0.6, which calls itself pre-alpha, reads both versions, but loses the
image behind a SpecificResource (six in the cookbook) and `dcTypes:Image`, and takes a login service for the image's.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lookalike.images import Announcement, Image, Refused
from lookalike.reasons import Reason
from orchestrator.sources.records import (
    announce,
    has_image_suffix,
    has_scheme,
    joined,
    plain,
    printable,
    service_base,
)

Resource = dict[str, object]
"""One JSON object of a manifest."""

_MAX_NESTING = 8  # choices within choices, services within services
_HINTS = ("@context", "profile", "conformsTo", "dcterms:conformsTo")
_ALTERNATIVES = frozenset({"choice", "composite", "list", "independents"})
_PICTURES = frozenset({"image", "stillimage"})
# What a canvas shows that is no still image, in words that can be counted.
_OTHERS = {
    "sound": "sound",
    "audio": "sound",
    "video": "video",
    "movingimage": "video",
    "text": "text",
    "textualbody": "text",
    "contentastext": "text",
    "dataset": "other",
    "model": "other",
    "canvas": "other",
}
_MEDIA = {"video/": "video", "audio/": "sound", "application/pdf": "pdf", "text/": "text"}

# Both versions allow a few tags in it.
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,500}>")

EMPTY_MANIFEST = "no canvases"
"""The detail of a refusal for a manifest without canvases."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a catalogue says of a manifest, for its images; what it leaves out, the manifest says.

    Only licence and credit are the manifest's own, where it has them: it is the closer of the two.
    """

    work: str | None = None
    title: str | None = None
    licence: str | None = None
    access: str | None = None
    as_of: str | None = None
    credit: str | None = None


def images_of(manifest: Resource, address: str, described: Described | None = None) -> Iterator[Announcement]:
    """Yields each image painted on the manifest's canvases once, and a Refused for a canvas without any.

    Thumbnails, ranges, comments, and placeholder and accompanying canvases are ignored. `address` is where
    the manifest was found: the work is its id or, without one, this address. An image's address is its
    service's base id as written (protocol "iiif"), or the file's when no IIIF service serves it; its key is
    `records.key_of_url`. The title is the labels of manifest, canvas and, among choices, image; licence and
    credit (requiredStatement, or attribution) those of the closest of them. The detail of a refused canvas
    is one of the words sound, video, pdf, text, other and nothing, that of a manifest without canvases
    EMPTY_MANIFEST.
    """
    described = described or Described()
    base = identifier(manifest) or address
    known: set[str] = set()
    number = 0
    for number, canvas in enumerate(_canvases(manifest), 1):
        where = identifier(canvas) or f"{base} canvas {number}"
        shown = [picture for body in _bodies(canvas) for picture in _pictures(body)]
        pictures = [picture for picture in shown if _is_picture(picture)]
        if not pictures:
            yield Refused(printable(where), Reason.NO_IMAGE, _medium(shown))
        for picture in pictures:
            found = _announce(where, picture, canvas, manifest, base, described)
            if isinstance(found, Refused) or found.url not in known:
                yield found
            if not isinstance(found, Refused):
                known.add(found.url)
    if not number:
        yield Refused(printable(base), Reason.NO_IMAGE, EMPTY_MANIFEST)


def identifier(resource: object) -> str:
    """Returns the `id` or `@id` of a resource, which may be given as its id alone; "" for none."""
    if isinstance(resource, str):
        return resource.strip()
    value = (resource.get("id") or resource.get("@id")) if isinstance(resource, dict) else None
    return value.strip() if isinstance(value, str) else ""


def kind(resource: Resource) -> str:
    """Returns the type in small letters, without namespace: `sc:Manifest` and `Manifest` give `manifest`."""
    value = resource.get("type") or resource.get("@type")
    value = next((each for each in as_list(value) if isinstance(each, str)), "")
    return value.replace("#", "/").replace(":", "/").rpartition("/")[2].strip().lower()


def as_list(value: object) -> list[object]:
    """Returns a list as it is, nothing as an empty one, one thing as a list of one: IIIF allows all forms."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def resources(value: object) -> list[Resource]:
    """Returns the JSON objects in a value that may be one, a list of them, or nothing."""
    return [each for each in as_list(value) if isinstance(each, dict)]


def label(resource: Resource) -> str:
    """Returns the label as one line: English, else without language, else the first; "" for none."""
    return _words(resource.get("label"))


def _words(value: object) -> str:
    """Returns a text of version 3 or 2 as one line, in the language that `label` says."""
    texts = _by_language(value)
    languages = [*(name for name in texts if name.split("-")[0] == "en"), "none", "@none", *texts]
    words = next((texts[name] for name in languages if texts.get(name)), [])
    return plain("; ".join(str(word) for word in words if isinstance(word, str | int) and word)) or ""


def _by_language(value: object) -> dict[str, list[object]]:
    """Reads a label of version 3 (`{"en": [...]}`) or 2 (text, `{"@value", "@language"}`, or a list of these)."""
    if isinstance(value, dict) and "@value" not in value:
        return {str(name): as_list(words) for name, words in value.items()}
    texts: dict[str, list[object]] = {}
    for each in as_list(value):
        language = str(each.get("@language") or "none") if isinstance(each, dict) else "none"
        texts.setdefault(language, []).append(each.get("@value") if isinstance(each, dict) else each)
    return texts


def _canvases(manifest: Resource) -> Iterator[Resource]:
    yield from (item for item in resources(manifest.get("items")) if kind(item) != "range")
    for sequence in resources(manifest.get("sequences")):
        yield from resources(sequence.get("canvases"))


def _bodies(canvas: Resource) -> list[object]:
    """Returns what is painted on the canvas: bodies of version 3, resources of version 2."""
    annotations = [
        annotation
        for page in resources(canvas.get("items"))
        for annotation in ([page] if "body" in page else resources(page.get("items")))
    ]
    annotations += resources(canvas.get("images"))
    return [
        body
        for annotation in annotations
        if _paints(annotation)
        for name in ("body", "resource")
        for body in as_list(annotation.get(name))
    ]


def _paints(annotation: Resource) -> bool:
    """A missing or empty motivation is painting: nothing else belongs where these annotations are."""
    motivations = [
        each for each in as_list(annotation.get("motivation")) if isinstance(each, str) and each.strip()
    ]
    return not motivations or any(each.strip().lower().endswith("painting") for each in motivations)


def _pictures(body: object, nesting: int = 0) -> Iterator[Resource]:
    """Yields what a body holds in the end, through choices and specific resources (parts of an image)."""
    if nesting > _MAX_NESTING:
        return
    if isinstance(body, str) and has_scheme(body):
        yield {"id": body}
    if not isinstance(body, dict):
        return
    parts: list[object] = []
    if kind(body) in _ALTERNATIVES:
        parts = [part for name in ("default", "items", "item") for part in as_list(body.get(name))]
    elif kind(body) == "specificresource" or not identifier(body):
        parts = [part for name in ("source", "full") for part in as_list(body.get(name))]
    if not parts:
        yield body
    for part in parts:
        yield from _pictures(part, nesting + 1)


def _is_picture(resource: Resource) -> bool:
    if kind(resource) in _OTHERS:
        return False
    if _image_service(resource):
        return True
    if _other_media(resource):
        return False
    path = identifier(resource).partition("?")[0]
    return kind(resource) in _PICTURES or _format(resource).startswith("image/") or has_image_suffix(path)


def _medium(shown: list[Resource]) -> str:
    """Says in one word what is shown where no still image is."""
    words = [_other_media(each) or _OTHERS.get(kind(each), "") for each in shown]
    return next(filter(None, words), "other" if any(map(identifier, shown)) else "nothing")


def _other_media(resource: Resource) -> str:
    """Returns what the media type says that is no still image; "" for nothing."""
    media = _format(resource)
    return next((word for start, word in _MEDIA.items() if media.startswith(start)), "")


def _format(resource: Resource) -> str:
    return str(resource.get("format") or "").lower()


def _image_service(picture: Resource) -> str:
    """Returns the id of the first IIIF image service, or "". Others (access, search) are passed over."""
    level, nesting = as_list(picture.get("service")), 0
    while level and nesting < _MAX_NESTING:
        for service in level:
            if identifier(service) and _serves(service, identifier(picture)):
                return identifier(service)
        level = [inner for service in resources(level) for inner in as_list(service.get("service"))]
        nesting += 1
    return ""


def _serves(service: object, picture: str) -> bool:
    """Version 3 names the type; others give themselves away by context or profile, or by their address."""
    if isinstance(service, dict):
        if kind(service).startswith("imageservice"):
            return True
        hints = [each for name in _HINTS for each in as_list(service.get(name)) if isinstance(each, str)]
        if any("/api/image/" in hint or "/image-api/" in hint or hint.startswith("level") for hint in hints):
            return True
    # A service of which nothing is known serves the picture when the picture's own address lies below it.
    return picture.startswith(service_base(identifier(service)) + "/")


def _announce(
    where: str, picture: Resource, canvas: Resource, manifest: Resource, base: str, described: Described
) -> Announcement:
    service = _image_service(picture)
    url = service_base(service) if service else identifier(picture)
    if not url:
        return Refused(printable(where), Reason.BAD_RECORD, "the image has no id")
    if not has_scheme(url):
        url = joined(base, url)
    if not url.lower().startswith(("http://", "https://")):
        # Manifests come from outside: they may not name files of this machine or objects of our buckets.
        return Refused(printable(where), Reason.BAD_ADDRESS, "an image of a manifest has a http(s) address")
    named = (described.title or label(manifest), label(canvas), label(picture))
    titles = [text for text in named if text.strip("-–—. ")]
    rights = next(filter(None, map(_rights, (picture, canvas, manifest))), described.licence)
    found = announce(
        where,
        url,
        protocol="iiif" if service else "file",
        work=described.work or base,
        title=" – ".join(dict.fromkeys(titles)),
        licence=rights,
        access=described.access,
        credit=next(filter(None, map(_credit, (picture, canvas, manifest))), described.credit),
    )
    return replace(found, as_of=described.as_of) if isinstance(found, Image) and described.as_of else found


def _credit(resource: Resource) -> str:
    """Returns what must be said where the picture is shown: version 3 labels it, 2 calls it attribution."""
    required = resource.get("requiredStatement")
    said = required.get("value") if isinstance(required, dict) else resource.get("attribution")
    return " ".join(html.unescape(_TAG.sub(" ", _words(said))).split())


def _rights(resource: Resource) -> str:
    values = [identifier(each) for name in ("rights", "license") for each in as_list(resource.get(name))]
    return next(filter(None, values), "")
