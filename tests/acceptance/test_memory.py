"""The bound on a worker's memory that docs/security.md states, while large scans arrive on all its threads."""

from pathlib import Path

import pytest

from bench.memory import HEIGHT, PATIENT, WIDTH
from bench.pictures import write_scans
from bench.processes import child, server

BOUND = 1800 * 2**20
ARRIVING = 32


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["baseline", "progressive", "png", "tiff", "jp2"])
def test_memory_is_bounded_while_large_scans_arrive(tmp_path: Path, kind: str) -> None:
    """Scans of 48 megapixels on 32 threads: all are decoded, and the process stays under its bound."""
    (name,) = write_scans(tmp_path, kind, 1, WIDTH, HEIGHT)
    with server(tmp_path, 0.0) as address, child("instant", **PATIENT) as worker:
        answer = worker.ask([f"{address}/{name}"] * ARRIVING)

    assert answer["failures"] == []
    assert answer["peak"] < BOUND
