"""S3 listings as a source, against a real S3 server of the test's own (moto)."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import md5

import boto3
import pytest

from lookalike.errors import SourceError
from lookalike.images import Announcement, Checkpoint, Image, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import open_source, read_source

SETTINGS = Settings(tries=1, connect_timeout=2, fetch_timeout=10)
KEYS = ["top.png", "a/one.jpg", "a/two.JP2", "a/b/three.tif", "a/ü +%20&?#=.webp", "a//x.jpg", "ab/four.jpg"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    # A page of the listing has few names here, so that a test needs few objects for many pages.
    environment = os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": "7"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "moto_server ended"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def aws(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return server


@pytest.fixture
def bucket(aws: str) -> str:
    client = boto3.client("s3")
    client.create_bucket(Bucket="archive")
    for key in KEYS:
        client.put_object(Bucket="archive", Key=key, Body=key.encode())
    for key in ("a/", "a/folder.jpg/", "a/notes.txt", "a/jpg"):
        client.put_object(Bucket="archive", Key=key, Body=b"")
    client.put_object(Bucket="archive", Key="a/empty.jpg", Body=b"")
    return "archive"


def read(spec: str) -> list[Announcement]:
    return list(open_source(spec, SETTINGS))


def test_bucket_is_listed_in_order(bucket: str) -> None:
    """All objects that end as images do are announced, with raw names, ETags and times, in the bucket's order."""
    images = [each for each in read(f"s3://{bucket}") if isinstance(each, Image)]
    entries = boto3.client("s3").list_objects_v2(Bucket=bucket, MaxKeys=100)["Contents"]
    modified = {entry["Key"]: entry["LastModified"].isoformat() for entry in entries}
    assert images == [
        Image(
            f"{bucket}/{key}",
            f"s3://{bucket}/{key}",
            content=md5(key.encode()).hexdigest(),
            as_of=modified[key],
        )
        for key in sorted(KEYS)
    ]


def test_prefix_is_a_prefix(bucket: str) -> None:
    """Only what begins with the prefix is announced; an empty object is refused with its name."""
    found = read(f"s3://{bucket}/a/")
    assert [each.key.removeprefix(f"{bucket}/") for each in found if isinstance(each, Image)] == sorted(
        key for key in KEYS if key.startswith("a/")
    )
    assert [each for each in found if isinstance(each, Refused)] == [
        Refused(f"s3://{bucket}/a/empty.jpg", Reason.EMPTY, "the object has zero bytes")
    ]
    assert read(f"s3://{bucket}/nothing/here") == []


def test_listing_goes_over_many_pages(aws: str) -> None:
    """A bucket with more names than a page of the listing holds is listed to its end, without doubles."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="many")
    for number in range(30):
        client.put_object(Bucket="many", Key=f"{number:05}.jpg", Body=b"1")
    keys = [each.key for each in read("s3://many") if isinstance(each, Image)]
    assert keys == [f"many/{number:05}.jpg" for number in range(30)]


def test_stopped_listing_goes_on(aws: str) -> None:
    """From the position of any page on, a listing yields exactly what comes behind it."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="resumed")
    for number in range(20):
        client.put_object(Bucket="resumed", Key=f"a/{number:05}.jpg", Body=b"1")
    notices = list(read_source("s3://resumed/a/", SETTINGS))
    checkpoints = [number for number, each in enumerate(notices) if isinstance(each, Checkpoint)]
    assert len(checkpoints) == 3
    for number in checkpoints:
        position = notices[number].position
        behind = [each for each in notices[number:] if isinstance(each, Image)]
        again = read_source("s3://resumed/a/", SETTINGS, position)
        assert [each for each in again if isinstance(each, Image)] == behind
    elsewhere = read_source("s3://resumed/a/", SETTINGS, {"after": "b/elsewhere.jpg"})
    assert len([each for each in elsewhere if isinstance(each, Image)]) == 20


def test_suffixes_and_keys_of_objects(bucket: str) -> None:
    """Only chosen suffixes are images, in any case; a rule gives keys and works, and refuses what it does not match."""
    settings = SETTINGS.model_copy(
        update={"suffixes": ".jp2,.tif", "s3_key": r"archive/(?P<work>a)/(?P<key>\w+\.JP2)$"}
    )
    image, refused = sorted(
        open_source(f"s3://{bucket}", settings), key=lambda each: isinstance(each, Refused)
    )
    assert isinstance(image, Image)
    assert (image.key, image.work, image.url) == ("two.JP2", "a", f"s3://{bucket}/a/two.JP2")
    assert isinstance(refused, Refused)
    assert (refused.where, refused.reason) == (f"s3://{bucket}/a/b/three.tif", Reason.BAD_RECORD)


def test_missing_bucket_says_what_to_do(aws: str) -> None:
    """A bucket that is not there, or cannot be one, raises SourceError with advice."""
    with pytest.raises(SourceError, match="no such bucket; check its name, and AWS_ENDPOINT_URL"):
        read("s3://no-such-bucket/x")
    with pytest.raises(SourceError, match=r"cannot be listed: .*Invalid bucket name"):
        read("s3://No bucket!/x")


def test_unreachable_server_and_missing_credentials(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there and missing credentials raise SourceError without any secret."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SourceError, match="Could not connect") as raised:
        read("s3://archive")
    assert "secret" not in str(raised.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(SourceError, match="credentials"):
        read("s3://archive")
