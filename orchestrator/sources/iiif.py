"""Reads IIIF Presentation manifests and collections, nested and paged, from the web or a file.

It reads one document at a time and never stops for a bad one: inside a collection it is Refused, or awaited where its
host fails for the moment. A collection is never quietly shorter than it is: where a page of it cannot be had for the
moment, what is awaited is the collection, or the source ends with that error.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TypeGuard

from lookalike.errors import ForbiddenAddressError, SourceError
from lookalike.images import Announcement, AwaitedManifest, Checkpoint, Image, Notice, Position, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources.manifest import (
    EMPTY_MANIFEST,
    Described,
    Resource,
    as_list,
    identifier,
    images_of,
    kind,
    resources,
)
from orchestrator.sources.records import has_scheme, joined, manifest_fault, printable, without_secrets
from orchestrator.sources.web import (
    MAX_DOCUMENT,
    AnswerError,
    OutageError,
    PassingError,
    Web,
    fingerprint,
    parse_json,
)

_MAX_DEPTH = 20  # collections within collections
_MEMBERS = ("items", "members", "collections", "manifests")


@dataclass(frozen=True)
class Document:
    """What one manifest, or a collection with all that it holds, announces; `awaited`: some of it is still to come."""

    images: tuple[Image, ...]
    refused: tuple[Refused, ...]
    awaited: tuple[AwaitedManifest, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every part could be read: an image of the work that is not announced here is gone from it.

        Canvases without a still image are no fault; a manifest without any canvas is, and a collection of nothing.
        """
        return (
            bool(self.images or self.refused)
            and not self.awaited
            and all(each.reason is Reason.NO_IMAGE and each.detail != EMPTY_MANIFEST for each in self.refused)
        )


def read_url(url: str, settings: Settings, position: Position | None = None) -> Iterator[Notice]:
    """Yields the images of the manifest or collection at the address; see `read`."""
    with Web(settings, given=url) as web:
        yield from web.vouch(read(web, web.json(url), url, position))


def load_file(path: Path) -> object:
    """Returns the JSON document in a file, gzipped or not. Raises SourceError."""
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            text = (gzip.GzipFile(fileobj=file) if packed else file).read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be unpacked: {error}") from error
    if len(text) > MAX_DOCUMENT:
        raise SourceError(f"{path} is larger than {MAX_DOCUMENT >> 20} MiB")
    return parse_json(text, str(path))


def read(web: Web, document: object, address: str, position: Position | None = None) -> Iterator[Notice]:
    """Yields the images of a manifest or collection that was found at the address, in its order.

    Collections are followed wherever they lead, each once (so cycles end), 20 deep at most, page by page;
    what cannot be read there is a Refused, or an AwaitedManifest where asking again may help. Their members are
    fetched from the web. After each manifest of a collection comes a Checkpoint. From a position on, manifests
    that were read are not read again, unless the collection has changed before it. Raises SourceError when the
    document is neither manifest nor collection, and PassingError when a page of the collection could not be had
    for some minutes.
    """
    name = fingerprint(address)
    try:
        yield from Crawl(web, name, _path_in(position, name)).read(document, address)
    except _ChangedError:
        yield from Crawl(web, name).read(document, address)


def read_document(web: Web, address: str, described: Described | None = None) -> Document:
    """Reads one manifest, or a collection such as a work of several volumes, to its end.

    Raises SourceError when the address gives neither: an AnswerError, which knows the status, when the host
    answered, PassingError when asking again may help.
    """
    found = list(Crawl(web).read(web.json(address), address, described=described))
    return Document(
        tuple(each for each in found if isinstance(each, Image)),
        tuple(each for each in found if isinstance(each, Refused)),
        tuple(each for each in found if isinstance(each, AwaitedManifest)),
    )


def awaited(
    web: Web, address: str, error: PassingError, described: Described | None = None
) -> AwaitedManifest | Refused:
    """Returns what is to be read later, since its host fails for the moment; a Refused where its address cannot be
    kept: one such member must not end a collection."""
    if fault := manifest_fault(address):
        return Refused(
            printable(without_secrets(address)), Reason.BAD_ADDRESS, f"{fault}; {printable(str(error))}"
        )
    said = {name: value for name, value in asdict(described).items() if value} if described else {}
    as_of = said.pop("as_of", None)
    return AwaitedManifest(
        address,
        address,
        None,
        as_of,
        outside=not web.is_own(address),
        whole=False,
        described=said,
        detail=printable(str(error)),
    )


class _ChangedError(Exception):
    """The collection is not what it was when the position was taken."""


@dataclass
class _Step:
    """A member of a collection on the way to a position: its number, and its id, shortened."""

    number: int
    member: str


