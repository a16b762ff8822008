"""Clusters: images, or works, that look alike, each in one cluster that has exemplars, a label and a lasting identity.

Centres are trained on a sample before the analysis begins. Then each chunk assigns its images, or the works that they
belong to, to the nearest centre; images that arrive later are assigned as they come. What is shown stays until the next
clustering is complete. HDBSCAN is for a look at a sample: it assigns that alone, once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from psycopg.rows import class_row, scalar_row

from lookalike import analyses, cluster_summary
from lookalike.analyses import Analysis, TurnedVectors
from lookalike.centres import as_distance, assign, find_dense, require_faiss, train
from lookalike.cluster_samples import QUERIES, Item, Items, Of, Table, draw, find_table, read
from lookalike.errors import ConfigurationError, UnknownClusterError
from lookalike.ledger import ChunkImage

Connection = psycopg.Connection[tuple[Any, ...]]
Method = Literal["kmeans", "hdbscan"]

# Images that are assigned in one job.
CHUNK = 1024
SAMPLE = {"kmeans": 100_000, "hdbscan": 5_000}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: `clusters` None has the number chosen; `sample` is in vectors."""

    of: Of = "images"
    method: Method = "kmeans"
    clusters: int | None = None
    sample: int = SAMPLE["kmeans"]
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("of", "method", "clusters", "sample", "seed")}


@dataclass(frozen=True, slots=True)
class Plan:
    """A wish with trained centres, float32 (clusters, d), ready to begin. `assigned` is all that HDBSCAN assigns."""

    encoder: str
    wish: Wish
    centres: NDArray[np.float32]
    sampled: int
    silhouette: float | None
    tried: dict[int, float]
    assigned: "Assigned | None" = None


@dataclass(frozen=True, slots=True)
class Assigned:
    """The clusters of n images or works, with distances 0..1 to their centres."""

    of: Of
    items: list[Item]
    numbers: list[int]
    distances: list[float]
    images: list[int]
    latest: list[datetime]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as it is shown; `cluster` is its stable number, `spread` the mean distance to the centre, 0..1."""

    cluster: int
    of: Of
    method: Method
    name: str | None
    label: str | None
    size: int
    spread: float
    exemplars: list[str]
    classes: list[str]
    words: list[str]


@dataclass(frozen=True, slots=True)
class Member:
    """An image of a cluster, or a work; distance 0..1 to the centre."""

    image: str | None
    work: str | None
    title: str | None
    distance: float
    url: str | None


# Making clusters -----------------------------------------------------------------------------------------------------


def find_unfinished(connection: Connection, encoder: str, wish: Wish) -> Analysis | None:
    """An analysis of the same wish that was interrupted before it was shown: it can go on. None when there is none."""
    found = analyses.find_standing(connection, "clusters", encoder, wish.settings())
    return None if found is None or cluster_summary.is_shown(connection, found.id) else found


def plan(connection: Connection, encoder: str, wish: Wish) -> Plan:
    """Samples vectors and trains centres; nothing is stored.

    Raises UnknownEncoderError; ConfigurationError when a library is missing or there are too few vectors.
    """
    if wish.method == "kmeans":
        require_faiss()
    table = find_table(connection, encoder)
    sample = read(connection, table, wish.of, draw(connection, table, wish.of, wish.sample, wish.seed))
    if wish.method == "hdbscan":
        return _plan_dense(encoder, wish, table, sample)
    trained = train(sample.vectors, wish.clusters, wish.seed)
    return Plan(encoder, wish, trained.centres, len(sample), trained.silhouette, trained.tried)


def _plan_dense(encoder: str, wish: Wish, table: Table, sample: Items) -> Plan:
    if wish.clusters is not None:
        raise ConfigurationError("HDBSCAN finds the number of clusters by itself: leave it out")
    numbers, centres = find_dense(sample.vectors)
    chosen = np.flatnonzero(numbers >= 0)
    cosines = np.einsum("nd,nd->n", sample.vectors[chosen], centres[numbers[chosen]])
    distances = as_distance(np.clip(1 - cosines, 0, 2).astype(np.float32), table.form)
    assigned = _assigned(wish.of, sample, chosen, numbers[chosen], distances)
    return Plan(encoder, wish, centres, len(sample), None, {}, assigned)


def begin(connection: Connection, planned: Plan) -> Analysis:
    """Begins to assign everything to the centres of a plan, and goes on as images arrive; HDBSCAN only its sample.

    Clusters of before are shown until all is assigned.
    """
    wish = planned.wish
    return analyses.begin(
        connection,
        "clusters",
        planned.encoder,
        wish.settings(),
        CHUNK,
        partial(_prepare, planned=planned),
        scope=f"{wish.of} {wish.method}",
        standing=wish.method == "kmeans",
    )


def _prepare(connection: Connection, number: int, planned: Plan) -> None:
    """Writes the centres, and the sample of HDBSCAN, for the analysis of this number."""
    wish = planned.wish
    connection.execute(
        QUERIES["insert_clustering"],
        {
            "analysis": number,
            "encoder": planned.encoder,
            "of": wish.of,
            "method": wish.method,
            "seed": wish.seed,
            "sampled": planned.sampled,
            "silhouette": planned.silhouette,
        },
    )
    with connection.cursor().copy(QUERIES["copy_centres"]) as copy:
        copy.set_types(["int8", "int4", "vector"])
        for row, centre in enumerate(planned.centres):
            copy.write_row((number, row, Vector(centre)))
    connection.execute(QUERIES["make_partition"], {"of": wish.of, "analysis": number})
    if planned.assigned is not None:
        _write(connection, number, find_table(connection, planned.encoder), planned.assigned)


# What a kind does ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Clustering:
    """What is needed to assign; it never changes."""

    analysis: int
    of: Of
    method: Method
    made_at: datetime
    vectors: str
    dimension: int
    form: Literal["clamped", "halved"]

    @property
    def table(self) -> Table:
        return Table(self.vectors, self.dimension, self.form)


def find(
    connection: Connection,
    analysis: Analysis,
    images: Sequence[ChunkImage],
    turned: TurnedVectors,  # noqa: ARG001  # for other kinds
) -> Assigned:
    """The nearest centres of some images, or of those of their works that are not assigned as they are now."""
    clustering = _find_clustering(connection, analysis.id)
    ids: list[Item] = [image.id for image in images]
    if clustering.of == "works":
        with connection.cursor(row_factory=scalar_row) as cursor:
            asked = {"analysis": analysis.id, "ids": ids}
            ids = cursor.execute(clustering.table.format("changed_works"), asked).fetchall()
    found = read(connection, clustering.table, clustering.of, ids)
    numbers, cosine = assign(found.vectors, _read_centres(connection, clustering))
    distances = as_distance(cosine, clustering.form)
    return _assigned(clustering.of, found, np.arange(len(found)), numbers, distances)


def store(
    connection: Connection,
    analysis: Analysis,
    images: Sequence[ChunkImage],  # noqa: ARG001  # for other kinds
    found: Assigned,
) -> None:
    """Writes the clusters of a chunk, in the caller's transaction."""
    _write(connection, analysis.id, find_table(connection, analysis.encoder), found)


