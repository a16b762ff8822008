"""The archive that the benches of search ask: loaded by lookalike's own ways in, once for each home, and kept there.

Its encoder has a calibration from a sample of its own vectors, as a new encoder should. A load that was interrupted
goes on where it stopped.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from bench.search_data import Mixture
from lookalike import archive, index, ledger, services
from lookalike.calibration import Calibration, make_calibration
from lookalike.database import Connection, connect
from lookalike.encoders import EncoderSpec, find_encoder
from lookalike.images import Image
from lookalike.migrate import migrate
from lookalike.settings import Settings
from lookalike.vectors import Vectors, store_vectors

BATCH = 2000
SAMPLE = 20_000
ROWS = 200_000
# Every 10th, 100th and 1,000th image has a licence of its own: filters that 9 %, 0.9 % and 0.1 % of all images pass.
LICENCES = {1000: "thousandth", 100: "hundredth", 10: "tenth"}
GRAPH_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True)
class Loaded:
    """An archive: where it is, its encoder and table, how many vectors of how many dimensions."""

    url: str
    encoder: str
    table: str
    dimension: int
    rows: int


def synthetic_encoder(dimension: int) -> EncoderSpec:
    """An encoder without a network, whose distances are those of the default encoder."""
    spec = find_encoder("efficientnet-lite0")
    return replace(spec, name=f"synthetic-{dimension}", dimension=dimension, network="none", classifies=False)


@contextmanager
def open_archive(settings: Settings, dimension: int, rows: int = ROWS) -> Iterator[tuple[Loaded, Connection]]:
    """The archive of so many synthetic vectors and a connection to it; loads and builds what is not there yet."""
    server = services.up(settings).database_url
    name = synthetic_encoder(dimension).name
    loaded = Loaded(server, name, "vectors_" + name.replace("-", "_"), dimension, rows)
    database = database_of(loaded)
    loaded = replace(loaded, url=server.replace("/lookalike?", f"/{database}?"))
    with connect(server, application_name="bench") as admin:
        if not admin.execute("select from pg_database where datname = %s", [database]).rowcount:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
            migrate(loaded.url)
    with connect(loaded.url, application_name="bench") as connection:
        load(connection, loaded)
        build(loaded)
        yield loaded, connection


@contextmanager
def copy_archive(settings: Settings, loaded: Loaded, name: str) -> Iterator[Loaded]:
    """A copy of an archive that may be changed; it is dropped at the end of the block. Nobody may be connected."""
    server = services.up(settings).database_url
    source, copy = database_of(loaded), f"{database_of(loaded)}_{name}"
    with connect(server, application_name="bench") as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(copy)))
        admin.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(copy), sql.Identifier(source)
            )
        )
        try:
            yield replace(loaded, url=loaded.url.replace(f"/{source}?", f"/{copy}?"))
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(copy)))


def database_of(loaded: Loaded) -> str:
    """The name of the archive's database."""
    return f"search_{loaded.dimension}_{loaded.rows}"


def reconnect(loaded: Loaded) -> Connection:
    """Another connection to the archive; its block closes it."""
    return connect(loaded.url, application_name="bench")


