"""The images of an S3 Inventory: tens of millions of objects from a few files of rows. No object is opened.

Nothing of a data file is announced before its checksum was compared; files that were read are not read again.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from lookalike.errors import SourceError
from lookalike.images import Checkpoint, Notice, Position, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources.inventory_rows import Batch, Row, csv_batches, parquet_batches
from orchestrator.sources.objects import Objects
from orchestrator.sources.records import printable

Fetch = Callable[[str, str], AbstractContextManager[io.BufferedIOBase]]
"""Opens a data file by bucket and key, for the time of a block."""


class _DataFile(BaseModel):
    key: str
    md5: str | None = Field(None, alias="MD5checksum")


class _Manifest(BaseModel):
    """What counts of the manifest that S3 writes beside an inventory."""

    source_bucket: str = Field(alias="sourceBucket", min_length=1)
    destination_bucket: str = Field(alias="destinationBucket")
    creation_timestamp: int | None = Field(None, alias="creationTimestamp")  # milliseconds, written as text
    format: Literal["CSV", "Parquet", "ORC"] = Field(alias="fileFormat")
    columns: str = Field("", alias="fileSchema")
    files: list[_DataFile]

    @property
    def identity(self) -> str:
        """Differs between two inventories: the same files have the same checksums."""
        text = "\n".join(f"{file.key} {file.md5}" for file in self.files)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def seen(self) -> str | None:
        """When S3 began to look, as ISO time: of objects of which the rows do not say when they were changed."""
        if self.creation_timestamp is None:
            return None
        return datetime.fromtimestamp(self.creation_timestamp / 1000, UTC).isoformat()


def is_manifest(document: object) -> bool:
    """Says whether a JSON document is the manifest of an S3 Inventory, and not one of IIIF or anything else."""
    return isinstance(document, dict) and {"sourceBucket", "fileFormat", "files"} <= document.keys()


def read_file(
    path: Path, document: object, settings: Settings, position: Position | None
) -> Iterator[Notice]:
    """Yields the images of an inventory whose manifest is a file; see `read`.

    The data files lie below the manifest's folder, by their full keys or any end of these, as copies of a
    bucket do.
    """

    @contextmanager
    def fetch(_: str, key: str) -> Iterator[io.BufferedIOBase]:
        parts = [part for part in key.split("/") if part not in ("", ".", "..")]
        candidates = [path.parent.joinpath(*parts[start:]) for start in range(len(parts))]
        # S3 puts the manifest into a folder beside `data`.
        candidates.append(path.parent.parent.joinpath(*parts[-2:]))
        found = next((each for each in candidates if each.is_file()), None)
        if found is None:
            raise SourceError(
                f"{path}: the data file {printable(key)} is missing; put it below {path.parent}"
            )
        with found.open("rb") as file:
            yield file

    yield from read(document, str(path), fetch, Objects(settings), position)


def read(
    document: object, name: str, fetch: Fetch, objects: Objects, position: Position | None
) -> Iterator[Notice]:
    """Yields the objects of an inventory that are images, in its order; see Objects.

    Of a bucket with versions only the latest count, and those that are not deleted. CSV and Parquet are read.
    Memory holds some thousand rows; behind each such batch is a Checkpoint. A row that cannot be understood
    is one Refused. Raises SourceError for a manifest or data file that cannot be.
    """
    try:
        manifest = _Manifest.model_validate(document)
    except ValidationError as error:
        faults = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise SourceError(f"{name} is a broken manifest of an S3 Inventory: look at {faults}") from None
    if manifest.format == "ORC":
        raise SourceError(
            f"{name} is an inventory in ORC; set it to Parquet or CSV in S3 and wait for the next"
        )
    identity, first, row = manifest.identity, 0, 0
    if position and position.get("inventory") == identity:
        first, row = int(str(position["file"])), int(str(position["row"]))
    bucket = manifest.destination_bucket.rpartition(":")[2]
    for number in range(first, len(manifest.files)):
        data = manifest.files[number]
        with fetch(bucket, data.key) as file:
            _compare(file, data, name)
            for batch in _batches(manifest, file, data.key, row):
                yield from _announcements(batch, manifest, objects)
                yield Checkpoint({"inventory": identity, "file": number, "row": batch.end})
        yield Checkpoint({"inventory": identity, "file": number + 1, "row": 0})
        row = 0


def _batches(manifest: _Manifest, file: io.BufferedIOBase, key: str, row: int) -> Iterator[Batch]:
    if manifest.format == "Parquet":
        return parquet_batches(file, key, row)
    return csv_batches(file, key, manifest.columns, row)


def _announcements(batch: Batch, manifest: _Manifest, objects: Objects) -> Iterator[Notice]:
    seen, bucket = manifest.seen, manifest.source_bucket
    for row in batch.rows:
        if not isinstance(row, Row):
            yield Refused(row[0], Reason.BAD_RECORD, row[1])
        elif row.counts and objects.is_image(row.key):
            yield objects.announce(bucket, row.key, row.size, row.etag, row.modified or seen)


def _compare(file: io.BufferedIOBase, data: _DataFile, name: str) -> None:
    if data.md5 is None:
        return
    digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    file.seek(0)
    if digest.hexdigest() != data.md5.lower():
        raise SourceError(
            f"{name}: the data file {printable(data.key)} has another MD5 checksum than the manifest says; "
            "it is damaged or was replaced: fetch both again"
        )
