"""Whom to credit for a picture, as sources say it."""

import io

import pytest

from lookalike.images import Image
from orchestrator.sources.manifest import Described, images_of
from orchestrator.sources.tables import read_table


def manifest(**said: object) -> dict[str, object]:
    body = {"id": "https://i.org/1.jpg", "type": "Image", "format": "image/jpeg"}
    annotation = {"type": "Annotation", "motivation": "painting", "body": body}
    canvas = {"id": "https://i.org/c", "type": "Canvas", "items": [{"items": [annotation]}]}
    return {"id": "https://i.org/m", "type": "Manifest", "items": [canvas], **said}


@pytest.mark.parametrize(
    ("said", "credit"),
    [
        ({}, "the catalogue's"),
        (
            {
                "requiredStatement": {
                    "label": {"en": ["Attribution"]},
                    "value": {"en": ["<span>Wellcome &amp; <b>friends</b></span>"], "cy": ["x"]},
                }
            },
            "Wellcome & friends",
        ),
        ({"attribution": "The museum"}, "The museum"),
        ({"attribution": [{"@value": "Le musée", "@language": "fr"}]}, "Le musée"),
        ({"requiredStatement": ["odd"]}, "the catalogue's"),
    ],
)
def test_a_manifest_says_whom_to_credit(said: dict[str, object], credit: str) -> None:
    """The required statement of version 3, the attribution of version 2, else what the catalogue says."""
    (image,) = images_of(manifest(**said), "https://i.org/m", Described(credit="the catalogue's"))
    assert isinstance(image, Image)
    assert image.credit == credit


@pytest.mark.parametrize("column", ["credit", "Attribution"])
def test_a_table_has_a_column_for_it(column: str) -> None:
    """Under either name, in any case."""
    table = io.BufferedReader(io.BytesIO(f"url,{column}\nhttps://i.org/1.jpg,The museum\n".encode()))
    (image,) = read_table(table, "table", "https://i.org/")
    assert isinstance(image, Image)
    assert image.credit == "The museum"
