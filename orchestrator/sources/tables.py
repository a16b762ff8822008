"""Tables of images: CSV and JSON lines, read line by line, so that memory does not grow with their length.

A damaged line is one Refused with its number and never stops the rest.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import urljoin

from urllib3.exceptions import HTTPError

from lookalike.errors import SourceError
from lookalike.images import Announcement, Checkpoint, Position, Refused
from lookalike.reasons import Reason
from orchestrator.sources.records import (
    absolute_path,
    announce,
    file_url,
    has_scheme,
    key_of_path,
    path_of_url,
    printable,
    service_base,
)

MAX_LINE = 2**20
"""Longest line in bytes. A longer one is refused unread: a file without line ends must not fill memory."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "key": ("key",),
    "url": ("url", "path"),
    "work": ("work",),
    "title": ("title",),
    "licence": ("licence", "license"),
    "access": ("access",),
    "credit": ("credit", "attribution"),
    "content": ("content", "etag", "checksum", "version"),
    "digitised": ("digitised", "digitized", "date"),
    "protocol": ("protocol",),
}
"""The names of each column, in any case; the first that has a value counts. Others are ignored."""

CHECKPOINT_ROWS = 256
"""A stopped read is gone on with behind the last so many rows that were committed."""

_NAMES = frozenset(name for names in COLUMNS.values() for name in names)

Row = Mapping[str, object]


class _LongLineError(ValueError):
    """The line is too long."""


