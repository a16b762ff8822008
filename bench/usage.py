"""What a process uses, asked from inside: CPU seconds by groups of threads, and its peak of memory. Linux only."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from lookalike.database import Connection

# Threads by the beginning of their names; all others are the rest.
GROUPS = ("encode", "decode", "fetch")


def measure_threads() -> dict[str, float]:
    """CPU seconds so far of each group of threads, and of the rest of the process with what threads have ended."""
    seconds = dict.fromkeys(GROUPS, 0.0)
    for thread in threading.enumerate():
        group = thread.name.partition("-")[0]
        if group in seconds:
            with suppress(FileNotFoundError):
                statistics = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
                seconds[group] += int(statistics.split()[0]) / 1e9
    seconds["rest"] = time.process_time() - sum(seconds.values())
    return seconds


def measure_memory() -> int:
    """The highest resident memory since `reset_memory`, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no VmHWM for process {os.getpid()}")


def reset_memory() -> None:
    """Starts the peak of memory anew, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measure_now() -> int:
    """The resident memory of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def tree_seconds(pid: int) -> float:
    """CPU seconds so far of a process, its children, and those of them that have ended."""
    ticks = _ticks(pid, ended=True)
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError):  # it has ended meanwhile
            ticks += _ticks(int(child), ended=False)
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int, *, ended: bool) -> int:
    # Behind the name, which may hold blanks: utime, stime, cutime, cstime are fields 14 to 17 of proc(5).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11 : 15 if ended else 13])


def server_seconds(connection: Connection) -> float:
    """CPU seconds so far of the server process of a connection on this machine."""
    statistics = Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text()
    return int(statistics.split()[0]) / 1e9
