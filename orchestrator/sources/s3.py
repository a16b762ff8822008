"""The images below a prefix of an S3 bucket, from its listing. No object is opened."""

from collections.abc import Iterator

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lookalike.errors import SourceError
from lookalike.images import Announcement, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources.records import announce, has_image_suffix, plain, printable

_ADVICE = {
    "NoSuchBucket": "no such bucket; check its name, and AWS_ENDPOINT_URL for servers other than AWS",
    "AccessDenied": "access denied; the credentials need s3:ListBucket on the bucket",
    "InvalidAccessKeyId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
}


def list_prefix(address: str, settings: Settings) -> Iterator[Announcement]:
    """Yields the objects below `s3://bucket/prefix` whose names end as images do, in the bucket's order.

    Keys are `bucket/path`, addresses `s3://bucket/path` with the object's raw name (nothing is
    percent-encoded), content is the ETag without quotes. Objects of zero bytes are Refused, folder markers
    and other files are passed over. Memory holds one page of 1,000 names. Credentials, region and endpoint
    are boto3's own affair. Raises SourceError when the bucket cannot be listed, also when the listing breaks
    off midway.
    """
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise SourceError(f"{printable(address)}: write s3://bucket or s3://bucket/prefix")
    config = Config(
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.fetch_timeout,
        retries={"mode": "standard", "total_max_attempts": settings.tries},
    )
    try:
        # A session of its own: the default one is shared, and remembers the first credentials it saw.
        client = Session().client("s3", config=config)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                if has_image_suffix(entry["Key"]):
                    yield _announce(bucket, entry["Key"], entry["Size"], entry.get("ETag", ""))
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise SourceError(f"{printable(address)} cannot be listed: {_ADVICE.get(code, code)}") from error
    except (BotoCoreError, ValueError) as error:  # ValueError: boto3 refuses a malformed endpoint so
        raise SourceError(f"{printable(address)} cannot be listed: {plain(str(error))}") from error


def _announce(bucket: str, name: str, size: int, etag: str) -> Announcement:
    where = f"s3://{bucket}/{name}"
    if size == 0:
        return Refused(printable(where), Reason.EMPTY, "the object has zero bytes")
    return announce(where, where, key=f"{bucket}/{name}", content=etag.strip('"'), outside=False)