class _Lines:
    """The lines of a stream, counted. What is not UTF-8 arrives as surrogates, by which it is refused."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self.number = 0  # of the line that was read last, from 1
        self.offset = 0  # bytes that were read, unpacked
        self._stream = stream

    def skip_to(self, number: int, offset: int) -> None:
        """Goes on behind the line of this number, which ends at this offset: plain files leap, gzipped ones unpack."""
        self._stream.seek(offset)
        self.number, self.offset = number, offset

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        self.offset += len(line)
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            while rest := self._stream.readline(MAX_LINE):
                self.offset += len(rest)
                if rest.endswith(b"\n"):
                    break
            raise _LongLineError(f"the line is longer than {MAX_LINE} bytes")
        return line.decode("utf-8", "surrogateescape")


def read_table(
    stream: io.BufferedReader,
    name: str,
    base: Path | str,
    *,
    json_lines: bool | None = None,
    identity: str | None = None,
    position: Position | None = None,
) -> Iterator[Announcement | Checkpoint]:
    """Yields the images of a table, CSV or JSON lines, gzipped or not.

    `json_lines` says which it is; None looks at the first character. With an `identity` of the file, which changes
    when the file does, it also yields a Checkpoint every 256 rows, and goes on from a `position` of the same identity.

    Columns: key, url (or path), work, title, licence, access, credit (attribution), content (etag,
    checksum, version), digitised (a date), protocol. A row needs an address: a URL (http, https, s3, file)
    or a path, relative to `base`, which is a folder, or the table's own URL, in which case files of this
    machine are refused. An address that ends in `/info.json`, or the protocol `iiif`, means a IIIF image
    service. Without a key, one is made: a file's by `key_of_path`, others by `key_of_url`. CSV is quoted
    strictly, because a stray quotation mark would otherwise swallow the lines after it in silence.

    `name` stands in messages. Raises SourceError when the table as a whole is unreadable or breaks off.
    """
    source: _Lines | None = None
    try:
        source = _Lines(_unpacked(stream))
        if (first := _first_line(source, name)) is None:
            return
        as_json = first.lstrip().startswith("{") if json_lines is None else json_lines
        resumed = identity is not None and position is not None and position.get("identity") == identity
        if resumed:
            assert position is not None
            source.skip_to(int(str(position["line"])), int(str(position["offset"])))
        rows = _json_rows(None if resumed else first, source) if as_json else _csv_rows(first, source, name)
        for count, (number, row) in enumerate(rows, 1):
            where = f"{name}, line {number}"
            yield (
                Refused(where, Reason.BAD_RECORD, row)
                if isinstance(row, str)
                else _announce(where, row, base)
            )
            if identity is not None and count % CHECKPOINT_ROWS == 0:
                yield Checkpoint({"identity": identity, "line": source.number, "offset": source.offset})
    except (OSError, EOFError, zlib.error, HTTPError) as error:
        line = source.number if source else 0
        detail = getattr(error, "strerror", None) or type(error).__name__
        raise SourceError(
            f"{name} breaks off after line {line} ({detail}); all lines before it were read"
        ) from error


def _unpacked(stream: io.BufferedReader) -> io.BufferedReader:
    if stream.peek(2)[:2] != b"\x1f\x8b":
        return stream
    return io.BufferedReader(gzip.GzipFile(fileobj=stream), 2**16)


def _first_line(lines: _Lines, name: str) -> str | None:
    try:
        for line in lines:
            text = line.removeprefix("\ufeff") if lines.number == 1 else line
            if lines.number == 1 and text.encode("utf-8", "surrogateescape")[:2] in (
                b"\xff\xfe",
                b"\xfe\xff",
            ):
                raise SourceError(f"{name} is UTF-16; save it as UTF-8")
            if text.strip():
                return text
    except _LongLineError:
        raise SourceError(
            f"{name} is not a table of lines: its first one is longer than {MAX_LINE} bytes"
        ) from None
    return None


def _json_rows(first: str | None, lines: _Lines) -> Iterator[tuple[int, Row | str]]:
    """Reads the first line, if there is one, and all that follow."""
    text: str | None = first or ""
    while text is not None:
        if text.strip():
            yield lines.number, _parsed(text)
        while True:
            try:
                text = next(lines, None)
                break
            except _LongLineError as error:
                yield lines.number, str(error)


def _parsed(text: str) -> Row | str:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {printable(str(error))}"
    if not isinstance(row, dict):
        return "not a JSON object"
    return row


def _csv_rows(first: str, lines: _Lines, name: str) -> Iterator[tuple[int, Row | str]]:
    delimiter = max(",;\t", key=first.count)
    header = [column.strip().lower() for column in next(csv.reader([first], delimiter=delimiter), [])]
    if not {"url", "path"} & set(header):
        wanted = ", ".join(sorted(_NAMES))
        raise SourceError(
            f"{name}: the first line must name the columns, url or path among them (known: {wanted})"
        )
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = lines.number + 1
        try:
            cells = next(reader, None)
        except (csv.Error, _LongLineError) as error:
            last = f" (up to line {lines.number})" if lines.number > number else ""
            yield number, f"not CSV{last}: {error}"
            continue
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        right = len(cells) == len(header)
        yield number, dict(zip(header, cells, strict=True)) if right else _miscounted(cells, header)


def _miscounted(cells: list[str], header: list[str]) -> str:
    return f"{len(cells)} columns instead of {len(header)}"


def _announce(where: str, row: Row, base: Path | str) -> Announcement:
    value = dict.fromkeys(COLUMNS)
    for field, names in _present(tuple(row)):
        value[field] = _value(row, names)
        if field == "key" and isinstance(row[names[0]], bool | list | dict):
            return Refused(where, Reason.BAD_RECORD, "the key is not text")
    if not (address := value["url"]):
        return Refused(where, Reason.BAD_RECORD, "no url or path")
    protocol = (value["protocol"] or "").lower()
    if protocol not in ("", "file", "iiif"):
        return Refused(where, Reason.BAD_RECORD, "protocol is neither file nor iiif")
    if isinstance(base, str) and address.startswith("file://"):
        return Refused(where, Reason.BAD_ADDRESS, "a table from the web may not name files of this machine")
    service = protocol == "iiif" or (not protocol and address.rstrip("/").endswith("/info.json"))
    url, key = (service_base(address), None) if service else _located(address, base)
    return announce(
        where,
        url,
        key=value["key"] or key,
        protocol="iiif" if service else "file",
        work=value["work"],
        title=value["title"],
        licence=value["licence"],
        access=value["access"],
        credit=value["credit"],
        content=value["content"],
        digitised=value["digitised"],
        outside=isinstance(base, str),
    )


def _located(address: str, base: Path | str) -> tuple[str, str | None]:
    """Returns the absolute address, and the key of a file of this machine."""
    if isinstance(base, str):
        return (address if has_scheme(address) else urljoin(base, address)), None
    if has_scheme(address) and not address.startswith("file://"):
        return address, None
    path = absolute_path(base / (path_of_url(address) if has_scheme(address) else address))
    return file_url(path), key_of_path(path, base)


# Nearly all rows of a table have the same columns.
@lru_cache(maxsize=64)
def _present(columns: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns the fields that rows of these columns have, with the columns of each, the one that counts first."""
    spelled = {column.lower(): column for column in columns}
    found = (
        (field, tuple(spelled[name] for name in names if name in spelled)) for field, names in COLUMNS.items()
    )
    return tuple((field, names) for field, names in found if names)


def _value(row: Row, names: tuple[str, ...]) -> str | None:
    for name in names:
        value = row[name]
        text = value if isinstance(value, str) else _number(value)
        if text := text.strip():
            return text
    return None


def _number(value: object) -> str:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
