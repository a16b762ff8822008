"""One run: a plan's images go through a system while its faults strike, and then everything is counted."""

import json
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos.faults import FAULTS
from bench.chaos.plan import Blow, Plan
from bench.chaos.system import CHUNK, STOP_SECONDS, System, web, write_site
from bench.chaos.watch import POLL_SECONDS, Verdict, Watcher, judge, wasted_times
from lookalike import archive, services
from lookalike.migrate import migrate

# From a blow until all is as before: what takes longer is noted as not recovered.
RECOVERY_SECONDS = 60.0
# Leaving takes a worker a moment beyond STOP_SECONDS: the threads of Celery and the interpreter end.
LEAVING_SECONDS = 15.0


@dataclass
class Struck:
    """One blow and how the system took it, in seconds: until another chunk was finished, and until all chunks that had
    been under way were; None: not within the time. `begun` and `ended` are in seconds since 1970. `idle`: nothing was
    left to be done before it had recovered."""

    kinds: tuple[str, ...]
    begun: float
    under_way: int
    next_chunk: float | None = None
    held_chunks: float | None = None
    idle: bool = False
    ended: float = 0.0
    wasted: int = 0


@dataclass
class Result:
    """All that is said of a run."""

    seed: int
    encoder: str
    seconds: float = 0.0
    complete: bool = False
    balanced: bool = False
    verdict: Verdict | None = None
    encoded_in_vain: int = 0
    crashes: int = 0
    suspects: int = 0
    stops: list[tuple[str, int]] = field(default_factory=list)
    unasked: list[tuple[str, int]] = field(default_factory=list)
    blows: list[Struck] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is lost, twice, or other than it had to be, and all left in order that were asked to."""
        verdict = self.verdict
        return (
            self.complete
            and self.balanced
            and verdict is not None
            and not (verdict.lost or verdict.twice or verdict.otherwise)
            and all(code == 0 for _, code in self.stops)
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"sound": self.sound}


def run(
    plan: Plan, folder: Path, *, encoder: str | None = None, workers: int = 2, limit: float = 240
) -> Result:
    """Runs a plan to its end, or for `limit` seconds; logs and the result are left in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    # Not in the folder: the servers' own user must be able to reach their data.
    home = Path(tempfile.mkdtemp(prefix="lookalike-chaos-"))
    try:
        write_site(home / "site", plan)
        with web(home / "site") as port:
            system = System(home, folder, encoder, workers, plan.seed)
            try:
                result = _Run(system, plan, limit).go(port)
            finally:
                system.supervisor.kill()
                services.down(system.settings)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    (folder / "result.json").write_text(json.dumps(result.as_json(), indent=1))
    return result


class _Run:
    """A run under way."""

    def __init__(self, system: System, plan: Plan, limit: float) -> None:
        self._system = system
        self._plan = plan
        self._watcher = Watcher(system.database_url, system.spec.name)
        self._until = time.monotonic() + limit
        self._result = Result(plan.seed, system.spec.name)

    def go(self, port: int) -> Result:
        since = time.monotonic()
        table = self._system.home / "images.csv"
        rows = [f"{fate.key},http://{fate.host}:{port}/{fate.key}" for fate in self._plan.fates]
        table.write_text("\n".join(["key,url", *rows, ""]))
        migrate(self._system.database_url)
        self._watcher.ask(lambda connection: archive.add_encoder(connection, self._system.spec, CHUNK))
        self._watcher.prepare()
        self._system.start(table)
        for blow in self._plan.blows:
            self._wait_for_progress(blow.after)
            if time.monotonic() < self._until:
                self._result.blows.append(self._strike(blow))
        self._result.complete = self._wait_until_settled()
        self._result.seconds = round(time.monotonic() - since, 1)
        self._count()
        return self._result

    def _wait_for_progress(self, share: float) -> None:
        wanted = share * len(self._plan.fates)
        while self._watcher.settled() < wanted and time.monotonic() < self._until:
            time.sleep(POLL_SECONDS)

    def _strike(self, blow: Blow) -> Struck:
        # First what strikes at once: it may need a server that another fault takes away.
        faults = sorted((FAULTS[kind] for kind in blow.kinds), key=lambda fault: fault.seconds)
        held, finished = self._watcher.under_way(), self._watcher.finished()
        self._watcher.close()
        struck = Struck(blow.kinds, time.time(), len(held))
        with ExitStack() as stack:
            for fault in faults:
                stack.enter_context(fault.strike(self._system))
            until = time.monotonic() + faults[-1].seconds
            while time.monotonic() < until:
                if self._system.postgres.accepts():
                    self._look(struck, held, finished)
                time.sleep(POLL_SECONDS)
        until = time.monotonic() + RECOVERY_SECONDS
        while not self._look(struck, held, finished) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        struck.ended = time.time()
        return struck

    def _look(self, struck: Struck, held: list[int], finished: int) -> bool:
        """Notes what has recovered; True when all has, or nothing is left to see it by."""
        if struck.next_chunk is None and self._watcher.finished() > finished:
            struck.next_chunk = round(time.time() - struck.begun, 2)
        if struck.held_chunks is None and self._watcher.unsettled(held) == 0:
            struck.held_chunks = round(time.time() - struck.begun, 2)
        recovered = struck.next_chunk is not None and struck.held_chunks is not None
        struck.idle = not recovered and self._watcher.open() == 0
        return recovered or struck.idle

    def _wait_until_settled(self) -> bool:
        """Waits for the end of the backfill; False when it does not come in time."""
        while self._watcher.open():
            if time.monotonic() > self._until:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _count(self) -> None:
        result, watcher = self._result, self._watcher
        audit = subprocess.run(
            self._system.command("audit"), env=self._system.environment, capture_output=True, text=True
        )
        (self._system.folder / "audit.txt").write_text(audit.stdout + audit.stderr)
        result.balanced = audit.returncode == 0
        writes = watcher.writes()
        result.verdict = judge(self._plan.fates, watcher.outcomes(), writes, result.complete)
        wasted = wasted_times(self._system.record, writes)
        result.encoded_in_vain = len(wasted)
        result.crashes, result.suspects = watcher.crashes()
        watcher.close()
        # What was wasted between the recovery from one blow and that from the next is laid to the latter.
        since = 0.0
        for struck in result.blows:
            struck.wasted = sum(since <= at < struck.ended for at in wasted)
            since = struck.ended
        self._system.supervisor.stop(STOP_SECONDS + LEAVING_SECONDS)
        result.stops, result.unasked = self._system.supervisor.stops, self._system.supervisor.unasked