def load(connection: Connection, loaded: Loaded) -> float:
    """Stores the vectors that are missing; the seconds it took, without those of making the vectors."""
    mixture = Mixture(loaded.dimension)
    spec = synthetic_encoder(loaded.dimension)
    if not archive.is_added(connection, spec.name):
        add_encoder(connection, spec, mixture.make(SAMPLE, 10**6))
    calibration = archive.load_calibration(connection, spec.name)
    table = sql.Identifier(loaded.table)
    row = connection.execute(sql.SQL("select count(*) from {}").format(table)).fetchone()
    assert row is not None
    spent = 0.0
    for block in range(row[0] // BATCH, loaded.rows // BATCH):
        vectors = mixture.make(BATCH, block)
        since = time.perf_counter()
        ids = register(connection, block * BATCH, BATCH)
        store(connection, loaded, ids, calibration.codes(vectors), vectors)
        spent += time.perf_counter() - since
    if spent:
        # The ledger is not what is measured here: everything is done.
        connection.execute("update chunks set state = 'done', done_at = now() where state = 'pending'")
        connection.execute("vacuum analyze")
    return spent


def build(loaded: Loaded) -> float:
    """Builds the index as the command does, with a process on every core; the seconds it took."""
    since = time.perf_counter()
    index.build(
        lambda: connect(loaded.url, application_name="bench"),
        loaded.encoder,
        GRAPH_MEMORY,
        (os.cpu_count() or 2) - 1,
        lambda _: None,
    )
    return time.perf_counter() - since


def add_encoder(connection: Connection, spec: EncoderSpec, sample: NDArray[np.float32]) -> None:
    """Adds an encoder and gives it the calibration from a sample (n, d) of its vectors."""
    archive.add_encoder(connection, spec, BATCH)
    calibration = make_calibration(spec.name, spec.dimension, sample.mean(0))
    # The rotation, which depends on the name alone, is stored already: only the thresholds know the mean.
    with connection.cursor() as cursor:
        cursor.executemany(
            "update calibrations set threshold = %s where encoder = %s and bit = %s",
            [(float(threshold), spec.name, bit) for bit, threshold in enumerate(calibration.thresholds)],
        )


def register(connection: Connection, first: int, count: int) -> NDArray[np.int64]:
    """Registers images `first` .. `first + count - 1`; their ids, in this order."""
    images = [
        Image(
            key_of(number),
            f"https://example.org/{number}.jpg",
            work=f"work-{number // 20}",
            title="An image",
            licence=licence_of(number),
        )
        for number in range(first, first + count)
    ]
    ledger.register(connection, images, chunk_size=BATCH)
    rows = connection.execute(
        "select id from images where key = any(%s) order by key", [[image.key for image in images]]
    )
    return np.array([row[0] for row in rows], np.int64)


def key_of(number: int) -> str:
    """The key of image `number`; keys sort as numbers do."""
    return f"synthetic/{number:09}"


def number_of(key: str) -> int:
    """The number of the image with this key."""
    return int(key.rpartition("/")[2])


def licence_of(number: int) -> str:
    """The licence of image `number`."""
    return next((name for every, name in LICENCES.items() if number % every == 0), "other")


def store(
    connection: Connection,
    loaded: Loaded,
    ids: NDArray[np.int64],
    codes: NDArray[np.uint8],
    vectors: NDArray[np.float32],
) -> None:
    """Stores vectors (n, d) of these images (n,) in one transaction, as a worker does."""
    count = len(ids)
    rows = Vectors(ids, np.ones(count, np.int32), np.zeros((count, 32), np.uint8), codes, vectors)
    with connection.transaction():
        store_vectors(connection, loaded.encoder, sql.Identifier(loaded.table), rows)


def calibration_of(connection: Connection, loaded: Loaded) -> Calibration:
    """The frozen calibration of the archive's encoder."""
    return archive.load_calibration(connection, loaded.encoder)


def bytes_per_image(connection: Connection, loaded: Loaded) -> tuple[float, float]:
    """Bytes for each vector: of the table with its TOAST and primary key, and of the index on the codes."""
    row = connection.execute(
        "select coalesce(sum(pg_total_relation_size(h.inhrelid)), 0), coalesce(sum(pg_relation_size(x.oid)), 0)"
        " from pg_inherits h join pg_class c on c.oid = h.inhrelid"
        " left join pg_class x on x.relname = c.relname || '_code'"
        " where h.inhparent = to_regclass(%s)",
        [loaded.table],
    ).fetchone()
    assert row is not None
    both, codes = float(row[0]), float(row[1])
    return (both - codes) / loaded.rows, codes / loaded.rows if codes else math.nan
