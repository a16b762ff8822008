"""Fills a bucket with the pictures of a folder: `python fill-bucket.py FOLDER BUCKET`; boto3 knows where it is."""

import sys
from pathlib import Path

import boto3
from botocore.exceptions import ClientError


def fill(folder: Path, bucket: str) -> int:
    """Makes the bucket if it is not there, and uploads what is new. Returns the number of files uploaded."""
    storage = boto3.client("s3")
    try:
        storage.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
    pages = storage.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    there = {each["Key"] for page in pages for each in page.get("Contents", [])}
    new = [path for path in sorted(folder.glob("*.jpg")) if path.name not in there]
    for path in new:
        storage.upload_file(str(path), bucket, path.name, ExtraArgs={"ContentType": "image/jpeg"})
    return len(new)


if __name__ == "__main__":
    print(f"{fill(Path(sys.argv[1]), sys.argv[2])} files are new in s3://{sys.argv[2]}")
