"""Keeps processes running as `restart: unless-stopped` of docker compose does: whatever ends is started again."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

RESTART_SECONDS = 0.5
POLL_SECONDS = 0.1
# Until Python has come as far as the program, a signal ends the process as it ends any other.
STARTING_SECONDS = 15.0


@dataclass
class Kept:
    """A process that is kept running."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes]
    asked_after: float | None = None
    since: float = field(default_factory=time.monotonic)


class Supervisor:
    """Starts processes, restarts them when they end, and remembers how they ended.

    `stops` are names and exit codes of those that were asked to end (SIGTERM), `unasked` of those that left by
    themselves; neither holds what was killed, or asked before it had started.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._kept: dict[str, Kept] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()
        self.stops: list[tuple[str, int]] = []
        self.unasked: list[tuple[str, int]] = []

    def add(self, name: str, command: Sequence[str]) -> None:
        """Starts a process and keeps it running from now on."""
        with self._lock:
            self._kept[name] = Kept(name, command, self._start(name, command))

    def _start(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def send(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to the process of this name; SIGTERM only once, as supervisors do."""
        with self._lock:
            kept = self._kept[name]
            if number == signal.SIGTERM:
                if kept.asked_after is not None:
                    return
                kept.asked_after = time.monotonic() - kept.since
            kept.process.send_signal(number)

    def pid(self, name: str) -> int:
        """The process that has this name now."""
        with self._lock:
            return self._kept[name].process.pid

    def _watch(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            with self._lock:
                ended = [kept for kept in self._kept.values() if kept.process.poll() is not None]
                for kept in ended:
                    self._note(kept)
            if ended:
                time.sleep(RESTART_SECONDS)
            with self._lock:
                for kept in ended:
                    self._kept[kept.name] = Kept(
                        kept.name, kept.command, self._start(kept.name, kept.command)
                    )

    def _note(self, kept: Kept) -> None:
        code = kept.process.returncode
        if kept.asked_after is None:
            if code != -signal.SIGKILL:
                self.unasked.append((kept.name, code))
        elif code != -signal.SIGTERM or kept.asked_after > STARTING_SECONDS:
            self.stops.append((kept.name, code))

    def stop(self, seconds: float) -> None:
        """Asks all to end, within so many seconds; whatever stays is killed, and counts as code -9."""
        self._ending.set()
        self._thread.join()
        for name in self._kept:
            self.send(name, signal.SIGTERM)
        until = time.monotonic() + seconds
        for kept in self._kept.values():
            with suppress(subprocess.TimeoutExpired):
                kept.process.wait(max(0.0, until - time.monotonic()))
        self.kill()
        for kept in self._kept.values():
            self._note(kept)

    def kill(self) -> None:
        """Ends all at once."""
        self._ending.set()
        self._thread.join()
        for kept in self._kept.values():
            with suppress(ProcessLookupError):
                os.killpg(kept.process.pid, signal.SIGKILL)
            kept.process.wait()
