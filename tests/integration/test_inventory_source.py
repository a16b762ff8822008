"""S3 inventories as sources: CSV and Parquet, in a bucket (moto) and as copies in folders, whole and damaged."""

import csv
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import boto3
import pyarrow
import pytest
from pyarrow import parquet

from lookalike.errors import SourceError
from lookalike.images import Checkpoint, Image, Notice, Position, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import inventory, inventory_rows, read_source
from tests.servers import ROOT, aws_server

SETTINGS = Settings(_env_file=None, tries=1, connect_timeout=2, fetch_timeout=10)
MODIFIED = "2026-02-03T04:05:06.000Z"
KEYS = ["a/one.jpg", 'a/ü +%20&?#=",.webp', "b//two.JP2", "c/notes.txt", "d/"]
SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
Files = dict[str, bytes]
# Reads an inventory within as much memory as it says, and prints how many images it held.
READING = """
import json, resource, sys
from pathlib import Path
from lookalike.images import Image
from lookalike.settings import Settings
from orchestrator.sources import inventory
path = Path(sys.argv[1])
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
notices = inventory.read_file(path, json.loads(path.read_text()), Settings(_env_file=None), None)
count = sum(isinstance(each, Image) for each in notices)
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def csv_file(keys: Sequence[str], *, packed: bool = True, **columns: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for number, key in enumerate(keys):
        row = {
            "latest": "true",
            "marker": "false",
            "size": "7",
            **{name: v[number] for name, v in columns.items()},
        }
        writer.writerow(
            [
                "src",
                quote_plus(key, safe="/"),
                "v",
                row["latest"],
                row["marker"],
                row["size"],
                MODIFIED,
                f"e{number}",
            ]
        )
    data = text.getvalue().encode()
    return gzip.compress(data) if packed else data


def parquet_file(keys: Sequence[str], group: int = 1000, **columns: Any) -> bytes:
    count = len(keys)
    moment = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    table = pyarrow.table(
        {
            "bucket": ["src"] * count,
            "key": keys,
            "version_id": ["v"] * count,
            "is_latest": columns.get("latest", [True] * count),
            "is_delete_marker": columns.get("marker", [False] * count),
            "size": pyarrow.array(columns.get("size", [7] * count), pyarrow.int64()),
            "last_modified_date": columns.get(
                "modified", pyarrow.array([moment] * count, pyarrow.timestamp("ms", tz="UTC"))
            ),
            "e_tag": [f"e{number}" for number in range(count)],
            "storage_class": ["STANDARD"] * count,
        }
    )
    sink = io.BytesIO()
    parquet.write_table(table, sink, row_group_size=group)
    return sink.getvalue()


def manifest(files: Files, file_format: str, **other: Any) -> dict[str, Any]:
    return {
        "sourceBucket": "src",
        "destinationBucket": "arn:aws:s3:::dst",
        "version": "2016-11-30",
        "creationTimestamp": "1769990400000",
        "fileFormat": file_format,
        "fileSchema": SCHEMA if file_format == "CSV" else "message s3.inventory {}",
        "files": [
            {
                "key": f"lists/src/daily/data/{name}",
                "size": len(data),
                "MD5checksum": hashlib.md5(data).hexdigest(),
            }
            for name, data in files.items()
        ],
        **other,
    }


def in_folder(folder: Path, files: Files, file_format: str, **other: Any) -> tuple[Path, dict[str, Any]]:
    """Lays an inventory out as S3 does: the manifest in a folder with a date, beside the folder of data."""
    (folder / "data").mkdir()
    (folder / "2026-02-02T01-00Z").mkdir()
    for name, data in files.items():
        (folder / "data" / name).write_bytes(data)
    path = folder / "2026-02-02T01-00Z" / "manifest.json"
    document = manifest(files, file_format, **other)
    path.write_text(json.dumps(document))
    return path, document


def read(path: Path, position: Position | None = None) -> list[Notice]:
    return list(inventory.read_file(path, json.loads(path.read_text()), SETTINGS, position))


def images(notices: Sequence[Notice]) -> list[Image]:
    return [each for each in notices if isinstance(each, Image)]


def expected(key: str, number: int, when: str = MODIFIED) -> Image:
    return Image(f"src/{key}", f"s3://src/{key}", content=f"e{number}", as_of=when)


MAKE = {"CSV": csv_file, "Parquet": parquet_file}
WHEN = {"CSV": MODIFIED, "Parquet": "2026-02-03 04:05:06.000Z"}
FORMATS = ["CSV", "Parquet"]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with aws_server() as environment:
        yield environment


@pytest.fixture
def aws(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("file_format", FORMATS)
def test_inventory_in_a_folder(tmp_path: Path, file_format: str) -> None:
    """A copy of an inventory announces its images with raw keys, ETags and times; other objects are passed over."""
    path, _ = in_folder(tmp_path, {"1": MAKE[file_format](KEYS)}, file_format)
    wanted = [expected(key, number, WHEN[file_format]) for number, key in enumerate(KEYS[:3])]
    assert images(read(path)) == wanted


@pytest.mark.parametrize("file_format", FORMATS)
def test_inventory_in_a_bucket(aws: None, file_format: str) -> None:
    """An inventory in S3 is told from a IIIF manifest by its content, and read from the bucket that it names."""
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="dst")
    files = {"1": MAKE[file_format](KEYS[:1]), "2": MAKE[file_format](KEYS[1:])}
    for name, data in files.items():
        client.put_object(Bucket="dst", Key=f"lists/src/daily/data/{name}", Body=data)
    document = json.dumps(manifest(files, file_format))
    client.put_object(Bucket="dst", Key="lists/src/daily/2026-02-02T01-00Z/manifest.json", Body=document)
    notices = list(read_source("s3://dst/lists/src/daily/2026-02-02T01-00Z/manifest.json", SETTINGS))
    assert [image.key for image in images(notices)] == [f"src/{key}" for key in KEYS[:3]]
    with pytest.raises(SourceError, match="there is no such object"):
        list(read_source("s3://dst/elsewhere/manifest.json", SETTINGS))
    client.delete_object(Bucket="dst", Key="lists/src/daily/data/2")
    with pytest.raises(SourceError, match=r"daily/data/2 cannot be read: there is no such object"):
        list(read_source("s3://dst/lists/src/daily/2026-02-02T01-00Z/manifest.json", SETTINGS))


def test_iiif_manifest_in_a_bucket(aws: None) -> None:
    """A IIIF manifest in S3 is read as one; a document that is neither says so."""
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="iiif")
    body = {"id": "https://h.org/1.jpg", "type": "Image"}
    painting = {"type": "Annotation", "motivation": "painting", "body": body}
    canvas = {
        "id": "https://h.org/c",
        "type": "Canvas",
        "items": [{"type": "AnnotationPage", "items": [painting]}],
    }
    document = {"id": "https://h.org/m", "type": "Manifest", "items": [canvas]}
    client.put_object(Bucket="iiif", Key="m.json", Body=json.dumps(document))
    client.put_object(Bucket="iiif", Key="x.json", Body=b"{}")
    assert [image.work for image in images(list(read_source("s3://iiif/m.json", SETTINGS)))] == [
        "https://h.org/m"
    ]
    with pytest.raises(SourceError, match="neither an S3 Inventory nor a IIIF manifest"):
        list(read_source("s3://iiif/x.json", SETTINGS))


@pytest.mark.parametrize("file_format", FORMATS)
def test_versions(tmp_path: Path, file_format: str) -> None:
    """Of a bucket with versions only those count that are the latest and no markers of deletion."""
    names = ["new.jpg", "old.jpg", "gone.jpg"]
    latest: list[Any] = [True, False, True]
    marker: list[Any] = [False, False, True]
    if file_format == "CSV":
        latest, marker = ([str(each).lower() for each in column] for column in (latest, marker))
    path, _ = in_folder(tmp_path, {"1": MAKE[file_format](names, latest=latest, marker=marker)}, file_format)
    assert [image.key for image in images(read(path))] == ["src/new.jpg"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_empty_objects_are_refused(tmp_path: Path, file_format: str) -> None:
    """An object of zero bytes is refused with its address."""
    path, _ = in_folder(tmp_path, {"1": MAKE[file_format](["a.jpg", "b.jpg"], size=[7, 0])}, file_format)
    (refused,) = [each for each in read(path) if isinstance(each, Refused)]
    assert (refused.where, refused.reason) == ("s3://src/b.jpg", Reason.EMPTY)


@pytest.mark.parametrize("file_format", FORMATS)
def test_stopped_inventory_goes_on(tmp_path: Path, file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any position on the rest is announced, without opening finished files; another inventory begins anew."""
    monkeypatch.setattr(inventory_rows, "BATCH", 7)
    options = {"group": 10} if file_format == "Parquet" else {}
    files = {str(n): MAKE[file_format]([f"{n}/{i:03}.jpg" for i in range(25)], **options) for n in range(3)}
    path, document = in_folder(tmp_path, files, file_format)
    notices = read(path)
    assert len(images(notices)) == 75
    places = [number for number, each in enumerate(notices) if isinstance(each, Checkpoint)]
    assert len(places) > 12
    for place in places:
        assert images(read(path, notices[place].position)) == images(notices[place:])
    behind_first = next(
        each.position for each in notices if isinstance(each, Checkpoint) and each.position["file"] == 1
    )
    (tmp_path / "data" / "0").unlink()
    assert len(images(read(path, behind_first))) == 50
    other = {**document, "files": document["files"][1:]}
    assert len(images(list(inventory.read_file(path, other, SETTINGS, behind_first)))) == 50


