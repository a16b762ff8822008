"""Clusters as walls: all of them with the pictures that stand for each, and the members of one."""

from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from explorer import reviewing
from explorer.archive import AnArchive
from explorer.pages.rendering import render
from explorer.pages.tiles import Tile, tiles
from explorer.prefix import root_of
from explorer.records import ShownCluster
from lookalike.cluster_samples import Of
from lookalike.errors import UnknownEncoderError

router = APIRouter()

KINDS = (("images", "Of images"), ("works", "Of works"))
CLUSTERS = 36
MEMBERS = 80
# Pictures in the small wall of a cluster.
MOSAIC = 5


@dataclass(frozen=True, slots=True)
class Card:
    """A cluster as the pages show it. `called` is its name, or else what it may be called."""

    number: int
    of: Of
    called: str
    name: str | None
    suggestion: str | None
    size: int
    spread: float | None
    href: str
    tiles: list[Tile]


def _card(cluster: ShownCluster, root: str) -> Card:
    called = cluster.name or cluster.label or f"Cluster {cluster.cluster}"
    return Card(
        cluster.cluster,
        cluster.of,
        called,
        cluster.name,
        cluster.label if cluster.label != called else None,
        cluster.size,
        cluster.spread,
        f"{root}/clusters/{cluster.cluster}",
        tiles(cluster.exemplars[:MOSAIC], root),
    )


@router.get("/clusters")
def show_all(
    request: Request, archive: AnArchive, of: str = "images", cursor: str | None = None
) -> HTMLResponse:
    """The clusters, the largest first."""
    root = root_of(request)
    chosen: Of = next((each for each in get_args(Of) if each == of), "images")
    with archive.reading() as connection:
        try:
            encoder = archive.encoder(connection)
            found = reviewing.list_clusters(connection, encoder, chosen, cursor=cursor, limit=CLUSTERS)
            cards, following = [_card(one, root) for one in found.items], found.next
        except UnknownEncoderError:
            cards, following = [], None
    more = f"{root}/clusters?{urlencode({'of': chosen, 'cursor': following})}" if following else None
    return render(request, "clusters.html", "/clusters", kinds=KINDS, of=chosen, clusters=cards, more=more)


@router.get("/clusters/{number}")
def show_one(request: Request, archive: AnArchive, number: int, cursor: str | None = None) -> HTMLResponse:
    """The members of a cluster, nearest to its middle first."""
    root = root_of(request)
    with archive.reading() as connection:
        cluster = reviewing.find_cluster(connection, number)
        found = reviewing.list_members(connection, cluster, cursor, MEMBERS)
    more = f"{root}/clusters/{number}?{urlencode({'cursor': found.next})}" if found.next else None
    return render(
        request,
        "cluster.html",
        "/clusters",
        cluster=_card(cluster, root),
        tiles=tiles(found.items, root),
        more=more,
    )
