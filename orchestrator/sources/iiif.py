"""Reads IIIF Presentation manifests and collections, nested and paged, from the web or a file.

It reads one document at a time and never stops for a bad one: inside a collection it is Refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from lookalike.errors import ForbiddenAddressError, SourceError
from lookalike.images import Announcement, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources.manifest import Resource, as_list, identifier, images_of, kind, resources
from orchestrator.sources.records import printable, without_secrets
from orchestrator.sources.web import MAX_DOCUMENT, Web, parse_json

_MAX_DEPTH = 20  # collections within collections
_MEMBERS = ("items", "members", "collections", "manifests")


def read_url(url: str, settings: Settings) -> Iterator[Announcement]:
    """Yields the images of the manifest or collection at the address, in its order.

    Collections are followed wherever they lead, each once (so cycles end), 20 deep at most, page by page.
    Raises SourceError when the address gives no manifest or collection; inside a collection that is a
    Refused.
    """
    web = Web(settings, given=url)
    try:
        yield from web.vouch(_Crawl(web).read(web.json(url), url))
    finally:
        web.close()


def read_file(path: Path, settings: Settings) -> Iterator[Announcement]:
    """Yields the images of a manifest or collection in a file; its members are fetched from the web."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > MAX_DOCUMENT:
        raise SourceError(f"{path} is larger than {MAX_DOCUMENT >> 20} MiB")
    web = Web(settings)
    try:
        yield from _Crawl(web).read(parse_json(text, str(path)), str(path))
    finally:
        web.close()


@dataclass
class _Crawl:
    """A walk through a tree of collections; `seen` holds the addresses of those read, and of pages."""

    web: Web
    seen: set[str] = field(default_factory=set)

    def read(self, document: object, address: str, depth: int = 0) -> Iterator[Announcement]:
        """Yields the images of a document. Raises SourceError when it is neither manifest nor collection."""
        if not isinstance(document, dict) or (sort := _sort(document)) is None:
            raise SourceError(
                f"{without_secrets(address)} is neither a IIIF manifest nor a collection; give one"
            )
        if sort == "manifest":
            yield from images_of(document, address)
        elif depth >= _MAX_DEPTH:
            raise SourceError(f"{without_secrets(address)} lies more than {_MAX_DEPTH} collections deep")
        else:
            yield from self._collection(document, address, depth)

    def _collection(self, document: Resource, address: str, depth: int) -> Iterator[Announcement]:
        """Yields the images of a collection: its own members, then those of its pages."""
        self.seen.update({address, identifier(document)} - {""})
        while True:
            listed: set[str] = set()  # version 2 may name a member twice, in `members` and in `manifests`
            for name in _MEMBERS:
                for member in as_list(document.get(name)):
                    if not (identifier(member) and identifier(member) in listed):
                        yield from self._member(member, address, depth)
                    listed.add(identifier(member))
            pages = filter(None, (document.get("first"), document.get("next")))
            following = next((page for page in pages if identifier(page) not in self.seen), None)
            if following is None:
                return
            address = identifier(following)
            self.seen.update({address} - {""})
            try:
                document = following if _is_embedded(following) else self._load(address)
            except SourceError as error:
                yield _refused(address, error)
                return

    def _member(self, member: object, parent: str, depth: int) -> Iterator[Announcement]:
        address = identifier(member)
        try:
            if isinstance(member, dict) and _is_embedded(member):
                yield from self.read(member, address or parent, depth + 1)
            elif not address:
                yield Refused(
                    printable(parent), Reason.UNREADABLE_MANIFEST, "a member of the collection has no id"
                )
            elif address not in self.seen:
                yield from self.read(self._load(address), address, depth + 1)
        except SourceError as error:
            yield _refused(address or parent, error)

    def _load(self, address: str) -> Resource:
        if not address.lower().startswith(("http://", "https://")):
            raise SourceError("only http and https addresses are followed")
        document = self.web.json(address)
        if not isinstance(document, dict):
            raise SourceError("it is not a JSON object")
        return document


def _sort(document: Resource) -> str | None:
    """Says by type, or else by contents, whether the document is a manifest or a collection."""
    if kind(document) in ("manifest", "collection"):
        return kind(document)
    if kind(document) in ("collectionpage", "page"):
        return "collection"
    if kind(document):
        return None
    items = resources(document.get("items"))
    if "sequences" in document or any(kind(item) == "canvas" for item in items):
        return "manifest"
    if any(name in document for name in ("members", "collections", "manifests", "first")):
        return "collection"
    return "collection" if any(kind(item) in ("manifest", "collection") for item in items) else None


def _is_embedded(document: object) -> TypeGuard[Resource]:
    """A member or page may stand in its collection as a whole rather than by its address."""
    return isinstance(document, dict) and any(document.get(name) for name in (*_MEMBERS, "sequences"))


def _refused(address: str, error: SourceError) -> Refused:
    forbidden = isinstance(error, ForbiddenAddressError)
    reason = Reason.FORBIDDEN_ADDRESS if forbidden else Reason.UNREADABLE_MANIFEST
    return Refused(without_secrets(address), reason, printable(str(error)))