def test_rows_that_cannot_be_understood(tmp_path: Path) -> None:
    """Each damaged row of a CSV file is one refusal with its line, and its neighbours are announced."""
    good = csv_file(["a.jpg", "b.jpg"], packed=False).splitlines()
    lines = [good[0], b'"src","x"', good[1].replace(b'"7"', b'"seven"'), good[1].replace(MODIFIED.encode(), b"today"),
             good[0].replace(b"a.jpg", b"%00.jpg"), good[0].replace(b"a.jpg", b"%FF.jpg"), good[1]]  # fmt: skip
    path, _ = in_folder(tmp_path, {"1": b"\n".join(lines) + b"\n"}, "CSV")
    notices = read(path)
    assert [image.key for image in images(notices)] == ["src/a.jpg", "src/b.jpg"]
    refused = [each for each in notices if isinstance(each, Refused)]
    assert {each.reason for each in refused} == {Reason.BAD_RECORD}
    assert [each.where for each in refused[:3]] == [f"lists/src/daily/data/1, line {n}" for n in (2, 3, 4)]
    assert len(refused) == 5


def test_damaged_files(tmp_path: Path) -> None:
    """A file with another checksum, one that breaks off and one that is missing are named, with what to do."""
    whole = csv_file([f"{n}.jpg" for n in range(9000)])
    path, document = in_folder(tmp_path, {"1": whole}, "CSV")
    data = tmp_path / "data" / "1"
    data.write_bytes(whole[:-1] + b"x")
    with pytest.raises(SourceError, match="another MD5 checksum"):
        read(path)
    del document["files"][0]["MD5checksum"]
    data.write_bytes(whole[: len(whole) // 2])
    path.write_text(json.dumps(document))
    with pytest.raises(SourceError, match="data/1 breaks off behind line"):
        read(path)
    path.write_text(json.dumps({**document, "fileFormat": "Parquet"}))
    with pytest.raises(SourceError, match="no readable Parquet file"):
        read(path)
    data.unlink()
    with pytest.raises(SourceError, match=r"data/1 is missing; put it below"):
        read(path)


def test_manifests_that_cannot_be_read(tmp_path: Path) -> None:
    """ORC, missing fields and a schema without keys raise errors that say what to do."""
    path, document = in_folder(tmp_path, {"1": csv_file(["a.jpg"])}, "CSV")
    for change, message in [
        ({"fileFormat": "ORC"}, "set it to Parquet or CSV"),
        ({"files": "none"}, "look at files"),
        ({"fileSchema": "Bucket, Size"}, "no column of keys"),
    ]:
        with pytest.raises(SourceError, match=message):
            list(inventory.read_file(path, {**document, **change}, SETTINGS, None))
    assert inventory.is_manifest(document)
    assert not inventory.is_manifest({"type": "Manifest", "items": []})
    assert not inventory.is_manifest([])


def test_fewer_columns(tmp_path: Path) -> None:
    """Without size, ETag and time an object is an image all the same, as of the day of the inventory."""
    data = b'"src","a.jpg"\n'
    path, _ = in_folder(tmp_path, {"1": data}, "CSV", fileSchema="Bucket, Key")
    assert images(read(path)) == [Image("src/a.jpg", "s3://src/a.jpg", as_of="2026-02-02T00:00:00+00:00")]


@pytest.mark.slow
@pytest.mark.parametrize("file_format", FORMATS)
def test_memory_is_bounded(tmp_path: Path, file_format: str) -> None:
    """Many rows in one file take no more than some megabytes beyond what the modules take."""
    names = [
        f"digitised/b{n // 100:08}/v1/data/objects/b{n // 100:08}_{n % 100:04}.jp2" for n in range(400_000)
    ]
    options = {"group": 50_000} if file_format == "Parquet" else {}
    path, _ = in_folder(tmp_path, {"1": MAKE[file_format](names, **options)}, file_format)
    done = subprocess.run(
        [sys.executable, "-c", READING, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    count, megabytes = map(int, done.stdout.split())
    assert count == 400_000
    assert megabytes < 100


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is not installed, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path, _ = in_folder(tmp_path, {"1": b""}, "Parquet")
    with pytest.raises(SourceError, match=r"pip install 'lookalike\[inventory\]'"):
        read(path)


def test_times_as_text(tmp_path: Path) -> None:
    """In Parquet times may be text; they come in a form that Postgres takes, and nonsense is as no time at all."""
    texts = ["2026-02-03T04:05:06.000Z", "2026-W06-2", "nonsense", None]
    data = parquet_file(["1.jpg", "2.jpg", "3.jpg", "4.jpg"], modified=texts)
    path, document = in_folder(tmp_path, {"1.parquet": data}, "Parquet")
    seen = datetime.fromtimestamp(int(document["creationTimestamp"]) / 1000, UTC).isoformat()
    times = [each.as_of for each in read(path) if isinstance(each, Image)]
    assert times == [MODIFIED, "2026-02-03T00:00:00.000Z", seen, seen]
