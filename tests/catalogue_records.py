"""Records, pages and snapshots in the shape of Wellcome's catalogue, for tests; SITE is the test's own server."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lookalike.images import Checkpoint, Image, Notice, Position, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from tests.sites import Site

Json = Any


def location(name: str, sort: str = "iiif-image", status: str | None = "open", **more: Json) -> Json:
    """A location as the API writes it, of an image service or a manifest."""
    where = f"image/{name}/info.json" if sort == "iiif-image" else f"presentation/v2/{name}"
    conditions = [] if status is None else [{"method": {"id": "view-online"}, "status": {"id": status}}]
    return {
        "type": "DigitalLocation",
        "locationType": {"id": sort, "type": "LocationType"},
        "url": f"SITE/{where}",
        "license": {"id": "pdm", "type": "License"},
        "accessConditions": conditions,
        **more,
    }


def image(name: str, *locations: Json, **more: Json) -> Json:
    """A record of an image, in the API's shape."""
    found = [*locations] or [location(name)]
    source = {"id": f"w{name}", "title": f"Title {name}", "type": "Work"}
    return {"id": name, "type": "Image", "thumbnail": found[0], "locations": found, "source": source, **more}


def work(name: str, *locations: Json, **more: Json) -> Json:
    """A record of a work with one item, in the API's shape."""
    items = [{"type": "Item", "locations": [*locations]}] if locations else []
    return {"id": name, "type": "Work", "title": f"Title {name}", "items": items, **more}


def manifest(name: str, pages: int, **more: Json) -> Json:
    """A manifest of version 3 with so many pages."""
    canvases = [
        {
            "id": f"SITE/{name}/c{number}",
            "type": "Canvas",
            "label": {"none": [str(number)]},
            "items": [{"items": [{"motivation": "painting", "body": {
                "id": f"SITE/image/{name}_{number}.jp2/full/max/0/default.jpg",
                "type": "Image",
                "service": [{"@id": f"SITE/image/{name}_{number}.jp2", "@type": "ImageService2"}],
            }}]}],
        }
        for number in range(1, pages + 1)
    ]  # fmt: skip
    return {"id": f"SITE/presentation/v3/{name}", "type": "Manifest", "items": canvases, **more}


def serve_list(
    site: Site, path: str, records: Sequence[Json], size: int = 100, total: int | None = None
) -> None:
    """Lets the site answer a query page by page, as the API does."""
    query = f"{path}{'&' if '?' in path else '?'}pageSize={size}"
    query += "&include=items" if "/works" in path else ""
    pages = [records[start : start + size] for start in range(0, len(records), size)] or [[]]
    for number, results in enumerate(pages, 1):
        following = {"nextPage": f"SITE{query}&page={number + 1}"} if number < len(pages) else {}
        site.pages[query if number == 1 else f"{query}&page={number}"] = {
            "type": "ResultList",
            "pageSize": size,
            "totalPages": len(pages),
            "totalResults": len(records) if total is None else total,
            "results": results,
            **following,
        }


def lines(site: Site, records: Sequence[Json]) -> bytes:
    return "".join(json.dumps(each).replace("SITE", site.url) + "\n" for each in records).encode()


def snapshot(site: Site, records: Sequence[Json]) -> bytes:
    return gzip.compress(lines(site, records), mtime=0)


def keys(found: Sequence[Notice]) -> list[str]:
    return [each.url.rpartition("/image/")[2] for each in found if isinstance(each, Image)]


def refusals(found: Sequence[Notice]) -> list[tuple[str, Reason, str]]:
    return [(each.where, each.reason, each.detail) for each in found if isinstance(each, Refused)]


def checkpoints(found: Sequence[Notice]) -> list[Position]:
    return [json.loads(json.dumps(each.position)) for each in found if isinstance(each, Checkpoint)]


def catalogue_settings(site: Site, home: Path) -> Settings:
    """Settings whose snapshots lie on this site, and that give up soon."""
    return Settings(
        _env_file=None, home=home, wellcome_snapshots=f"{site.url}/snapshots/", tries=3, retry_seconds=0.01,
        connect_timeout=2, fetch_timeout=20,
    )  # fmt: skip
