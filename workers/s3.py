"""Reads objects from S3, or a server that speaks its language, as signed GETs of the lean HTTP client.

boto3 finds credentials, region and endpoint in its own way, once; its get_object costs ten times the CPU.
"""

import re
import threading
import time
from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError

from lookalike.errors import ImageError
from lookalike.reasons import Reason
from workers.http import Allowance, HttpClient, Response, require

_LOOK_AGAIN_SECONDS = 60.0
_DNS_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")  # dots would break the certificate's wildcard
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_AMAZON = re.compile(r"\.amazonaws\.com(\.cn)?$")
_KNOWN_REGIONS = 1000


@dataclass(frozen=True, slots=True)
class _Account:
    """Where and as whom to ask. `virtual` says that the bucket is part of the host name."""

    endpoint: str
    region: str
    amazon: bool
    virtual: bool
    credentials: Credentials | None
    found_at: float


class S3Reader:
    """Reads `s3://bucket/key`. Unsigned where boto3 finds no credentials. Safe for many threads."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._account: _Account | None = None
        self._regions: dict[str, str] = {}

    def read(self, url: str, allowance: Allowance) -> bytes:
        """Returns the bytes of an object; the key stands in `url` as it is, not percent-encoded.

        Raises ImageError as HttpClient.get and `require` do, UNREACHABLE where credentials cannot be
        refreshed.
        """
        # The endpoint is the operator's own, wherever the address comes from.
        allowance = replace(allowance, outside=False)
        bucket, _, key = url[len("s3://") :].partition("/")
        if not bucket or not key or "@" in bucket or ":" in bucket:
            raise ImageError(Reason.BAD_ADDRESS, "not s3://bucket/key")
        try:
            account = self._find_account()
            region = self._regions.get(bucket, account.region)
            response = self._get(account, bucket, key, region, allowance)
            elsewhere = response.header("x-amz-bucket-region") or region
            moved = elsewhere != region and _REGION.fullmatch(elsewhere)
            if moved and response.status in (301, 307, 400, 403):
                self._remember(bucket, elsewhere)
                response = self._get(account, bucket, key, elsewhere, allowance)
        except (BotoCoreError, ValueError) as error:
            raise ImageError(Reason.UNREACHABLE, f"S3 as set up here: {type(error).__name__}") from error
        return require(response, url)

    def locate(self, url: str) -> str:
        """The http(s) address that `s3://bucket/key` is read from; empty where that cannot be known."""
        bucket, _, key = url[len("s3://") :].partition("/")
        try:
            account = self._find_account()
            return _locate(account, bucket, key, self._regions.get(bucket, account.region))
        except (BotoCoreError, ValueError):
            return ""

    def _get(self, account: _Account, bucket: str, key: str, region: str, allowance: Allowance) -> Response:
        url = _locate(account, bucket, key, region)
        headers: dict[str, str] = {}
        if account.credentials is not None:
            request = AWSRequest("GET", url)
            # Frozen: access key, secret and token of one moment; refreshed here when they are about to
            # expire.
            frozen = account.credentials.get_frozen_credentials()
            S3SigV4Auth(frozen, "s3", region).add_auth(request)
            headers = dict(request.headers.items())
        return self._client.get(url, allowance, headers, redirects=0, keep_headers=True)

    def _find_account(self) -> _Account:
        """Asks boto3 once; again after a minute if it had no credentials: metadata services can be busy."""
        with self._lock:
            account = self._account
            if account is None or (
                account.credentials is None and time.monotonic() - account.found_at > _LOOK_AGAIN_SECONDS
            ):
                account = self._account = _ask_boto3()
            return account

    def _remember(self, bucket: str, region: str) -> None:
        with self._lock:
            if len(self._regions) >= _KNOWN_REGIONS:
                self._regions.clear()
            self._regions[bucket] = region


def _ask_boto3() -> _Account:
    session = boto3.Session()
    client = session.client("s3")
    endpoint = client.meta.endpoint_url.rstrip("/")
    amazon = bool(_AMAZON.search(urlsplit(endpoint).hostname or ""))
    options = getattr(client.meta.config, "s3", None) or {}
    style = options.get("addressing_style", "auto")
    virtual = style == "virtual" or (style == "auto" and amazon)
    region = client.meta.region_name or "us-east-1"
    # boto3 calls the region "aws-global" where none is set; signatures call it by its place.
    region = "us-east-1" if region == "aws-global" else region
    return _Account(endpoint, region, amazon, virtual, session.get_credentials(), time.monotonic())


def _locate(account: _Account, bucket: str, key: str, region: str) -> str:
    """Returns the address of an object: the bucket in the host name at Amazon, in the path elsewhere."""
    endpoint = account.endpoint
    if account.amazon and region != account.region:
        suffix = ".cn" if endpoint.endswith(".cn") else ""
        endpoint = f"https://s3.{region}.amazonaws.com{suffix}"
    path = quote(key, safe="/-_.~")
    if account.virtual and _DNS_BUCKET.fullmatch(bucket):
        scheme, _, host = endpoint.partition("://")
        return f"{scheme}://{bucket}.{host}/{path}"
    return f"{endpoint}/{quote(bucket, safe='-_.~')}/{path}"
