"""The rows of an inventory's data files, CSV or Parquet, in batches: memory does not grow with the file."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_plus

from lookalike.errors import SourceError
from orchestrator.sources.records import printable

if TYPE_CHECKING:
    import pyarrow

BATCH = 2000
_COLUMNS = ("key", "size", "etag", "lastmodifieddate", "islatest", "isdeletemarker")
# Seen from S3 in Parquet: some of these columns as text.
_FALSE, _TRUE = frozenset({False, "false"}), frozenset({True, "true"})


class Row(NamedTuple):
    """One object. `counts` is False of old versions and deletions; `modified` is an ISO time with its zone."""

    key: str
    size: int | None
    etag: str | None
    modified: str | None
    counts: bool


Fault = tuple[str, str]
"""A row that cannot be understood: where it is, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows; `end` is the number of rows of the file up to here, with which it is gone on."""

    rows: Sequence[Row | Fault]
    end: int


def csv_batches(file: io.BufferedIOBase, name: str, columns: str, start: int) -> Iterator[Batch]:
    """Yields the rows of a CSV file, gzipped or not, behind the first `start` lines.

    `columns` is the manifest's fileSchema. Keys are URL-encoded, spaces as plus signs. Raises SourceError
    when the file is damaged.
    """
    places = _places([column.strip() for column in columns.split(",")], name)
    count = len(columns.split(","))
    try:
        lines = _lines(file)
        for _ in islice(lines, start):
            pass
        number = start
        while chunk := list(islice(lines, BATCH)):
            rows: list[Row | Fault] = []
            for cells in csv.reader(chunk):
                number += 1
                right = len(cells) == count
                row = _csv_row([cells[place] if place >= 0 else "" for place in places]) if right else None
                rows.append(row or (f"{printable(name)}, line {number}", "not the columns of the manifest"))
            number = start = start + len(chunk)
            yield Batch(rows, number)
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise SourceError(f"{printable(name)} breaks off behind line {start}: {error}") from error


def _lines(file: io.BufferedIOBase) -> io.TextIOWrapper:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    stream = gzip.GzipFile(fileobj=file) if packed else file
    # Line ends stand nowhere within a row: keys are URL-encoded.
    return io.TextIOWrapper(io.BufferedReader(stream, 2**18), "utf-8", "surrogateescape")


def _csv_row(cells: list[str]) -> Row | None:
    key, size, etag, modified, latest, marker = cells
    if "%" in key or "+" in key:
        key = unquote_plus(key, errors="surrogateescape")
    counts = latest != "false" and marker != "true"
    try:
        if modified:
            datetime.fromisoformat(modified)
        return Row(key, int(size) if size else None, etag or None, modified or None, counts) if key else None
    except ValueError:
        return None


def parquet_batches(file: io.BufferedIOBase, name: str, start: int) -> Iterator[Batch]:
    """Yields the rows of a Parquet file behind the first `start`; row groups before these are not read.

    Raises SourceError when the file is damaged, or pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SourceError(
            "inventories in Parquet need pyarrow: pip install 'lookalike[inventory]', or set the inventory to CSV"
        ) from None
    try:
        opened = parquet.ParquetFile(file)
        found = opened.schema_arrow.names
        places = _places(found, name)
        wanted = [found[place] for place in places if place >= 0]
        end = 0
        for group in range(opened.num_row_groups):
            first, end = end, end + opened.metadata.row_group(group).num_rows
            if end <= start:
                continue
            for table in opened.iter_batches(BATCH, [group], wanted, use_threads=False):
                skipped, first = max(0, start - first), first + table.num_rows
                if first > start:
                    yield Batch(_parquet_rows(table.slice(skipped), found, places, name, first), first)
    except (pyarrow.ArrowException, OSError) as error:
        raise SourceError(
            f"{printable(name)} is no readable Parquet file: {printable(str(error))}"
        ) from error


def _parquet_rows(
    table: "pyarrow.RecordBatch", found: list[str], places: list[int], name: str, end: int
) -> list[Row | Fault]:
    nothing = [None] * table.num_rows
    columns = [_values(table.column(found[place])) if place >= 0 else nothing for place in places]
    begin = end - table.num_rows
    return [
        Row(key, size, etag, modified, latest not in _FALSE and marker not in _TRUE)
        if key
        else (f"{printable(name)}, row {begin + number}", "no key")
        for number, (key, size, etag, modified, latest, marker) in enumerate(zip(*columns, strict=True), 1)
    ]


def _values(column: "pyarrow.Array") -> list[Any]:
    """The values as Python's; times as ISO text in UTC, made by Arrow, because datetimes cost ten times as much."""
    import pyarrow
    from pyarrow import types

    if types.is_timestamp(column.type):
        texts = column.cast(pyarrow.timestamp("ms")).cast(pyarrow.string()).to_pylist()
        return [text and text + "Z" for text in texts]
    values: list[Any] = column.to_pylist()
    return values


def _places(columns: list[str], name: str) -> list[int]:
    """Where the columns that count stand, -1 for one that is missing; CSV and Parquet spell them differently."""
    spelled = [column.lower().replace("_", "") for column in columns]
    if "key" not in spelled:
        raise SourceError(f"{printable(name)}: the inventory has no column of keys")
    return [spelled.index(column) if column in spelled else -1 for column in _COLUMNS]
