"""Everything that announces images: folders, tables, S3 prefixes, IIIF manifests and collections.

Sources only read and only look at names and records: they never open an image, and never touch the ledger.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from lookalike.errors import SourceError
from lookalike.images import Announcement, Image, Notice, Position, Refused
from lookalike.settings import Settings
from orchestrator.sources import folder, iiif, s3, tables
from orchestrator.sources.records import absolute_path, has_image_suffix, printable, without_secrets
from orchestrator.sources.web import Web

__all__ = ["STANDARD_INPUT", "open_source", "read_source", "source_name"]

STANDARD_INPUT = "-"

_TABLE = re.compile(r".*\.(?:csv|(jsonl|ndjson))(?:\.gz)?", re.IGNORECASE | re.DOTALL)


def open_source(spec: str, settings: Settings) -> Iterator[Announcement]:
    """Yields what a source announces, from its beginning: images, and Refused for what is none; see `read_source`."""
    for notice in read_source(spec, settings):
        if isinstance(notice, Image | Refused):
            yield notice


def read_source(spec: str, settings: Settings, position: Position | None = None) -> Iterator[Notice]:
    """Yields what a source announces, from a position on (None: its beginning), and how far it has got.

    The spec says which source it is. A position that is not of this source, or of another state of it, is ignored.

    | spec | source |
    |---|---|
    | a folder | the image files below it, sorted |
    | an image file | this one |
    | `*.csv`, `*.jsonl`, `*.ndjson`, each with `.gz` or not, file or URL | a table, see `tables.read_table` |
    | `-` | a table on standard input, CSV or JSON lines, gzipped or not, by its first bytes |
    | `*.json`, any other `http(s)://` URL | a IIIF manifest or collection, version 2 or 3 |
    | `s3://bucket/prefix` | the objects below the prefix whose names end as images do |

    It streams: memory does not grow with the source. Raises SourceError, at the first announcement, when the
    source as a whole cannot be read, and later on when it breaks off; its message says what to do.
    """
    if spec == STANDARD_INPUT:
        yield from tables.read_table(sys.stdin.buffer, "standard input", Path.cwd())  # type: ignore[arg-type]
    elif spec.startswith("s3://"):
        yield from s3.list_prefix(spec, settings)
    elif re.match(r"https?://", spec, re.IGNORECASE):
        yield from _from_web(spec, settings, position)
    else:
        yield from _from_path(spec, settings, position)


def source_name(spec: str) -> str:
    """What the images of a source are filed under: its spec, without passwords and tokens."""
    if spec == STANDARD_INPUT:
        return "standard input"
    return without_secrets(spec) if re.match(r"https?://", spec, re.IGNORECASE) else printable(spec)


def _from_web(url: str, settings: Settings, position: Position | None) -> Iterator[Notice]:  # noqa: ARG001
    try:
        table = _TABLE.fullmatch(urlsplit(url).path)
    except ValueError as error:
        raise SourceError(f"{printable(url)} is not an address: {error}") from None
    if table is None:
        yield from iiif.read_url(url, settings)
        return
    web = Web(settings, given=url)
    try:
        with web.stream(url) as stream:
            rows = tables.read_table(stream, without_secrets(url), url, json_lines=bool(table[1]))
            yield from web.vouch(rows)
    finally:
        web.close()


def _from_path(spec: str, settings: Settings, position: Position | None) -> Iterator[Notice]:
    path = absolute_path(Path(spec))
    table = _TABLE.fullmatch(path.name)
    try:
        if not path.exists():
            raise SourceError(f"{printable(spec)}: there is no such file or folder")
    except OSError as error:
        raise SourceError(f"{printable(spec)} cannot be read: {error.strerror}") from error
    if path.is_dir():
        yield from folder.read_folder(path, position)
    elif table:
        yield from _from_table(path, bool(table[1]), position)
    elif path.suffix.lower() == ".json":
        yield from iiif.read_file(path, settings)
    elif has_image_suffix(path.name):
        yield folder.read_file(path, path.parent)
    else:
        raise SourceError(
            f"{printable(spec)} is no source: give a folder, an image, *.csv, *.jsonl (or .gz of these), "
            "- for standard input, a IIIF manifest (*.json or a URL), or s3://bucket/prefix"
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
