"""An archive for tests of the explorer, without a network: images with vectors, one that waits, one that failed."""

from collections.abc import Iterator

from lookalike import archive, ledger
from lookalike.database import Connection, connect
from lookalike.groups import link
from lookalike.images import Image
from lookalike.ledger import Failure, RetryPolicy
from lookalike.reasons import Reason
from tests.conftest import new_database
from tests.factories import TINY, make_vectors

IMAGES = 60


def make_catalogue() -> list[Image]:
    """Images, every other one at a IIIF service, two to a work, with titles and licences."""
    return [
        Image(
            f"image/{number:05}",
            f"https://iiif.example.org/{number}" if number % 2 else f"https://example.org/{number}.jpg",
            "iiif" if number % 2 else "file",
            work=f"work-{number // 2}",
            title=f"A view of {'Rome' if number % 3 else 'Naples'}, plate {number}",
            licence="cc-by" if number % 2 else "pdm",
        )
        for number in range(IMAGES)
    ]


def fill(connection: Connection) -> None:
    """60 images with vectors of the tiny encoder; `waiting/similar` waits, and `broken` failed."""
    archive.add_encoder(connection, TINY, chunk_size=IMAGES + 1)
    broken = Image("broken", "https://example.org/broken.jpg", title="Broken")
    ledger.register(connection, [*make_catalogue(), broken], chunk_size=IMAGES + 1)
    (claim,) = ledger.lease(connection, "tiny", "backfill", 10, 60)
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    sound = [image for image in chunk.images if image.key != "broken"]
    (other,) = (image for image in chunk.images if image.key == "broken")
    failures = [Failure(other, Reason.NOT_FOUND, "404")]
    ledger.finish(connection, chunk, make_vectors(sound, connection), failures, RetryPolicy(1, 1))
    waiting = Image("waiting/similar", "file:///scans/secret/1.tif", title="Waiting")
    ledger.register(connection, [waiting])


def add_analyses(connection: Connection) -> None:
    """Two clusters of 30 images each, five pairs of near-duplicates in two groups, and three candidates of a set."""
    connection.execute(
        "insert into analyses (id, kind, encoder, scope, settings, standing, settled_at) overriding system value"
        " values (1000, 'clusters', 'tiny', 'images kmeans', '{}', true, now());"
        "insert into clusterings (analysis, encoder, of, method, seed, sampled, shown)"
        " values (1000, 'tiny', 'images', 'kmeans', 0, 60, true);"
        "insert into cluster_identities (encoder, of, method, name) values ('tiny', 'images', 'kmeans', 'Portraits'),"
        " ('tiny', 'images', 'kmeans', null);"
        "insert into cluster_centres (analysis, number, centre, cluster, size, spread, exemplars)"
        " select 1000, id - 1, '[1,0,0,0]', id, 30, 0.1, array['image/00000', 'image/00001'] from cluster_identities;"
        "select make_members('images', 1000);"
        "insert into clustered_images"
        " select 1000, image_id, image_id % 2, 0.1 + (image_id % 7) / 100.0 from vectors_tiny"
    )
    connection.execute(
        "insert into duplicate_pairs (encoder, a, b, distance, likeness) values ('tiny', 1, 2, 0.01, 0.99),"
        " ('tiny', 1, 3, 0.02, 0.9), ('tiny', 2, 3, 0.02, 0.9), ('tiny', 10, 11, 0.02, null), ('tiny', 11, 12, 0.03, 1)"
    )
    link(connection, "tiny", [(1, 2), (1, 3), (2, 3), (10, 11), (11, 12)])
    connection.execute(
        "insert into unwanted_sets (name, encoder, threshold) values ('charts', 'tiny', 0.2);"
        "insert into unwanted_images (set_id, image_id, example, nearest_id, distance, state, decided_by, decided_at)"
        " select 1, 20, true, 20, 0, 'accepted', 'ann', now();"
        "insert into unwanted_images (set_id, image_id, nearest_id, distance)"
        " select 1, n, 20, 0.1 from generate_series(21, 23) n"
    )


def filled_database(server_url: str, template_database: str) -> Iterator[str]:
    """The address of a new database with all of it, for tests that only read; it is dropped behind them."""
    for url in new_database(server_url, template_database):
        with connect(url, application_name="test") as connection:
            fill(connection)
            add_analyses(connection)
        yield url
