"""Makes announcements of records of Wellcome's catalogue: images, and works with the manifests of their items.

Nothing is registered that is not open to everybody; what is not is refused by its status of access.
"""

from collections.abc import Iterator

from lookalike.images import Announcement, AwaitedManifest, Checkpoint, Refused
from lookalike.reasons import Reason
from orchestrator.sources.iiif import Crawl
from orchestrator.sources.manifest import Described, Resource, resources
from orchestrator.sources.records import announce, plain, printable, service_base

_WORKS = frozenset({"Work", "Collection", "Series", "Section"})
_IMAGE = "iiif-image"
_MANIFEST = "iiif-presentation"


def is_record(value: object) -> bool:
    """Whether this is a record of the catalogue, and not a IIIF document or a row of a table."""
    if not isinstance(value, dict) or any(name in value for name in ("@context", "url", "path")):
        return False
    if _text(value, "type") == "Image":
        return "locations" in value or "source" in value
    return _text(value, "type") in _WORKS and "title" in value


def read_record(record: Resource, crawl: Crawl) -> Iterator[Announcement | AwaitedManifest]:
    """Yields the images of a record; the crawl follows its manifests, each once.

    Records of other kinds (works that were deleted or redirected), and works that are not digitised, have none.
    """
    if _text(record, "type") == "Image":
        notices = _image(record, crawl)
    elif _text(record, "type") in _WORKS:
        notices = _work(record, crawl)
    else:
        return
    for notice in notices:
        if not isinstance(notice, Checkpoint):
            yield notice


def _image(record: Resource, crawl: Crawl) -> Iterator[Announcement | AwaitedManifest | Checkpoint]:
    """Yields the image by its own service, or else its thumbnail's, or else all that its manifest shows."""
    where = f"image {record.get('id')}"
    source = record.get("source")
    work = source if isinstance(source, dict) else {}
    locations = resources(record.get("locations"))
    thumbnails = resources(record.get("thumbnail"))
    wanted = ((_IMAGE, locations), (_IMAGE, thumbnails), (_MANIFEST, locations))
    for sort, places in wanted:
        found = [each for each in places if _type_of(each) == sort]
        if found:
            # Several locations are ways to the same image: an open one will do.
            best = next((each for each in found if _closed(each) is None), found[0])
            yield from _location(best, where, work, crawl)
            return
    yield Refused(printable(where), Reason.NO_IMAGE, "nothing")


def _work(record: Resource, crawl: Crawl) -> Iterator[Announcement | AwaitedManifest | Checkpoint]:
    where = f"work {record.get('id')}"
    for item in resources(record.get("items")):
        for location in resources(item.get("locations")):
            if location.get("type") == "DigitalLocation" and _type_of(location) in (_IMAGE, _MANIFEST):
                yield from _location(location, where, record, crawl)


def _location(
    location: Resource, where: str, work: Resource, crawl: Crawl
) -> Iterator[Announcement | AwaitedManifest | Checkpoint]:
    closed = _closed(location)
    url = _text(location, "url")
    described = Described(
        work=_text(work, "id") or None,
        title=plain(_text(work, "title")),
        licence=_id_in(location, "license") or None,
        access=next(_statuses(location), None),
        credit=plain(_text(location, "credit")),
    )
    if closed is not None:
        yield Refused(printable(where), Reason.NOT_OPEN, printable(closed))
    elif not url:
        yield Refused(printable(where), Reason.BAD_RECORD, "a location has no url")
    elif _type_of(location) == _MANIFEST:
        # The catalogue names manifests of version 2, the same host has them in version 3.
        yield from crawl.follow(url.replace("/presentation/v2/", "/presentation/v3/", 1), described)
    else:
        yield announce(
            where,
            service_base(url),
            protocol="iiif",
            work=described.work,
            title=described.title,
            licence=described.licence,
            access=described.access,
            credit=described.credit,
        )


def _closed(location: Resource) -> str | None:
    """Returns the first status of access that is not open; None when there is none, and access is open."""
    return next((status for status in _statuses(location) if status != "open"), None)


def _statuses(location: Resource) -> Iterator[str]:
    for condition in resources(location.get("accessConditions")):
        if status := _id_in(condition, "status"):
            yield status


def _type_of(location: Resource) -> str:
    return _id_in(location, "locationType")


def _id_in(resource: Resource, name: str) -> str:
    inner = resource.get(name)
    return _text(inner, "id") if isinstance(inner, dict) else ""


def _text(resource: Resource, name: str) -> str:
    value = resource.get(name)
    return value.strip() if isinstance(value, str) else ""
