"""Python and SQL give the same binary codes, bit by bit, on a real Postgres with pgvector."""

from dataclasses import replace

import numpy as np
import pytest
from pgvector import HalfVector

from lookalike import archive
from lookalike.database import Connection
from tests.factories import TINY


@pytest.mark.parametrize(
    ("name", "dimension"), [("efficientnet-lite0", 1280), ("dinov2-vits14", 384), ("odd", 77)]
)
def test_code_of_equals_codes(connection: Connection, name: str, dimension: int) -> None:
    """For random vectors and for the longest sums there can be, with a shipped mean and without one."""
    archive.add_encoder(connection, replace(TINY, name=name, dimension=dimension), 64)
    calibration = archive.load_calibration(connection, name)
    vectors = np.random.default_rng(5).standard_normal((40, dimension)).astype(np.float32)
    vectors[0] = np.eye(dimension)[3]
    vectors[1] = -1
    vectors[2] = calibration.rotation[dimension // 2]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = ["".join(map(str, np.unpackbits(code)[:dimension])) for code in calibration.codes(vectors)]
    computed = [
        connection.execute(
            "select lookalike.code_of(%s::halfvec, %s)::text", [HalfVector(vector), name]
        ).fetchone()[0]
        for vector in vectors
    ]
    assert computed == expected
