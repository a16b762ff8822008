"""From a manifest to neighbours through real IIIF image services: ours of levels 2 and 3, and Debian's iipsrv."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lookalike import books, search
from lookalike.database import Connection
from tests.iiif_servers import ImageService, has_iipsrv, iipsrv_service, own_service
from tests.pictures import near_copy, photographs
from tests.servers import Lookalike, http_server

ENCODER = "efficientnet-lite0"
# `make test-iipsrv` installs it and asks for it: there it may not be missing.
WANTS_IIPSRV = bool(os.environ.get("LOOKALIKE_TEST_IIPSRV"))


@contextmanager
def image_service(kind: str, folder: Path) -> Iterator[ImageService]:
    pictures = {}
    for number, picture in enumerate(photographs()[:6]):
        large = picture.resize((picture.width * 3, picture.height * 3))
        pictures[f"page-{number}-0.tif"] = large
        pictures[f"page-{number}-1.tif"] = near_copy(large, 1)
    if kind == "iipsrv":
        with iipsrv_service(pictures, folder) as service:
            yield service
    else:
        with own_service(pictures, int(kind)) as service:
            yield service


def manifest(address: str, service: ImageService, version: int) -> dict[str, object]:
    """A Presentation 3 manifest with a canvas for each picture."""
    names = [f"page-{number}-{copy}.tif" for number in range(6) for copy in range(2)]
    services = [
        {"id": service.base(name), "type": "ImageService3", "profile": "level2"}
        if version == 3
        else {"@id": service.base(name), "@type": "ImageService2", "profile": "level1"}
        for name in names
    ]
    return {
        "@context": "http://iiif.io/api/presentation/3/context.json",
        "id": address,
        "type": "Manifest",
        "label": {"en": ["A book"]},
        "items": [
            {
                "id": f"{address}/{number}",
                "type": "Canvas",
                "items": [{"type": "AnnotationPage", "items": [{
                    "type": "Annotation", "motivation": "painting",
                    "body": {"id": "x.jpg", "type": "Image", "service": [described]},
                }]}],
            }
            for number, described in enumerate(services)
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", [pytest.param("2", marks=pytest.mark.slow), "3", pytest.param("iipsrv", marks=pytest.mark.slow)]
)
def test_a_book_on_an_image_server(
    lookalike: Callable[..., Lookalike], connection: Connection, tmp_path: Path, kind: str
) -> None:
    """Every page is fetched at a small size, embedded, and the near-copy of each is its nearest neighbour."""
    if kind == "iipsrv" and not has_iipsrv():
        assert not WANTS_IIPSRV, "iipimage-server, lighttpd or libvips-tools are missing"
        pytest.skip("Debian's iipsrv is not installed: make test-iipsrv installs it")
    files: dict[str, bytes] = {}
    with image_service(kind, tmp_path) as service, http_server(files) as web:
        address = f"{web}/manifest"
        files["/manifest"] = json.dumps(manifest(address, service, 3 if kind == "3" else 2)).encode()
        # The image service has a port of its own: to the manifest's host that is somebody else's address.
        system = lookalike(LOOKALIKE_ALLOW_NETWORKS="127.0.0.0/8")
        listed = json.loads(system.run("add", address, "--dry-run", "--json").stdout)
        done = json.loads(system.run("run", address, "--json").stdout)

    assert [image["url"] for image in listed["images"]] == [
        service.base(f"page-{number}-{copy}.tif") for number in range(6) for copy in range(2)
    ]
    assert (done["done"], done["failed"]) == (12, 0)
    # 384 pixels on the shorter side are 1.5 times what the network resizes to; never the whole picture.
    assert not {"max", "full"} & set(service.asked)
    keys = [key for (key,) in connection.execute("select key from images order by key").fetchall()]
    for original, copy in zip(keys[::2], keys[1::2], strict=True):
        assert search.similar(connection, original, 1)[0].image == copy
    assert books.count_books(connection, ENCODER).complete
