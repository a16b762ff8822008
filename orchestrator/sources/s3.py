"""The images of an S3 bucket: those below a prefix, from its listing, or those of an inventory. No image is opened."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boto3.exceptions import Boto3Error
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lookalike.errors import SourceError
from lookalike.images import Checkpoint, Notice, Position
from lookalike.settings import Settings
from orchestrator.sources import iiif, inventory
from orchestrator.sources.manifest import identifier
from orchestrator.sources.objects import Objects
from orchestrator.sources.records import plain, printable
from orchestrator.sources.web import MAX_DOCUMENT, Web, parse_json

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_ADVICE = {
    "NoSuchBucket": "no such bucket; check its name, and AWS_ENDPOINT_URL for servers other than AWS",
    "NoSuchKey": "there is no such object",
    "404": "there is no such object",
    "AccessDenied": "access denied; the credentials need s3:ListBucket on the bucket, and s3:GetObject for manifests",
    "403": "access denied; the credentials need s3:GetObject",
    "InvalidAccessKeyId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
}


def read_address(address: str, settings: Settings, position: Position | None = None) -> Iterator[Notice]:
    """Yields the images that `s3://bucket/prefix` or the manifest `s3://bucket/path/manifest.json` names.

    A manifest is that of an S3 Inventory, or one of IIIF: its content says which. Credentials, region and
    endpoint are boto3's own affair. Raises SourceError when there is nothing to read, also midway.
    """
    bucket, _, name = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise SourceError(f"{printable(address)}: write s3://bucket or s3://bucket/prefix")
    config = Config(
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.fetch_timeout,
        retries={"mode": "standard", "total_max_attempts": settings.tries},
    )
    with _explained(address, "listed"):
        # A session of its own: the default one is shared, and remembers the first credentials it saw.
        client = Session().client("s3", config=config)
    if name.endswith(".json"):
        yield from _read_manifest(client, address, settings, position)
    else:
        yield from list_prefix(client, bucket, name, settings, position)


def list_prefix(
    client: "S3Client", bucket: str, prefix: str, settings: Settings, position: Position | None = None
) -> Iterator[Notice]:
    """Yields the objects below a prefix whose names end as images do, in the bucket's order; see Objects.

    Folder markers and other files are passed over. Memory holds one page of 1,000 names, and behind each
    there is a Checkpoint: the last name that was listed.
    """
    objects = Objects(settings)
    after = position.get("after") if position else None
    start = {"StartAfter": after} if isinstance(after, str) and after.startswith(prefix) else {}
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **start)  # type: ignore[arg-type]
    with _explained(f"s3://{bucket}/{prefix}", "listed"):
        for page in pages:
            entries = page.get("Contents", [])
            for entry in entries:
                if objects.is_image(entry["Key"]):
                    as_of = entry["LastModified"].isoformat()
                    yield objects.announce(bucket, entry["Key"], entry["Size"], entry.get("ETag"), as_of)
            if entries:
                yield Checkpoint({"after": entries[-1]["Key"]})


def _read_manifest(
    client: "S3Client", address: str, settings: Settings, position: Position | None
) -> Iterator[Notice]:
    bucket, _, name = address.removeprefix("s3://").partition("/")
    with _explained(address):
        text = client.get_object(Bucket=bucket, Key=name)["Body"].read(MAX_DOCUMENT + 1)
    if len(text) > MAX_DOCUMENT:
        raise SourceError(f"{printable(address)} is larger than {MAX_DOCUMENT >> 20} MiB")
    document = parse_json(text, printable(address))
    if not inventory.is_manifest(document):
        yield from _read_iiif(document, address, settings, position)
        return

    @contextmanager
    def fetch(source: str, key: str) -> Iterator[io.BufferedIOBase]:
        # A file without a name: even a killed process leaves none behind.
        with tempfile.TemporaryFile() as file:
            with _explained(f"s3://{source}/{key}"):
                client.download_fileobj(source, key, file)
            file.seek(0)
            yield file

    yield from inventory.read(document, printable(address), fetch, Objects(settings), position)


def _read_iiif(
    document: object, address: str, settings: Settings, position: Position | None
) -> Iterator[Notice]:
    if not identifier(document):
        # Its work would have no name: the place of a copy in a bucket is none.
        raise SourceError(f"{printable(address)} is neither an S3 Inventory nor a IIIF manifest with an id")
    with Web(settings) as web:
        yield from iiif.read(web, document, identifier(document), position)


@contextmanager
def _explained(address: str, verb: str = "read") -> Iterator[None]:
    """Says in a SourceError what is wrong with S3."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise SourceError(f"{printable(address)} cannot be {verb}: {_ADVICE.get(code, code)}") from error
    except (
        BotoCoreError,
        Boto3Error,
        ValueError,
    ) as error:  # ValueError: boto3 refuses a malformed endpoint so
        raise SourceError(f"{printable(address)} cannot be {verb}: {plain(str(error))}") from error
