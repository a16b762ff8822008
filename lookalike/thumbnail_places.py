"""Where thumbnails lie outside of the database: a folder that all machines see, or a bucket.

Names are those of lookalike/thumbnails.py, which checks them; files are written once and never changed.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from lookalike.errors import ConfigurationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Files written to a bucket at once: each takes a few hundredths of a second, nearly all of it waiting.
AT_ONCE = 16
# So many may be deleted from a bucket by one request.
DELETED_AT_ONCE = 1_000


class Place(Protocol):
    """A place; `address` is the same for all machines that have it."""

    address: str

    def write(self, files: Mapping[str, bytes]) -> None:
        """Writes files by name: all of them, or raises."""

    def read(self, name: str) -> bytes | None:
        """Returns the bytes of a file; None where there is none."""

    def delete(self, names: Sequence[str]) -> None:
        """Deletes files; those that are not there do not matter."""


class Folder:
    """A folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.address = path.as_uri()

    def write(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            path = self._path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Nobody knows the name before it is stored: half a file is never seen.
            path.write_bytes(data)

    def read(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self._path / name).read_bytes()
        return None

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            (self._path / name).unlink(missing_ok=True)


class Bucket:
    """A bucket of S3, or of a server that speaks its language, as boto3 is set up; a prefix of its own in it."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.address = f"s3://{bucket}/{prefix}"
        self._client: S3Client | None = None

    def _s3(self) -> "S3Client":
        if self._client is None:
            import boto3
            from botocore.config import Config

            # Thumbnails are worth no long wait; what is missing is made later.
            config = Config(
                max_pool_connections=AT_ONCE,
                connect_timeout=5,
                read_timeout=20,
                retries={"mode": "standard", "total_max_attempts": 2},
            )
            self._client = boto3.Session().client("s3", config=config)
        return self._client

    def write(self, files: Mapping[str, bytes]) -> None:
        client = self._s3()

        def put(name: str) -> None:
            client.put_object(
                Bucket=self._bucket, Key=self._prefix + name, Body=files[name], ContentType="image/jpeg"
            )

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="thumbnails") as pool:
            list(pool.map(put, files))

    def read(self, name: str) -> bytes | None:
        client = self._s3()
        try:
            return client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None

    def delete(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), DELETED_AT_ONCE):
            keys = [self._prefix + name for name in names[start : start + DELETED_AT_ONCE]]
            answer = self._s3().delete_objects(
                Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
            if errors := answer.get("Errors"):
                raise OSError(f"S3 did not delete {len(errors)} thumbnails: {errors[0].get('Code')}")


def open_place(address: str) -> Place:
    """The place of an address: s3://bucket/prefix, file:///folder, or a path. Raises ConfigurationError."""
    if address.startswith("s3://"):
        bucket, _, prefix = address[len("s3://") :].partition("/")
        if not bucket:
            raise ConfigurationError("LOOKALIKE_THUMBNAILS: write s3://bucket/prefix")
        return Bucket(bucket, prefix.strip("/"))
    if address.startswith("file://"):
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigurationError("LOOKALIKE_THUMBNAILS: write file:///folder")
        return Folder(Path(unquote(parts.path)))
    if "://" in address:
        raise ConfigurationError(
            "LOOKALIKE_THUMBNAILS: write off, local, database, s3://bucket/prefix, or a folder"
        )
    return Folder(Path(address).expanduser().absolute())
