"""Storing vectors: the worker's COPY and upsert into the partitioned table, against a bare COPY of the same rows."""

import time

import numpy as np
from psycopg import sql

from bench.services import fresh_database
from bench.table import median_and_range, print_table
from lookalike import archive
from lookalike.encoders import find_encoder
from lookalike.settings import Settings
from lookalike.vectors import Vectors, binary_rows, store_vectors

CHUNK = 256
CHUNKS = 16
ROUNDS = 5


def run(settings: Settings) -> None:
    """Rounds take turns; each transaction holds one chunk, as a worker's does."""
    spec = find_encoder("efficientnet-lite0")
    random = np.random.default_rng(0)
    with fresh_database(settings) as (_, connection):
        archive.add_encoder(connection, spec, CHUNK)
        calibration = archive.load_calibration(connection, spec.name)
        connection.execute(
            "create table bare (image_id bigint, revision int, checksum bytea, code bit(1280), v halfvec(1280))"
        )
        connection.execute("alter table bare alter code set storage plain, alter v set storage external")
        stored, bare = [], []
        for number in range(ROUNDS):
            rows = random.standard_normal((CHUNK * CHUNKS, spec.dimension)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            codes = calibration.codes(rows)
            chunks = [
                Vectors(
                    np.arange(part, part + CHUNK, dtype=np.int64) + number * CHUNK * CHUNKS,
                    np.ones(CHUNK, np.int32),
                    np.zeros((CHUNK, 32), np.uint8),
                    codes[part : part + CHUNK],
                    rows[part : part + CHUNK],
                )
                for part in range(0, CHUNK * CHUNKS, CHUNK)
            ]
            since = time.perf_counter()
            for chunk in chunks:
                with connection.transaction():
                    store_vectors(connection, spec.name, sql.Identifier("vectors_efficientnet_lite0"), chunk)
            stored.append(CHUNK * CHUNKS / (time.perf_counter() - since))
            since = time.perf_counter()
            for chunk in chunks:
                with connection.cursor().copy("copy bare from stdin (format binary)") as copy:
                    copy.write(binary_rows(chunk))
            bare.append(CHUNK * CHUNKS / (time.perf_counter() - since))
    ratio = [a / b for a, b in zip(stored, bare, strict=True)]
    print_table(
        f"Storing 1,280-d vectors, rows/s, {CHUNK} in a transaction, {ROUNDS} rounds: median (range)",
        ("stored as the worker does", "bare binary COPY", "ratio"),
        [(median_and_range(stored, 0), median_and_range(bare, 0), median_and_range(ratio))],
    )
