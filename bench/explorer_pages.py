"""Every query that the explorer reads pages by, on a catalogue of millions: milliseconds, pages of the database that it
touches, and the indexes that its plan uses. What reads a large table as a whole is marked.
"""

import statistics
from collections.abc import Iterator
from typing import Any

from bench.catalogue import open_catalogue, words
from bench.table import print_table
from explorer.archive import WORK_MEMORY
from explorer.finding import FOUND_AT_MOST, WALK_AT_MOST
from explorer.reading import QUERIES
from lookalike.database import Connection
from lookalike.settings import Settings

RUNS = 5
LIMIT = 61
# Tables that grow with the archive.
LARGE = (
    "images",
    "labels",
    "failures",
    "duplicate_pairs",
    "duplicate_groups",
    "duplicate_members",
    "unwanted_images",
)
NOWHERE = {"include_unwanted": False, "after": "", "limit": LIMIT}


def run(settings: Settings) -> None:
    """Prints the table."""
    with open_catalogue(settings) as connection:
        connection.execute(f"set work_mem = '{WORK_MEMORY}'".encode())
        rows = [(words, *_measure(connection, query, asked)) for query, words, asked in _cases(connection)]
        (images,) = connection.execute("select count(*) from images").fetchone() or (0,)
    print_table(f"Pages of the explorer, {images:,} images", ("", "rows", "ms", "pages", "by"), rows)


def _cases(connection: Connection) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The name of a query, what is asked in words, and its parameters."""
    vocabulary = words()
    key, image, work = connection.execute(
        "select key, id, work from images where id = 1000001"
    ).fetchone() or ("", 0, "")
    some = [row[0] for row in connection.execute("select key from images where id % 40009 = 0 limit 60")]
    works = [f"work-{n * 997}" for n in range(60)]
    for label, word in _words(vocabulary):
        query, most = ("walk_titles", WALK_AT_MOST) if "many" in label else ("find_by_title", FOUND_AT_MOST)
        yield query, f"search: {label}", {**NOWHERE, "text": "~", "words": word, "most": most}
    yield (
        "walk_titles",
        "search: 10,000 titles read in vain",
        {**NOWHERE, "text": "~", "words": "nothing", "most": WALK_AT_MOST},
    )
    yield "walked_to", "search: where that ended", {**NOWHERE, "most": WALK_AT_MOST}
    yield "find_by_key", "search: the beginning of a key", {**NOWHERE, "text": "catalogue/1"}
    yield "image", "an image", {"key": key}
    yield "labels", "its labels", {"encoder": "catalogue", "image": 1000000}
    yield "image_clusters", "its clusters", {"encoder": "catalogue", "image": image, "work": work}
    yield "copies_of", "its near-duplicates", {"encoder": "catalogue", "image": image, "limit": 10}
    yield "image_unwanted", "what sets say of it", {"image": image}
    yield "bounds", "random wall: its bounds", {}
    yield "wall", "random wall", {"ids": list(range(1, 4_000_000, 16_667)), "count": 60}
    yield "work", "a work of twenty images", {**NOWHERE, "work": work, "after": 0, "limit": 101}
    yield (
        "work",
        "a work of a fortieth of all, the latest",
        {**NOWHERE, "work": "work-big", "after": 0, "limit": 101},
    )
    yield "work", "the same, its middle", {**NOWHERE, "work": "work-big", "after": 3_900_000, "limit": 101}
    for colour in ("c83c32", "101010", "00ff00"):
        yield (
            "by_colour",
            f"colour {colour}",
            {"colour": colour, "k": 100, "max_distance": None, "include_unwanted": False},
        )
    yield "images", "sixty images by their keys", {"keys": some}
    yield "first_images", "the first images of sixty works", {"works": works}
    listed = {"encoder": "catalogue", "of": "images", "method": "kmeans", "limit": LIMIT}
    yield "clusters", "clusters", {**listed, "after_size": 2**40, "after": 0}
    members = {"cluster": 77, "limit": LIMIT}
    yield "image_members", "members of a cluster", {**members, "after_distance": -1.0, "after": 0}
    yield "image_members", "the same, its middle", {**members, "after_distance": 0.5, "after": 0}
    pairs = {"encoder": "catalogue", "limit": LIMIT, "decided": False, "after_a": 0, "after_b": 0}
    yield "pairs", "near-duplicate pairs", {**pairs, "after_distance": -1.0}
    yield "pairs", "the same, their middle", {**pairs, "after_distance": 0.025}
    groups = {"encoder": "catalogue", "limit": LIMIT, "members": 12}
    yield "groups", "groups of near-duplicates", {**groups, "after_size": 2**30, "after": 0}
    yield "groups", "the same, their middle", {**groups, "after_size": 2, "after": 20_000}
    (one,) = connection.execute("select min(id) from unwanted_sets").fetchone() or (0,)
    for state in ("candidate", "accepted"):
        asked = {"state": state, "after_distance": -1.0, "after": 0, "after_set": 0, "limit": LIMIT}
        yield "unwanted", f"unwanted images: {state}s of all sets", {**asked, "set": None}
        yield "unwanted", f"unwanted images: {state}s of one set", {**asked, "set": one}
        yield "unwanted", f"the same, its middle: {state}s", {**asked, "set": one, "after_distance": 0.5}
    yield "licences", "the licences there are", {}
    yield "decisions", "decisions", {"before": 2**60, "limit": LIMIT}
    failed = {"encoder": "catalogue", "failed_at": "infinity", "after": 0, "limit": LIMIT}
    yield "failed", "failures", {**failed, "reason": None}
    for reason in ("not_found", "corrupt"):
        yield "failed", f"failures: {reason}", {**failed, "reason": reason}


def _words(vocabulary: list[str]) -> Iterator[tuple[str, str]]:
    for rank in (0, 9, 39):
        yield f"word {rank + 1} of the language, in many titles", vocabulary[rank]
    yield "two words, in many titles", f"{vocabulary[0]} & {vocabulary[1]}"
    for rank in (99, 999, 29_999):
        yield f"word {rank + 1}", vocabulary[rank]
    yield "words 1 and 30,000", f"{vocabulary[0]} & {vocabulary[-1]}"
    yield "words 10 and 11", f"{vocabulary[9]} & {vocabulary[10]}"
    yield "words 1, 2, 3 and 4", " & ".join(vocabulary[:4])
    yield "beginning of word 30,000", f"{vocabulary[-1][:4]}:*"


def _measure(connection: Connection, query: str, asked: dict[str, Any]) -> tuple[str, ...]:
    times = []
    for _ in range(RUNS):
        explain = f"explain (analyze, buffers, format json) {QUERIES[query]}"
        (found,) = connection.execute(explain.encode(), asked).fetchone() or ([],)
        plan = found[0]
        times.append(plan["Execution Time"])
    root = plan["Plan"]
    pages = root["Shared Hit Blocks"] + root["Shared Read Blocks"]
    return (
        f"{root['Actual Rows']:.0f}",
        f"{statistics.median(times):.1f}",
        f"{pages:,}",
        ", ".join(_means(root)),
    )


def _means(plan: dict[str, Any]) -> list[str]:
    """The indexes that a plan uses; large tables that it reads as a whole, in capitals."""
    found = {}
    for node in _nodes(plan):
        if node.get("Relation Name") in LARGE and "Seq Scan" in node["Node Type"] and node["Actual Loops"]:
            found[f"ALL OF {node['Relation Name']}"] = None
        elif "Index Name" in node and node["Actual Loops"]:
            found[node["Index Name"]] = None
    return list(found)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
