"""Everything that announces images: folders, tables, S3 prefixes and inventories, IIIF manifests and collections.

Sources only read and only look at names and records: they never open an image, and never touch the ledger.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from lookalike.errors import SourceError
from lookalike.images import Announcement, AwaitedManifest, Image, Notice, Position, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import (
    catalogue,
    catalogue_snapshot,
    discovery,
    folder,
    iiif,
    inventory,
    s3,
    tables,
)
from orchestrator.sources.discovery_stream import is_stream
from orchestrator.sources.records import (
    absolute_path,
    has_image_suffix,
    image_suffixes,
    printable,
    without_secrets,
)
from orchestrator.sources.web import Web, fingerprint
from orchestrator.sources.web_download import downloaded

__all__ = ["QUEUE_SCHEME", "STANDARD_INPUT", "open_source", "read_source", "source_name"]

STANDARD_INPUT = "-"
QUEUE_SCHEME = "sqs:"
"""A queue of events is no source with an end: see `orchestrator.events`."""

_TABLE = re.compile(r".*\.(?:csv|(jsonl|ndjson))(?:\.gz)?", re.IGNORECASE | re.DOTALL)
_JSON = re.compile(r".*\.(?:json|jsonl|ndjson)(\.gz)?", re.IGNORECASE | re.DOTALL)


def open_source(spec: str, settings: Settings) -> Iterator[Announcement]:
    """Yields what a source announces, from its beginning: images, and Refused for what is none; see `read_source`.

    Manifests that cannot be read for the moment are Refused as unreachable: nobody waits for them here.
    """
    for notice in read_source(spec, settings):
        if isinstance(notice, Image | Refused):
            yield notice
        elif isinstance(notice, AwaitedManifest):
            yield Refused(without_secrets(notice.address), Reason.UNREACHABLE, notice.detail)


def read_source(spec: str, settings: Settings, position: Position | None = None) -> Iterator[Notice]:
    """Yields what a source announces, from a position on (None: its beginning), and how far it has got.

    The spec says which source it is. A position that is not of this source, or of another state of it, is ignored.

    | spec | source |
    |---|---|
    | a folder | the image files below it, sorted |
    | an image file | this one |
    | `*.csv`, `*.jsonl`, `*.ndjson`, each with `.gz` or not, file or URL | a table, see `tables.read_table` |
    | `-` | a table on standard input, CSV or JSON lines, gzipped or not, by its first bytes |
    | URL of `/catalogue/v2/images` or `/works`, with a query, or of one of them | Wellcome's Catalogue API |
    | `*.json.gz`, `*.json`, `*.jsonl`, file or (`*.json.gz`) URL, by its content | a snapshot of that catalogue |
    | `*.json`, any other `http(s)://` URL | a IIIF manifest or collection, version 2 or 3 |
    | likewise, when it holds an `OrderedCollection` | a IIIF Change Discovery stream |
    | `s3://bucket/prefix` | the objects below the prefix whose names end as images do |
    | `s3://bucket/path/manifest.json` | the objects of an S3 Inventory (a local copy as well), or a IIIF manifest |

    It streams: memory does not grow with the source. Raises SourceError, at the first announcement, when the
    source as a whole cannot be read, and later on when it breaks off; its message says what to do.
    """
    if spec == STANDARD_INPUT:
        yield from tables.read_table(sys.stdin.buffer, "standard input", Path.cwd())  # type: ignore[arg-type]
    elif spec.startswith(QUEUE_SCHEME):
        raise SourceError(
            f"{printable(spec)} is a queue, which has no end: lookalike orchestrate {printable(spec)}"
        )
    elif spec.startswith("s3://"):
        yield from s3.read_address(spec, settings, position)
    elif re.match(r"https?://", spec, re.IGNORECASE):
        yield from _from_web(spec, settings, position)
    else:
        yield from _from_path(spec, settings, position)


def source_name(spec: str) -> str:
    """What the images of a source are filed under: its spec, without passwords and tokens.

    Addresses that differ in what is left out of their queries are different sources.
    """
    if spec == STANDARD_INPUT:
        return "standard input"
    if catalogue.is_catalogue(spec) and "@" not in spec:
        return printable(spec)  # its filters tell one query from another
    if re.match(r"https?://", spec, re.IGNORECASE) is None:
        return printable(spec)
    name = without_secrets(spec)
    return f"{name} ({fingerprint(spec)[:8]})" if "=..." in name else name


def _from_web(url: str, settings: Settings, position: Position | None) -> Iterator[Notice]:
    try:
        path = urlsplit(url).path
    except ValueError as error:
        raise SourceError(f"{printable(url)} is not an address: {error}") from None
    if table := _TABLE.fullmatch(path):
        yield from _from_web_table(url, bool(table[1]), settings, position)
    else:
        yield from _from_web_document(url, path, settings, position)


def _from_web_table(
    url: str, json_lines: bool, settings: Settings, position: Position | None
) -> Iterator[Notice]:
    """Downloads the table first: to register it takes longer than connections last."""
    wanted = position.get("identity") if position else None
    with (
        Web(settings, given=url) as web,
        downloaded(web, url, settings, wanted) as download,
        download.path.open("rb") as stream,
    ):
        rows = tables.read_table(
            stream,
            without_secrets(url),
            url,
            json_lines=json_lines,
            identity=download.version,
            position=position,
        )
        yield from web.vouch(rows)


def _from_web_document(
    url: str, path: str, settings: Settings, position: Position | None
) -> Iterator[Notice]:
    if catalogue.is_catalogue(url):
        yield from catalogue.read_catalogue(url, settings, position)
    elif path.lower().endswith(".json.gz"):
        yield from catalogue_snapshot.read_url(url, settings, position)
    else:
        with Web(settings, given=url) as web:
            yield from web.vouch(_from_document(web, web.json(url), url, position))


def _from_document(web: Web, document: object, address: str, position: Position | None) -> Iterator[Notice]:
    if is_stream(document):
        yield from discovery.read_stream(web, document, address, position)
    else:
        yield from iiif.read(web, document, address, position)


def _from_document_file(path: Path, settings: Settings, position: Position | None) -> Iterator[Notice]:
    document = iiif.load_file(path)
    if inventory.is_manifest(document):
        yield from inventory.read_file(path, document, settings, position)
        return
    with Web(settings) as web:
        yield from _from_document(web, document, str(path), position)


def _from_path(spec: str, settings: Settings, position: Position | None) -> Iterator[Notice]:
    path = absolute_path(Path(spec))
    table = _TABLE.fullmatch(path.name)
    try:
        if not path.exists():
            raise SourceError(f"{printable(spec)}: there is no such file or folder")
    except OSError as error:
        raise SourceError(f"{printable(spec)} cannot be read: {error.strerror}") from error
    if path.is_dir():
        yield from folder.read_folder(path, image_suffixes(settings), position)
    elif _JSON.fullmatch(path.name) and path.is_file() and catalogue_snapshot.is_snapshot(path):
        yield from catalogue_snapshot.read_file(path, settings, position)
    elif table:
        yield from _from_table(path, bool(table[1]), position)
    elif _JSON.fullmatch(path.name):
        yield from _from_document_file(path, settings, position)
    elif has_image_suffix(path.name):
        yield folder.read_file(path, path.parent)
    else:
        raise SourceError(
            f"{printable(spec)} is no source: give a folder, an image, *.csv, *.jsonl (or .gz of these), "
            "- for standard input, a IIIF manifest or a snapshot of a catalogue (*.json, *.json.gz or a URL), or "
            "s3://bucket/prefix"
        )


def _from_table(path: Path, json_lines: bool, position: Position | None) -> Iterator[Notice]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    with stream:
        status = os.fstat(stream.fileno())
        # Of a pipe there is no going on.
        identity = f"{path} {status.st_size} {status.st_mtime_ns}" if stream.seekable() else None
        yield from tables.read_table(
            stream,
            printable(path.name),
            path.parent,
            json_lines=json_lines,
            identity=identity,
            position=position,
        )
