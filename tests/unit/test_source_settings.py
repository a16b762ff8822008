"""The settings that say which files and objects are images, what they are called, and where manifests are."""

from pathlib import Path

import pytest

from lookalike.errors import ConfigurationError
from lookalike.images import Image
from lookalike.settings import Settings, load_settings
from orchestrator.sources import open_source


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LOOKALIKE_S3_KEY", "(?P<key>.+", "not a regular expression"),
        ("LOOKALIKE_S3_KEY", "[^/]+$", r"must have a group \(\?P<key>"),
        ("LOOKALIKE_S3_KEY", "(?P<key>.+)(?P<title>.)", "no other named one"),
        ("LOOKALIKE_SUFFIXES", "jp2,tif", "write suffixes with their dots"),
        ("LOOKALIKE_SUFFIXES", ".jp2,,", "write suffixes with their dots"),
        ("LOOKALIKE_MANIFEST_URL", "https://h.org/manifest", "{identifier} once"),
        ("LOOKALIKE_MANIFEST_URL", "file:///{identifier}", "{identifier} once"),
        ("LOOKALIKE_MANIFEST_URL", "https://h.{identifier}/manifest", "{identifier} once"),
        ("LOOKALIKE_MANIFEST_HOURS", "-1", "greater than or equal to 0"),
    ],
)
def test_wrong_settings_are_named_at_the_start(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that cannot work ends the command before it begins, with the setting and what it should be."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_settings()
    assert name.removeprefix("LOOKALIKE_").lower() in str(raised.value).lower()


def test_folders_know_the_suffixes(tmp_path: Path) -> None:
    """Of a folder, only files with a chosen suffix are images."""
    for name in ("a.JP2", "b.jpg", "c.tif"):
        (tmp_path / name).write_bytes(b"1")
    settings = Settings(_env_file=None, suffixes=".jp2, .TIF")
    found = [each for each in open_source(str(tmp_path), settings) if isinstance(each, Image)]
    assert [Path(image.url).name for image in found] == ["a.JP2", "c.tif"]