settle = cluster_summary.settle


def _find_clustering(connection: Connection, analysis: int) -> _Clustering:
    with connection.cursor(row_factory=class_row(_Clustering)) as cursor:
        found = cursor.execute(QUERIES["select_clustering"], {"analysis": analysis}).fetchone()
    assert found is not None, f"chunk of an unknown clustering {analysis}"
    return found


# The centres of the last few clusterings that this process worked on: to read them for each chunk would cost more than
# the vectors of the chunk.
_known: dict[_Clustering, NDArray[np.float32]] = {}
_KNOWN_AT_MOST = 4


def _read_centres(connection: Connection, clustering: _Clustering) -> NDArray[np.float32]:
    centres = _known.get(clustering)
    if centres is None:
        with connection.cursor(row_factory=scalar_row, binary=True) as cursor:
            rows = cursor.execute(QUERIES["select_centres"], {"analysis": clustering.analysis}).fetchall()
        centres = np.array([row.to_numpy() for row in rows], np.float32)
        if len(_known) >= _KNOWN_AT_MOST:
            _known.clear()
        _known[clustering] = centres
    return centres


def _assigned(
    of: Of,
    found: Items,
    chosen: NDArray[np.intp],
    numbers: NDArray[np.intp],
    distances: NDArray[np.float32],
) -> Assigned:
    """Those items that are chosen, with their clusters."""
    rows = chosen.tolist()
    return Assigned(
        of,
        [found.items[row] for row in rows],
        numbers.tolist(),
        distances.tolist(),
        [found.images[row] for row in rows],
        [found.latest[row] for row in rows],
    )


def _write(connection: Connection, number: int, table: Table, found: Assigned) -> None:
    query = table.format("assign_images" if found.of == "images" else "assign_works")
    written = {
        "analysis": number,
        "items": found.items,
        "numbers": found.numbers,
        "distances": found.distances,
        "images": found.images,
        "latest": found.latest,
    }
    connection.execute(query, written)


# For people ----------------------------------------------------------------------------------------------------------


def list_clusters(
    connection: Connection, encoder: str, of: Of = "images", method: Method = "kmeans", limit: int = 100
) -> list[Cluster]:
    """The largest clusters that are shown."""
    with connection.cursor(row_factory=class_row(Cluster)) as cursor:
        asked = {"encoder": encoder, "of": of, "method": method, "limit": limit}
        return cursor.execute(QUERIES["list"], asked).fetchall()


def find_cluster(connection: Connection, number: int) -> Cluster:
    """The cluster of this stable number. Raises UnknownClusterError."""
    with connection.cursor(row_factory=class_row(Cluster)) as cursor:
        found = cursor.execute(QUERIES["show_cluster"], {"cluster": number}).fetchone()
    if found is None:
        raise UnknownClusterError(f"no cluster {number} is shown: `lookalike clusters list` shows which are")
    return found


def list_members(connection: Connection, number: int, limit: int = 20) -> list[Member]:
    """The members of a cluster, nearest to the centre first."""
    with connection.cursor(row_factory=class_row(Member)) as cursor:
        return cursor.execute(QUERIES["members"], {"cluster": number, "limit": limit}).fetchall()


def name(connection: Connection, number: int, words: str | None) -> None:
    """Gives a cluster a name, which stays as long as the cluster does; None takes it away.

    Raises UnknownClusterError.
    """
    asked = {"cluster": number, "name": words or None}
    if connection.execute(QUERIES["name"], asked).rowcount == 0:
        raise UnknownClusterError(f"no cluster has the number {number}")
