"""A whole lookalike for one run: servers, orchestrator and workers of its own, in a folder of its own."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from bench.chaos.child import PROJECTION, RECORD_VARIABLE
from bench.chaos.plan import Plan
from bench.chaos.supervisor import Supervisor
from bench.pictures import encode_jpeg, make_picture
from bench.processes import ROOT, start
from cli.worker import ENVIRONMENT
from lookalike import daemons, services
from lookalike.encoders import EncoderSpec, find_encoder
from lookalike.servers import Postgres, Valkey
from lookalike.settings import Settings

PICTURES = 16
SIDE = 320
CHUNK = 16
LEASE_SECONDS = 4.0
STOP_SECONDS = 15.0
# Each is for a run of minutes what the default is for one of days.
SETTINGS = {
    "LOOKALIKE_LEASE_SECONDS": str(LEASE_SECONDS),
    "LOOKALIKE_STOP_SECONDS": str(STOP_SECONDS),
    "LOOKALIKE_CHUNK_SIZE": str(CHUNK),
    "LOOKALIKE_WINDOW": "8",
    "LOOKALIKE_RETRY_SECONDS": "0.1",
    # Few, so that a backfill of 2,000 images outlasts its faults.
    "LOOKALIKE_FETCH_THREADS": "6",
    "LOOKALIKE_FETCH_TIMEOUT": "2.5",
    "LOOKALIKE_MAX_BYTES": str(2**20),
    "LOOKALIKE_DECODE_THREADS": "1",
    "LOOKALIKE_BATCH_SIZE": "8",  # no probe at each start
    "LOOKALIKE_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
}


class System:
    """Postgres, Valkey, one orchestrator and some workers on a plan's images. Faults reach into its parts."""

    def __init__(self, home: Path, folder: Path, encoder: str | None, workers: int, seed: int) -> None:
        """`home` is for the servers' data, `folder` for what is left of the run: logs and results.

        `encoder` is the name of a real one; None means a projection that costs next to nothing. `seed` is for whom a
        fault strikes.
        """
        self.home = home
        self.folder = folder
        self.random = Random(seed)
        self.spec: EncoderSpec = find_encoder(encoder) if encoder else PROJECTION
        self.workers = [f"worker-{number}" for number in range(workers)]
        self.settings = Settings(_env_file=None, home=home, DATABASE_URL=None, BROKER_URL=None)
        endpoints = services.up(self.settings)
        self.database_url, self.broker_url = endpoints.database_url, endpoints.broker_url
        self.postgres, self.valkey = Postgres(home), Valkey(home)
        self.record = folder / "encoded.txt"
        self.record.unlink(missing_ok=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LOOKALIKE_", "AWS_"))}
        self.environment = {
            **inherited,
            **ENVIRONMENT,
            **SETTINGS,
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.broker_url,
            "LOOKALIKE_HOME": str(home),
            "LOOKALIKE_ENCODER": self.spec.name,
            "PYTHONPATH": str(ROOT),
            RECORD_VARIABLE: str(self.record),
        }
        self.supervisor = Supervisor(folder, self.environment)

    def command(self, *words: str) -> list[str]:
        """`lookalike WORDS` as this bench runs it."""
        return [sys.executable, "-m", "bench.chaos.child", *words]

    def start(self, table: Path) -> None:
        """Starts the orchestrator, which reads the images from a table, and the workers."""
        self.supervisor.add("orchestrator", self.command("orchestrate", str(table)))
        for name in self.workers:
            self.supervisor.add(name, self.command("worker"))

    # The servers ------------------------------------------------------------------------------------------------------

    def stop_postgres(self) -> None:
        """Immediate mode: no checkpoint, sessions are cut, the next start recovers from the log."""
        if pid := self.postgres.pid():
            daemons.stop(pid, self.postgres.marker, [(signal.SIGQUIT, 20), (signal.SIGKILL, 10)])

    def kill_valkey(self, keep_data: bool) -> None:
        """Kills it (-9), and takes its data away where they are not to be kept."""
        if pid := self.valkey.pid():
            daemons.stop(pid, self.valkey.marker, [(signal.SIGKILL, 10)])
        if not keep_data:
            shutil.rmtree(self.valkey.folder / "appendonlydir", ignore_errors=True)

    def start_servers(self) -> None:
        """Starts what does not run, at the address that it had."""
        endpoints = services.up(self.settings)
        if (endpoints.database_url, endpoints.broker_url) != (self.database_url, self.broker_url):
            raise RuntimeError("a server came back at another address")


def write_site(folder: Path, plan: Plan) -> None:
    """Writes the pictures and the answers of the plan's web server."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(PICTURES):
        path = folder / f"{number:02}.jpg"
        if not path.exists():
            path.write_bytes(encode_jpeg(make_picture(number, SIDE, SIDE), 85))
    (folder / "plan.json").write_text(json.dumps({fate.key: fate.answers for fate in plan.fates}))


@contextmanager
def web(folder: Path) -> Iterator[int]:
    """The port of the plan's web server on this machine."""
    with start("-m", "bench.chaos.web", str(folder), PYTHONPATH=str(ROOT)) as server:
        yield server.read()
