"""A disk of Postgres that fills up while images are stored: a real server on a small file system of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from bench.chaos.faults import fill_disk
from bench.chaos.plan import Fate, Plan
from bench.chaos.run import LEAVING_SECONDS
from bench.chaos.system import CHUNK, LEASE_SECONDS, STOP_SECONDS, System, web, write_site
from bench.chaos.watch import Watcher
from lookalike import archive, services
from lookalike.migrate import migrate
from tests.servers import wait_until

IMAGES = 800
DISK = "320m"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A whole lookalike whose Postgres lies in a file system of its own, in memory."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-tests-"))
    disk = home / "postgres"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "lookalike-tests", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        disk.rmdir()
        home.rmdir()
        pytest.skip("to mount a small file system takes root, and a kernel that lets it")
    try:
        made = System(home, tmp_path, None, workers=2, seed=0)
        try:
            migrate(made.database_url)
            yield made
        finally:
            made.supervisor.kill()
            services.down(made.settings)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def table(system: System) -> Iterator[Path]:
    fates = tuple(Fate(f"{number:05}.jpg", ("good",), "done") for number in range(IMAGES))
    write_site(system.home / "site", Plan(0, fates, ()))
    with web(system.home / "site") as port:
        path = system.home / "images.csv"
        rows = [f"{fate.key},http://{fate.host}:{port}/{fate.key}" for fate in fates]
        path.write_text("\n".join(["key,url", *rows, ""]))
        yield path


def panic(system: System) -> None:
    """Has Postgres want another segment of its log, of which there is no room: it must not go on without."""
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        for _ in range(100):
            connection.execute(
                "select pg_switch_wal(), pg_logical_emit_message(false, 'test', repeat('x', 100))"
            )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "panic"])
def test_a_full_disk_loses_nothing(system: System, table: Path, how: str) -> None:
    """What cannot be stored is kept by who holds it; when there is room again, and Postgres was started again if it had
    stopped itself, every image is stored once, and the audit is clean."""
    watcher = Watcher(system.database_url, system.spec.name)
    watcher.ask(lambda connection: archive.add_encoder(connection, system.spec, CHUNK))
    watcher.prepare()
    system.start(table)
    wait_until(lambda: IMAGES / 10 < watcher.settled() < IMAGES / 2, 60, "the first images")
    watcher.close()
    with fill_disk(system):
        if how == "panic":
            with pytest.raises(psycopg.OperationalError):
                panic(system)
        time.sleep(1.5 * LEASE_SECONDS)
        said = system.postgres.log.read_text(errors="replace")
        assert "No space left on device" in said
        assert how != "panic" or "PANIC" in said
    wait_until(lambda: watcher.settled() == IMAGES and not watcher.open(), 120, "the last image")
    assert {len(times) for times in watcher.writes().values()} == {1}
    assert len(watcher.writes()) == IMAGES
    watcher.close()
    audit = subprocess.run(system.command("audit"), env=system.environment, capture_output=True, text=True)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    for name in ("orchestrator", *system.workers):
        system.supervisor.send(name, signal.SIGTERM)
    wait_until(lambda: len(system.supervisor.stops) == 3, STOP_SECONDS + LEAVING_SECONDS, "the end")
    assert {code for _, code in system.supervisor.stops} == {0}
    assert system.supervisor.unasked == []
