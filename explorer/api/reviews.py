"""Lists to look through: clusters, near-duplicates, unwanted images."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from explorer import reviewing
from explorer.answers import answer
from explorer.api.parameters import Cursor, EncoderName, Limit, Text
from explorer.archive import AnArchive
from explorer.records import ClusterMember, Group, Page, Pair, ShownCluster, UnwantedImage, UnwantedSet
from lookalike.cluster_samples import Of
from lookalike.clusters import Method
from lookalike.unwanted import State

router = APIRouter(tags=["review"])

Number = Annotated[int, Path(ge=1, le=2**63 - 1, description="the stable number of a cluster")]


class Sets(BaseModel):
    """All sets of unwanted images."""

    items: list[UnwantedSet]


@router.get("/clusters", response_model=Page[ShownCluster])
def list_clusters(
    request: Request,
    archive: AnArchive,
    of: Of = "images",
    method: Method = "kmeans",
    encoder: EncoderName = None,
    cursor: Cursor = None,
    limit: Limit = 40,
) -> Response:
    """Clusters of images or works that look alike, the largest first, with what stands for each."""
    with archive.reading() as connection:
        chosen = encoder or archive.encoder(connection)
        return answer(request, reviewing.list_clusters(connection, chosen, of, method, cursor, limit))


@router.get("/clusters/{cluster}", response_model=ShownCluster)
def show_cluster(request: Request, archive: AnArchive, cluster: Number) -> Response:
    """One cluster by its number, which it keeps when clusters are made anew."""
    with archive.reading() as connection:
        return answer(request, reviewing.find_cluster(connection, cluster))


@router.get("/clusters/{cluster}/members", response_model=Page[ClusterMember])
def list_members(
    request: Request, archive: AnArchive, cluster: Number, cursor: Cursor = None, limit: Limit = 60
) -> Response:
    """The members of a cluster, nearest to its centre first."""
    with archive.reading() as connection:
        found = reviewing.find_cluster(connection, cluster)
        return answer(request, reviewing.list_members(connection, found, cursor, limit))


@router.get("/duplicates", response_model=Page[Pair])
def list_duplicates(
    request: Request,
    archive: AnArchive,
    decided: Annotated[bool, Query(description="also pairs that somebody has decided about")] = False,
    encoder: EncoderName = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Response:
    """Pairs of near-duplicates, nearest first."""
    with archive.reading() as connection:
        chosen = encoder or archive.encoder(connection)
        found = reviewing.list_pairs(connection, chosen, decided, cursor, limit)
    return answer(request, found, keep=False)


@router.get("/duplicates/groups", response_model=Page[Group])
def list_groups(
    request: Request,
    archive: AnArchive,
    encoder: EncoderName = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Response:
    """Groups that near-duplicates link, the largest first."""
    with archive.reading() as connection:
        chosen = encoder or archive.encoder(connection)
        return answer(request, reviewing.list_groups(connection, chosen, cursor, limit), keep=False)


@router.get("/unwanted", response_model=Page[UnwantedImage])
def list_unwanted(
    request: Request,
    archive: AnArchive,
    name: Annotated[Text | None, Query(alias="set", description="of this set alone")] = None,
    state: State = "candidate",
    cursor: Cursor = None,
    limit: Limit = 40,
) -> Response:
    """Unwanted images, or those that may be, nearest to an example first."""
    with archive.reading() as connection:
        found = reviewing.list_unwanted(connection, name, state, cursor, limit)
    return answer(request, found, keep=False)


@router.get("/unwanted/sets", response_model=Sets)
def list_sets(request: Request, archive: AnArchive) -> Response:
    """The sets of unwanted images."""
    with archive.reading() as connection:
        return answer(request, Sets(items=reviewing.list_sets(connection)), keep=False)
