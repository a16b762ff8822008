"""The sample bucket of docker-compose.yml, filled in a real S3 server."""

import importlib.util
from pathlib import Path

import boto3
import pytest

from tests.servers import aws_server

CHECKOUT = Path(__file__).parents[2]


def test_the_bucket_is_filled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every photograph of the folder is in it; a second time there is nothing to do."""
    spec = importlib.util.spec_from_file_location("fill_bucket", CHECKOUT / "infra/docker/fill-bucket.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = CHECKOUT / "infra/docker/sample"
    names = {path.name for path in folder.glob("*.jpg")}
    with aws_server() as aws:
        for name, value in {**aws, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        assert module.fill(folder, "sample") == len(names) == 8
        assert module.fill(folder, "sample") == 0
        stored = boto3.client("s3").list_objects_v2(Bucket="sample")["Contents"]
    assert {each["Key"] for each in stored} == names
