"""Groups of near-duplicates: what pairs link, directly or through others. Kept up to date pair by pair.

All functions run in the caller's transaction, under the lock on the groups of their encoder.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.rows import dict_row, scalar_row

from lookalike.queries import load_queries

Connection = psycopg.Connection[tuple[Any, ...]]
QUERIES = load_queries("duplicates")

# Of a larger group the representative stays who it is: to compare everyone with everyone costs too much.
COMPARED = 1000


def link(connection: Connection, encoder: str, pairs: Iterable[tuple[int, int]]) -> None:
    """Puts the two images of each pair into one group, with all that are in a group with either."""
    pairs = list(pairs)
    images = sorted({image for pair in pairs for image in pair})
    if not images:
        return
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(QUERIES["groups_of"], {"encoder": encoder, "ids": images}).fetchall()
    group_of = {row["image_id"]: row["group_id"] for row in rows}
    sizes = {row["group_id"]: row["size"] for row in rows}
    changed = []
    # Groups take part as nodes of their own, with negative numbers: they link what is in them.
    for component in components([*pairs, *((image, -group) for image, group in group_of.items())]):
        old = sorted((-node for node in component if node < 0), key=lambda group: (-sizes[group], group))
        new = [node for node in component if node > 0 and node not in group_of]
        changed.append(_join(connection, encoder, old, new))
    _describe(connection, encoder, changed)


def _join(connection: Connection, encoder: str, groups: list[int], images: list[int]) -> int:
    """Makes one group of some groups and images: the largest one stays."""
    if groups:
        group, others = groups[0], groups[1:]
    else:
        group, others = _new_group(connection, encoder), []
    if others:
        connection.execute(QUERIES["join_groups"], {"group": group, "others": others})
        connection.execute(QUERIES["delete_groups"], {"groups": others})
    if images:
        connection.execute(QUERIES["add_members"], {"encoder": encoder, "group": group, "ids": images})
    return group


def _new_group(connection: Connection, encoder: str) -> int:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return int(cursor.execute(QUERIES["new_group"], {"encoder": encoder}).fetchone() or 0)


def relink(connection: Connection, encoder: str, images: Iterable[int], changed: Iterable[int] = ()) -> None:
    """Takes the groups of these images apart, and links anew what is still linked.

    A giant group only loses those of its images that have `changed`: what held together through them stays together.
    """
    asked = {"encoder": encoder, "ids": sorted(images)}
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(QUERIES["groups_of"], asked).fetchall()
    giant = sorted({row["group_id"] for row in found if row["size"] > COMPARED})
    groups = sorted({row["group_id"] for row in found} - set(giant))
    if giant:
        left = {"encoder": encoder, "ids": sorted(changed), "groups": giant}
        connection.execute(QUERIES["leave_groups"], left)
        _describe(connection, encoder, giant)
    if not groups:
        return
    with connection.cursor(row_factory=scalar_row) as cursor:
        members = cursor.execute(QUERIES["dissolve_groups"], {"groups": groups}).fetchall()
    connection.execute(QUERIES["delete_groups"], {"groups": groups})
    rows = connection.execute(QUERIES["links"], {"encoder": encoder, "ids": members}).fetchall()
    link(connection, encoder, [(int(a), int(b)) for a, b in rows])


def _describe(connection: Connection, encoder: str, groups: list[int]) -> None:
    """Counts the members of groups, and chooses who stands for each."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(QUERIES["count_members"], {"groups": groups}).fetchall()
    small = [row["id"] for row in rows if row["size"] <= COMPARED or row["representative_id"] is None]
    connection.execute(QUERIES["choose_representatives"], {"encoder": encoder, "groups": small})


def components(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The connected components of a graph, each sorted (union-find with path halving, Tarjan 1975)."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in pairs:
        parent[root(a)] = root(b)
    found: dict[int, list[int]] = defaultdict(list)
    for node in sorted(parent):
        found[root(node)].append(node)
    return list(found.values())
