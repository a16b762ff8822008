"""The encoders of one archive: their tables of vectors, their frozen calibration, and which one is active."""

import json
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector
from psycopg.rows import scalar_row

from lookalike.calibration import Calibration, make_calibration
from lookalike.encoders import EncoderSpec
from lookalike.errors import ConfigurationError, ServiceError, UnknownEncoderError
from lookalike.queries import load_queries

Connection = psycopg.Connection[tuple[Any, ...]]
QUERIES = load_queries("archive")


def add_encoder(connection: Connection, spec: EncoderSpec, chunk_size: int) -> bool:
    """Adds an encoder with its table, its calibration and chunks for all images. False when it was there already.

    One that was taken out before is taken in again; programs that start ask `ensure_encoder`.
    The first encoder of an archive becomes the active one.
    """
    if is_added(connection, spec.name):
        return False
    calibration = make_calibration(spec.name, spec.dimension)
    with connection.transaction():
        # Against registration, which locks the rows it reads: no image may slip between the chunks of its batch and
        # those of the new encoder. Searches only read, and go on.
        # Whatever waits behind this lock waits as well: rather give up.
        connection.execute("set local lock_timeout = '10s'")
        try:
            connection.execute("lock table encoders in exclusive mode")
        except psycopg.errors.LockNotAvailable:
            raise ServiceError(
                f"{spec.name} cannot be added while the archive is being summed up: try again later"
            ) from None
        connection.execute("set local lock_timeout = default")
        if is_added(connection, spec.name):
            return False
        connection.execute(
            QUERIES["add_encoder"],
            {"name": spec.name, "dimension": spec.dimension, "distance": spec.distance},
        )
        _store_calibration(connection, spec.name, calibration)
        connection.execute(QUERIES["cover_all_images"], {"encoder": spec.name, "size": chunk_size})
        connection.execute(QUERIES["forget_removal"], {"name": spec.name})
    return True


def ensure_encoder(connection: Connection, spec: EncoderSpec, chunk_size: int) -> bool:
    """Like `add_encoder`, for programs that start: raises ConfigurationError for an encoder that was taken out.

    A worker that somebody forgot, or a group that scales up, would have the whole archive embedded once more.
    """
    row = connection.execute(QUERIES["removal"], {"name": spec.name}).fetchone()
    if row:
        raise ConfigurationError(
            f"{spec.name} was taken out of this archive on {row[0]:%Y-%m-%d}: set LOOKALIKE_ENCODER to one that it has,"
            f" or take it in again by `lookalike encoders add {spec.name}`"
        )
    return add_encoder(connection, spec, chunk_size)


def is_added(connection: Connection, encoder: str) -> bool:
    """Whether the archive keeps vectors of this encoder. Raises ServiceError for one that is being taken out."""
    row = connection.execute("select leaving_at from encoders where name = %s", [encoder]).fetchone()
    if row and row[0]:
        raise ServiceError(
            f"{encoder} is being taken out of this archive: `lookalike encoders remove {encoder}` goes on with it,"
            " then it can be added again"
        )
    return row is not None


def activate(connection: Connection, encoder: str) -> None:
    """Makes this encoder the one that searches use. Raises UnknownEncoderError, ServiceError as `is_added` does."""
    with connection.transaction():
        connection.execute(QUERIES["lock"], {"encoder": encoder})
        if not is_added(connection, encoder):
            raise UnknownEncoderError(f"{encoder} is not in this archive: lookalike encoders add {encoder}")
        connection.execute(QUERIES["activate"], {"encoder": encoder})


def load_calibration(connection: Connection, encoder: str) -> Calibration:
    """The frozen calibration of an encoder, as every worker must use it."""
    rows = connection.execute(QUERIES["select_calibration"], {"encoder": encoder}).fetchall()
    if not rows:
        raise UnknownEncoderError(f"{encoder} is not in this archive: lookalike encoders add {encoder}")
    rotation = np.array([row[0].to_numpy() for row in rows]).astype(np.int16)
    return Calibration(rotation, np.array([row[1] for row in rows], np.float32))


def _store_calibration(connection: Connection, encoder: str, calibration: Calibration) -> None:
    with connection.cursor().copy(QUERIES["copy_calibration"]) as copy:
        copy.set_types(["text", "int4", "halfvec", "float4"])
        for bit, (direction, threshold) in enumerate(
            zip(calibration.rotation, calibration.thresholds, strict=True)
        ):
            copy.write_row((encoder, bit, HalfVector(direction), float(threshold)))


def recorded_fingerprint(connection: Connection, encoder: str, measured: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint that the archive keeps of this encoder; the first worker's becomes it."""
    connection.execute(QUERIES["set_fingerprint"], {"encoder": encoder, "fingerprint": json.dumps(measured)})
    with connection.cursor(row_factory=scalar_row) as cursor:
        recorded = cursor.execute(QUERIES["fingerprint"], {"encoder": encoder}).fetchone()
    assert isinstance(recorded, dict)
    return recorded
