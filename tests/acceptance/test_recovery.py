"""Recovery without hands: servers that are away at the start, in the middle and at the end, with real processes."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.chaos.plan import Fate, Plan
from bench.chaos.run import LEAVING_SECONDS
from bench.chaos.system import CHUNK, LEASE_SECONDS, STOP_SECONDS, System, web, write_site
from bench.chaos.watch import Watcher
from lookalike import archive, services
from lookalike.migrate import migrate
from tests.servers import wait_until

IMAGES = 64


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A whole lookalike on servers of its own, of which nothing runs yet but the servers; one worker."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-tests-"))
    made = System(home, tmp_path, None, workers=1, seed=0)
    try:
        migrate(made.database_url)
        yield made
    finally:
        made.supervisor.kill()
        services.down(made.settings)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def table(system: System) -> Iterator[Path]:
    """A table of good images that a web server has."""
    fates = tuple(Fate(f"{number:05}.jpg", ("good",), "done") for number in range(IMAGES))
    write_site(system.home / "site", Plan(0, fates, ()))
    with web(system.home / "site") as port:
        path = system.home / "images.csv"
        rows = [f"{fate.key},http://{fate.host}:{port}/{fate.key}" for fate in fates]
        path.write_text("\n".join(["key,url", *rows, ""]))
        yield path


def is_ready(system: System, part: str) -> bool:
    done = subprocess.run(
        system.command("ready", part), env=system.environment, capture_output=True, text=True
    )
    assert done.returncode == 0 or (done.returncode == 1 and "not ready: " in done.stderr), done
    return done.returncode == 0


@pytest.mark.slow
def test_servers_may_be_away_at_any_time(system: System, table: Path) -> None:
    """Away at the start, all wait, and say that they are not ready; away in the middle for longer than a lease, nothing
    is done twice or counts as a crash; away at the end, all leave in order when they are asked to."""
    watcher = Watcher(system.database_url, system.spec.name)
    watcher.ask(lambda connection: archive.add_encoder(connection, system.spec, CHUNK))
    watcher.prepare()
    watcher.close()
    system.stop_postgres()
    system.kill_valkey(keep_data=True)
    system.start(table)
    assert not is_ready(system, "worker")
    pids = [system.supervisor.pid(name) for name in ("orchestrator", "worker-0")]

    system.start_servers()
    wait_until(lambda: 0 < watcher.settled() < IMAGES, 60, "the first image")
    assert is_ready(system, "orchestrator")
    assert is_ready(system, "worker")

    system.stop_postgres()
    system.kill_valkey(keep_data=True)
    time.sleep(1.5 * LEASE_SECONDS)
    system.start_servers()
    wait_until(lambda: watcher.settled() == IMAGES and not watcher.open(), 90, "the last image")
    assert {image: len(times) for image, times in watcher.writes().items()} == dict.fromkeys(
        range(1, IMAGES + 1), 1
    )
    assert watcher.crashes() == (0, 0)
    assert [system.supervisor.pid(name) for name in ("orchestrator", "worker-0")] == pids
    watcher.close()

    system.stop_postgres()
    system.kill_valkey(keep_data=True)
    for name in ("orchestrator", "worker-0"):
        system.supervisor.send(name, signal.SIGTERM)
    wait_until(lambda: len(system.supervisor.stops) == 2, STOP_SECONDS + LEAVING_SECONDS, "the end")
    assert sorted(system.supervisor.stops) == [("orchestrator", 0), ("worker-0", 0)]
