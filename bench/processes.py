"""Starts the processes of a benchmark and talks to them; they end with their block."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cli.worker import ENVIRONMENT

ROOT = Path(__file__).parents[1]


class Child:
    """A process that answers each line with a line, both JSON."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self) -> Any:
        """The next answer. Raises RuntimeError when the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with code {self._process.wait()}")
        return json.loads(line)

    def ask(self, request: object) -> Any:
        """Sends a request and waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return self.read()


@contextmanager
def start(*words: str, log: Path | None = None, **environment: str) -> Iterator[Child]:
    """`python WORDS` with the worker's allocator settings, in the checkout; killed at the end of the block.

    What it says on standard error goes to the file `log`, or the terminal.
    """
    with ExitStack() as stack:
        errors = stack.enter_context(log.open("ab")) if log else None
        started = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            # This checkout, whichever one is installed.
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        stack.callback(started.wait)
        stack.callback(started.kill)
        yield Child(started)


@contextmanager
def child(kind: str, **environment: str) -> Iterator[Child]:
    """A process of bench.child, ready to be asked."""
    with start("-m", "bench.child", kind, **environment) as started:
        assert started.read() == "ready"
        yield started


@contextmanager
def server(folder: Path, seconds: float) -> Iterator[str]:
    """The address of a server for the files of a folder that answers after `seconds`."""
    with start("-m", "bench.server", str(folder), str(seconds)) as started:
        yield f"http://127.0.0.1:{started.read()}"
