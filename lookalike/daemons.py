"""Starts a server that outlives the command that started it, finds it again, and stops it by its process id.

It knows nothing of any particular server, and never signals a process before it has recognised it.
"""

import fcntl
import logging
import os
import pwd
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.errors import ServiceError

SYSTEM_USER = "lookalike"
# How long a process may take to become another program.
EXEC_SECONDS = 5.0
LOG_BYTES = 10 * 2**20
# The shell leaves at once, so that the server is nobody's child: init reaps it, not a command that is busy.
_LAUNCH = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Who a server runs as: user and group id. None in place of it means: whoever we are."""

    uid: int
    gid: int


def account_for(*folders: Path) -> Account | None:
    """Returns who may run a server: when we are root, the ordinary owner of the first of `folders` with one.

    Where none has, the system user, made when it is missing, for Postgres refuses to run as root. Raises
    ServiceError where it cannot be made.
    """
    if os.geteuid() != 0:
        return None
    for status in (folder.stat() for folder in folders if folder.exists()):
        if status.st_uid != 0 and _has_name(status.st_uid):
            return Account(status.st_uid, status.st_gid)
    deadline = time.monotonic() + 10  # another process may hold the lock of the user list
    while (account := _system_account()) is None:
        fault = _add_system_user()
        if fault and time.monotonic() > deadline:
            raise ServiceError(
                f"Postgres refuses to run as root and a system user {SYSTEM_USER} cannot be made: {fault}. "
                "Run as an ordinary user, or set DATABASE_URL and BROKER_URL"
            )
        time.sleep(0.1 if fault else 0)
    return account


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:  # the owner of a mounted folder, unknown in this container: initdb refuses to run
        return False
    return True


def _system_account() -> Account | None:
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def _add_system_user() -> str:
    """Returns what went wrong, or nothing."""
    options = ["--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent"]
    command = ["useradd", *options, "--shell=/usr/sbin/nologin", SYSTEM_USER]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode != 0 else ""


def own_folder(folder: Path, account: Account | None) -> None:
    """Makes `folder`, private to `account`, and lets the account pass through the folders above it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is not None:
        os.chown(folder, account.uid, account.gid)
        let_through(folder, account)


def let_through(path: Path, account: Account) -> None:
    """Gives other users the permission to pass (not to list or read) the folders that lead to `path`.

    The servers don't run as root, but root's home, and a checkout in it, may be entered by nobody else.
    """
    opened = []
    for folder in reversed(path.parents):
        status = folder.stat()
        if not status.st_mode & stat.S_IXOTH and status.st_uid != account.uid:
            folder.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)
            opened.append(str(folder))
    if opened:
        logger.warning(
            "embedded servers don't run as root: other users may now pass through %s", ", ".join(opened)
        )


def make_readable(tree: Path) -> None:
    """Lets other users run installed programs, which they may not when pip worked under a strict umask."""
    for path in [tree, *tree.rglob("*")] if tree.exists() else []:
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 6)


def run(command: Sequence[str], folder: Path, account: Account | None, text: str = "") -> None:
    """Runs a program to its end, with `text` as its input. Raises ServiceError with what it said."""
    options = _as_account(folder, account)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, **options)  # noqa: S603
    if done.returncode != 0:
        raise ServiceError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-2000:]}")


def launch(command: Sequence[str], folder: Path, log: Path, account: Account | None) -> int:
    """Starts a server in a session of its own, where no Ctrl-C and no hang-up reaches it; returns its pid."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    shell = ["/bin/sh", "-c", _LAUNCH, "sh", str(log), *command]
    options = _as_account(folder, account) | {"start_new_session": True}
    return int(subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=True, **options).stdout)  # noqa: S603


def _as_account(folder: Path, account: Account | None) -> dict[str, Any]:
    # A small environment: the caller's PG* variables change what Postgres does, and its secrets are not for a
    # server. LC_ALL keeps Postgres on macOS from starting threads before it forks.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    options: dict[str, Any] = {"cwd": folder, "env": environment, "umask": 0o077}
    if account is not None:
        options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return options


def is_running(pid: int, marker: str) -> bool:
    """Whether process `pid` lives and has the argument `marker`: its number alone may be someone else."""
    try:
        return os.fsencode(marker) in _arguments(pid)
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        if Path("/proc/self/cmdline").exists():
            return False
    ps = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return os.fsencode(marker) in subprocess.run(ps, capture_output=True, check=False).stdout  # noqa: S603


def _arguments(pid: int) -> list[bytes]:
    """The arguments of a process, on Linux; none of a dead one that nobody has waited for.

    While a process becomes another program it has none for a moment: a server that was just launched is not dead then.
    """
    until = time.monotonic() + EXEC_SECONDS
    while True:
        told = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = "" if told else Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
        if told or state in ("Z", "X") or time.monotonic() > until:
            return told.split(b"\0")
        time.sleep(0.001)


def find(pid_file: Path, marker: str) -> int | None:
    """Returns the pid in the first line of `pid_file`, when it is that of a running server."""
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    except PermissionError:
        raise ServiceError(f"{pid_file.parent} belongs to another user") from None
    return pid if is_running(pid, marker) else None


def stop(pid: int, marker: str, signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Sends each signal in turn and waits its seconds until the process is gone; ServiceError if it stays."""
    for number, seconds in signals:
        if not is_running(pid, marker):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise ServiceError(f"process {pid} belongs to another user: stop it as that user") from None
        deadline = time.monotonic() + seconds
        while is_running(pid, marker) and time.monotonic() < deadline:
            time.sleep(0.02)
    if is_running(pid, marker):
        raise ServiceError(f"process {pid} does not stop")


Lock = AbstractContextManager[None]


@contextmanager
def lock(path: Path, seconds: float) -> Iterator[None]:
    """Holds the lock `path` against other processes; ServiceError when it is not free within `seconds`."""
    # Opened for reading: where two users share a home, the one who does not own the file can lock it too.
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + seconds
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise ServiceError(f"another command has been at work on {path.parent} for too long")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
