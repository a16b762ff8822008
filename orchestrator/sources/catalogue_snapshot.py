"""Reads snapshots of Wellcome's catalogue: JSON lines of works or images, gzipped or not, larger than memory.

A stopped read goes on at its line, as long as the file is the same; a changed file is read anew.
"""

import gzip
import io
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from lookalike.errors import SourceError
from lookalike.images import Checkpoint, Notice, Position, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import iiif
from orchestrator.sources.catalogue_filters import Filter
from orchestrator.sources.catalogue_records import is_record, read_record
from orchestrator.sources.iiif import Crawl
from orchestrator.sources.records import printable, without_secrets
from orchestrator.sources.web import Web, fingerprint
from orchestrator.sources.web_download import DamagedError, downloaded

MAX_RECORD = 16 * 2**20
"""Longest record in bytes; a longer one is refused. The works with thousands of parts reach some megabytes."""

_LOOKED_INTO = 100  # lines at the beginning of a file, by which it is known as a snapshot
_BROKEN = (OSError, EOFError, zlib.error)

log = logging.getLogger(__name__)


def is_snapshot(path: Path) -> bool:
    """Whether one of the first lines of a file is a record of the catalogue. Raises SourceError."""
    try:
        with _opened(path) as stream:
            lines = iter(lambda: stream.readline(MAX_RECORD), b"")
            return any(is_record(_parsed(line)) for line in islice(lines, _LOOKED_INTO))
    except _BROKEN as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def read_file(path: Path, settings: Settings, position: Position | None = None) -> Iterator[Notice]:
    """Yields the images of a snapshot in a file, from a position on, following the manifests of works."""
    status = path.stat()
    version = f"{status.st_size}-{status.st_mtime_ns}"
    with Web(settings) as web:
        reader = _Reader(path, printable(path.name), fingerprint(str(path)), version)
        yield from reader.read(Crawl(web), position, ())


def read_url(
    url: str,
    settings: Settings,
    position: Position | None = None,
    filters: Sequence[Filter] = (),
    name: str | None = None,
) -> Iterator[Notice]:
    """Yields the images of a snapshot on the web that pass the filters, or of a gzipped IIIF document.

    The file is downloaded first, and removed when it has been read. `name` stands in positions for the
    source that asks. Raises SourceError.
    """
    name = name or fingerprint(url)
    version = position.get("file") if position is not None and position.get("snapshot") == name else None
    with Web(settings, given=url) as web, downloaded(web, url, settings, version) as download:
        if is_snapshot(download.path):
            reader = _Reader(download.path, without_secrets(url), name, download.version)
            yield from web.vouch(reader.read(Crawl(web), position, filters))
        else:
            yield from web.vouch(iiif.read(web, iiif.load_file(download.path), url, position))


class _Reader:
    """A walk through one file; `where` names it for people, `name` and `version` in positions."""

    def __init__(self, path: Path, where: str, name: str, version: str) -> None:
        self._path = path
        self._where = where
        self._name = name
        self._version = version
        self._offset = 0  # of the unpacked stream, in bytes
        self._line = 0

    def read(self, crawl: Crawl, position: Position | None, filters: Sequence[Filter]) -> Iterator[Notice]:
        """Yields what the records announce, and a Checkpoint after each that announced something."""
        empty = 0
        try:
            with _opened(self._path) as stream:
                self._go_to(stream, position)
                for record in self._records(stream):
                    if isinstance(record, Refused):
                        yield record
                        continue
                    if not all(passes(record) for passes in filters):
                        continue
                    announced = False
                    for announced_one in read_record(record, crawl):
                        announced = True
                        yield announced_one
                    if announced:
                        yield self._checkpoint()
                    else:
                        empty += 1
        except _BROKEN as error:
            raise DamagedError(
                f"{self._where} breaks off after line {self._line} ({error}); all lines before it were read"
            ) from error
        log.info("%s: %d records have no digital images", self._where, empty)

    def _records(self, stream: io.BufferedIOBase) -> Iterator[dict[str, object] | Refused]:
        while line := stream.readline(MAX_RECORD):
            self._line += 1
            self._offset += len(line)
            where = f"{self._where}, line {self._line}"
            if len(line) == MAX_RECORD and not line.endswith(b"\n"):
                while (rest := stream.readline(MAX_RECORD)) and not rest.endswith(b"\n"):
                    self._offset += len(rest)
                self._offset += len(rest)
                yield Refused(where, Reason.BAD_RECORD, f"the record is longer than {MAX_RECORD} bytes")
            elif isinstance(record := _parsed(line), dict):
                yield record
            elif line.strip():
                yield Refused(where, Reason.BAD_RECORD, "not a JSON object")

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            {
                "snapshot": self._name,
                "file": self._version,
                "offset": self._offset,
                "line": self._line,
            }
        )

    def _go_to(self, stream: io.BufferedIOBase, position: Position | None) -> None:
        """Skips what was read, unpacking it but no more, when the position is of this file."""
        if position is None or (position.get("snapshot"), position.get("file")) != (
            self._name,
            self._version,
        ):
            return
        offset, line = position.get("offset"), position.get("line")
        if not isinstance(offset, int) or not isinstance(line, int):
            return
        while self._offset < offset:
            skipped = len(stream.read(min(offset - self._offset, 2**20)))
            if not skipped:
                raise EOFError("it is shorter than it was")
            self._offset += skipped
        self._line = line


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    with path.open("rb") as file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as unpacked, io.BufferedReader(unpacked, 2**17) as stream:
                yield stream
        else:
            yield file


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
