"""A picture on which the decoder aborts the whole process, in real workers under a supervisor."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.worker import ENVIRONMENT
from lookalike import books
from lookalike.database import Connection
from tests.pictures import jpeg, photographs
from tests.servers import Lookalike, wait_until

ENCODER = "efficientnet-lite0"
IMAGES = 4
# A worker as it is, but for a decoder that breaks on a mark.
FRAGILE = """
import os, resource
from workers import pipeline
sound = pipeline.decode
def decode(data, *rest, **options):
    if data.endswith(b"poison"):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.abort()
    return sound(data, *rest, **options)
pipeline.decode = decode
from cli.worker import run_worker
run_worker(leash=False)
"""


@pytest.mark.slow
def test_an_image_that_aborts_the_process_is_found_by_halving(
    lookalike: Callable[..., Lookalike], connection: Connection, tmp_path: Path
) -> None:
    """Its chunk is halved until it is alone and failed as `crashed_worker`; its neighbours in the chunk are done."""
    system = lookalike(LOOKALIKE_LEASE_SECONDS="3", LOOKALIKE_CHUNK_SIZE=str(IMAGES), **ENVIRONMENT)
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, picture in enumerate(photographs()[:IMAGES]):
        (folder / f"{number}.jpg").write_bytes(jpeg(picture) + (b"poison" if number == 2 else b""))
    system.run("add", str(folder))
    system.start("orchestrate")
    ends: list[int] = []

    def is_over() -> bool:
        worker = system.started[-1]
        if len(system.started) == 1 or worker.poll() is not None:
            ends.extend([worker.returncode] if len(system.started) > 1 else [])
            system.started.append(
                subprocess.Popen(
                    [sys.executable, "-c", FRAGILE],
                    cwd=tmp_path,
                    env=system.environment,
                    stdin=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        return books.count_books(connection, ENCODER).complete

    wait_until(is_over, 240, system.logs())

    assert books.count_books(connection, ENCODER) == books.Books(IMAGES, IMAGES - 1, 1, 0, 0)
    (failure,) = books.list_failures(connection, ENCODER)
    assert (failure.image, failure.reason, failure.attempts) == ("scans/2.jpg", "crashed_worker", 3)
    # Twice the whole, once its half, twice the image alone, which has the crash of its half to its name.
    assert ends == [-6] * 5
    states = connection.execute("select state, count(*) from chunks group by state order by state").fetchall()
    assert states == [("dead", 1), ("done", 2), ("split", 2)]
