"""What people look through and decide on: clusters, near-duplicates, unwanted images and what was decided before.

Functions from a connection to records, as in reading.py.
"""

from dataclasses import asdict
from typing import Any

from psycopg import sql

from explorer.cursors import read_cursor
from explorer.reading import QUERIES, page, rows
from explorer.records import (
    Cluster,
    ClusterMember,
    Decision,
    Group,
    GroupMember,
    Page,
    Pair,
    Picture,
    ShownCluster,
    UnwantedImage,
    UnwantedSet,
    as_picture,
)
from lookalike import clusters as clustering
from lookalike import unwanted as unwanting
from lookalike.cluster_samples import Of
from lookalike.clusters import Method
from lookalike.database import Connection
from lookalike.unwanted import State
from lookalike.unwanted_rows import get_set

LARGEST = 2**31 - 1
# Images of a group that are shown with it.
MEMBERS = 12


# Clusters ------------------------------------------------------------------------------------------------------------


def list_clusters(
    connection: Connection,
    encoder: str,
    of: Of = "images",
    method: Method = "kmeans",
    cursor: str | None = None,
    limit: int = 40,
) -> Page[ShownCluster]:
    """Clusters that are shown, the largest first, each with its exemplars."""
    size, after = read_cursor(cursor, (LARGEST, 0))
    asked = {"encoder": encoder, "of": of, "method": method, "after_size": size, "after": after}
    found = rows(connection, QUERIES["clusters"], {**asked, "limit": limit + 1})
    pictures = _exemplars(connection, of, [name for row in found[:limit] for name in row["exemplars"]])
    return page(
        found, limit, lambda row: _shown(row, pictures), lambda row: (int(row["size"]), int(row["cluster"]))
    )


def find_cluster(connection: Connection, number: int) -> ShownCluster:
    """The cluster of this stable number, with its exemplars. Raises UnknownClusterError."""
    found = asdict(clustering.find_cluster(connection, number))
    return _shown(found, _exemplars(connection, found["of"], found["exemplars"]))


def _exemplars(connection: Connection, of: Of, names: list[str]) -> dict[str, Picture]:
    """Exemplars by their names, which are keys of images or works."""
    query, asked = ("images", {"keys": names}) if of == "images" else ("first_images", {"works": names})
    found = [Picture(**as_picture(row)) for row in rows(connection, QUERIES[query], asked)]
    return {picture.key if of == "images" else str(picture.work): picture for picture in found}


def _shown(row: dict[str, Any], pictures: dict[str, Picture]) -> ShownCluster:
    exemplars = [pictures[name] for name in row["exemplars"] if name in pictures]
    return ShownCluster(**{**row, "exemplars": exemplars})


def list_members(
    connection: Connection, cluster: Cluster, cursor: str | None = None, limit: int = 60
) -> Page[ClusterMember]:
    """The members of a cluster, nearest to its centre first: images, or works by their first image."""
    if cluster.of == "images":
        distance, after = read_cursor(cursor, (-1.0, 0))
    else:
        distance, after = read_cursor(cursor, (-1.0, ""))
    asked = {"cluster": cluster.cluster, "after_distance": distance, "after": after, "limit": limit + 1}
    found = rows(connection, QUERIES["image_members" if cluster.of == "images" else "work_members"], asked)
    last = "id" if cluster.of == "images" else "work"
    return page(
        found, limit, lambda row: ClusterMember(**as_picture(row)), lambda row: (row["distance"], row[last])
    )


# Near-duplicates -----------------------------------------------------------------------------------------------------


def list_pairs(
    connection: Connection, encoder: str, decided: bool = False, cursor: str | None = None, limit: int = 20
) -> Page[Pair]:
    """Pairs of near-duplicates, nearest first: those nobody has decided about, or with `decided` all.

    What people called different is none and does not come back.
    """
    distance, a, b = read_cursor(cursor, (-1.0, 0, 0))
    asked = {"encoder": encoder, "after_distance": distance, "after_a": a, "after_b": b, "limit": limit + 1}
    # Not a parameter: the index of pairs that wait is only for those who ask for them in so many words.
    which = sql.SQL("true" if decided else "not decided")
    found = rows(connection, sql.SQL(QUERIES["pairs"]).format(which=which), asked)
    return page(found, limit, _as_pair, lambda row: (row["distance"], row["first_id"], row["second_id"]))


def _as_pair(row: dict[str, Any]) -> Pair:
    return Pair(
        first=Picture(**as_picture(row["first"])),
        second=Picture(**as_picture(row["second"])),
        distance=row["distance"],
        likeness=row["likeness"],
        turn=row["turn"],
        same=row["same"],
        decided_by=row["marked_by"],
        decided_at=row["marked_at"],
    )


def list_groups(
    connection: Connection, encoder: str, cursor: str | None = None, limit: int = 20
) -> Page[Group]:
    """Groups of near-duplicates, the largest first, with the first twelve images of each."""
    size, after = read_cursor(cursor, (LARGEST, 0))
    asked = {
        "encoder": encoder,
        "after_size": size,
        "after": after,
        "members": MEMBERS,
        "limit": limit + 1,
    }
    found = rows(connection, QUERIES["groups"], asked)
    return page(found, limit, _as_group, lambda row: (row["size"], row["group"]))


def _as_group(row: dict[str, Any]) -> Group:
    images = [GroupMember(**as_picture(image)) for image in row["images"] or []]
    return Group(group=row["group"], size=row["size"], images=images)


# Unwanted images -----------------------------------------------------------------------------------------------------


def list_unwanted(
    connection: Connection,
    name: str | None = None,
    state: State = "candidate",
    cursor: str | None = None,
    limit: int = 40,
) -> Page[UnwantedImage]:
    """Images of a set, or of all sets, in this state, nearest to an example first. Raises UnknownSetError."""
    distance, after, after_set = read_cursor(cursor, (-1.0, 0, 0))
    asked = {
        "set": None if name is None else get_set(connection, name).id,
        "state": state,
        "after_distance": distance,
        "after": after,
        "after_set": after_set,
    }
    found = rows(connection, QUERIES["unwanted"], {**asked, "limit": limit + 1})
    return page(
        found,
        limit,
        lambda row: UnwantedImage(**as_picture(row)),
        lambda row: (row["distance"], row["image_id"], row["set_id"]),
    )


def list_sets(connection: Connection) -> list[UnwantedSet]:
    """All sets of unwanted images, by name."""
    return [UnwantedSet(**asdict(one)) for one in unwanting.list_sets(connection)]


# Decisions -----------------------------------------------------------------------------------------------------------


def list_decisions(connection: Connection, cursor: str | None = None, limit: int = 40) -> Page[Decision]:
    """What was decided, the latest first, also what was taken back."""
    (before,) = read_cursor(cursor, (2**62,))
    found = rows(connection, QUERIES["decisions"], {"before": before, "limit": limit + 1})
    return page(found, limit, lambda row: Decision(**row), lambda row: (row["id"],))