@dataclass
class Crawl:
    """A walk through trees of collections.

    With a name it yields Checkpoints; `resume` leads to the member that was read last. What was read is
    remembered by its hash, in some 65 bytes for each manifest.
    """

    web: Web
    name: str | None = None
    resume: list[_Step] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)
    _way: list[_Step] = field(default_factory=list)

    def read(
        self, document: object, address: str, described: Described | None = None
    ) -> Iterator[Announcement | AwaitedManifest | Checkpoint]:
        """Yields the images of a document. Raises SourceError when it is neither manifest nor collection, PassingError
        when a page of it cannot be had for the moment.
        """
        if not isinstance(document, dict) or (sort := _sort(document)) is None:
            raise SourceError(
                f"{without_secrets(address)} is neither a IIIF manifest nor a collection; give one"
            )
        if sort == "manifest":
            yield from images_of(document, address, described)
        elif len(self._way) >= _MAX_DEPTH:
            raise SourceError(f"{without_secrets(address)} lies more than {_MAX_DEPTH} collections deep")
        else:
            yield from self._collection(document, address, described)

    def follow(
        self, address: str, described: Described | None = None
    ) -> Iterator[Announcement | AwaitedManifest | Checkpoint]:
        """Yields the images of what is at the address, unless it was read before; a Refused when it is unreadable, an
        AwaitedManifest when it, or a page of it, cannot be had for the moment.
        """
        if hash(address) in self._seen:
            return
        self._seen.add(hash(address))
        depth = len(self._way)
        try:
            yield from self.read(self._load(address), address, described)
        except PassingError as error:
            # The whole of it is read later: no position within it counts.
            del self._way[depth:]
            self.resume = []
            yield awaited(self.web, address, error, described)
        except SourceError as error:
            yield refused(address, error)

    def _collection(
        self, document: Resource, address: str, described: Described | None
    ) -> Iterator[Announcement | AwaitedManifest | Checkpoint]:
        """Yields the images of a collection: its own members, then those of its pages."""
        self._seen.update({hash(address), hash(identifier(document))})
        for number, (member, base) in enumerate(self._members(document, address)):
            if isinstance(member, Refused):
                yield member
                continue
            step = _Step(number, fingerprint(identifier(member)))
            if self._is_done(step):
                continue
            self._way.append(step)
            yield from self._member(member, _resolved(base, member), address, described)
            if self.name and not self.resume:
                yield self._checkpoint()
            self._way.pop()
        if len(self.resume) > len(self._way):
            raise _ChangedError

    def _is_done(self, step: _Step) -> bool:
        """Whether the member lies before the position. Raises _ChangedError where another one is in its place."""
        depth = len(self._way)
        if depth >= len(self.resume):
            return False
        if step.number < self.resume[depth].number:
            return True
        if step != self.resume[depth]:
            raise _ChangedError
        if depth < len(self.resume) - 1:
            return False
        self.resume = []
        return True

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint({"iiif": self.name, "path": [[step.number, step.member] for step in self._way]})

    def _members(self, document: Resource, address: str) -> Iterator[tuple[object, str]]:
        """Yields the members of a collection and of its pages, each with the address of what names it, and a Refused
        for a page that cannot be read.

        Raises PassingError when the host of a page fails for longer than a document is worth.
        """
        base = address if _is_http(address) else identifier(document)
        pages = {address, base, _resolved(base, document)}
        while True:
            listed: set[str] = set()  # version 2 may name a member twice, in `members` and in `manifests`
            for name in _MEMBERS:
                for member in as_list(document.get(name)):
                    if not (identifier(member) and identifier(member) in listed):
                        yield member, base
                    listed.add(identifier(member))
            links = filter(None, (document.get("first"), document.get("next")))
            found = [(page, _resolved(base, page)) for page in links]
            following, at = next(((page, at) for page, at in found if at not in pages), (None, ""))
            if following is None:
                return
            pages.add(at)
            base = at or base
            try:
                document = following if _is_embedded(following) else self._load(at, is_page=True)
            except PassingError:
                raise
            except SourceError as error:
                yield refused(at, error), base
                return

    def _member(
        self, member: object, address: str, parent: str, described: Described | None
    ) -> Iterator[Announcement | AwaitedManifest | Checkpoint]:
        if isinstance(member, dict) and _is_embedded(member):
            try:
                yield from self.read(member, address or parent, described)
            except PassingError:
                raise  # a page of it: whoever holds it is read later, as it may not have an address of its own
            except SourceError as error:
                yield refused(address or parent, error)
        elif address:
            yield from self.follow(address, described)
        else:
            yield Refused(
                printable(parent), Reason.UNREADABLE_MANIFEST, "a member of the collection has no id"
            )

    def _load(self, address: str, *, is_page: bool = False) -> Resource:
        if not _is_http(address):
            raise SourceError("only http and https addresses are followed")
        document = self.web.json(address, patiently=is_page)
        if not isinstance(document, dict):
            raise SourceError("it is not a JSON object")
        return document


def refused(address: str, error: SourceError) -> Refused:
    """Returns the refusal of a document that could not be read. Raises an OutageError again, which is of none."""
    if isinstance(error, OutageError):
        raise error
    gone = isinstance(error, AnswerError) and error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
    reason = Reason.NOT_FOUND if gone else Reason.UNREADABLE_MANIFEST
    if isinstance(error, ForbiddenAddressError):
        reason = Reason.FORBIDDEN_ADDRESS
    return Refused(without_secrets(address), reason, printable(str(error)))


def _is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _resolved(base: str, resource: object) -> str:
    """Returns the address of what a document at `base` names, which may be relative to it (RFC 3986); "" for none.

    Where it leads is looked at by the guard when it is opened, as with any address from outside.
    """
    named = identifier(resource)
    return joined(base, named) if named and _is_http(base) and not has_scheme(named) else named


def _path_in(position: Position | None, name: str) -> list[_Step]:
    if position is None or position.get("iiif") != name:
        return []
    path = position.get("path")
    return [_Step(number, member) for number, member in path] if isinstance(path, list) else []


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
