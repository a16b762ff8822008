"""`lookalike worker`: Celery with the pool, the options and the memory allocator that suit an embedding worker."""

import logging
import os
import signal
import sys
import warnings

from cli.session import log_to_terminal
from lookalike.settings import Settings, load_settings

# Read by the C library and by numpy's only when a process starts, so the worker starts itself again with them.
#
# glibc returns the memory of every batch to the system and takes it back page by page: measured, that costs 45 % of
# the CPU of a forward pass. OpenBLAS's own threads would only wait, busily, for cores that the network has.
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"
    ":glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1",
    "OPENBLAS_NUM_THREADS": "1",
    # Started in a folder that holds a `cli` or a `queue.py` of somebody else's, it must not import these.
    "PYTHONSAFEPATH": "1",
}


def take_environment() -> None:
    """Starts the command again with the worker's environment, unless it has it."""
    if not ENVIRONMENT.keys() <= os.environ.keys():
        os.environ.update({**ENVIRONMENT, **os.environ})
        os.execv(sys.executable, [sys.executable, "-m", "cli.main", *sys.argv[1:]])


def run_worker(leash: bool) -> None:
    """Becomes a Celery worker; returns never."""
    take_environment()
    # Until Celery takes over, the worker holds nothing: it leaves at once, and in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if leash:
        from cli.run import leave_with_parent

        leave_with_parent()
    from workers.app import worker_app

    log_to_terminal()
    # It would say of each chunk that it came and went.
    logging.getLogger("celery").setLevel(logging.WARNING)
    ignore_pillow()
    settings = load_settings()
    worker_app(settings).worker_main(celery_arguments(settings))


def ignore_pillow() -> None:
    """Has Pillow's warnings passed over: of every damaged EXIF tag; what matters of it comes back as a reason."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def celery_arguments(settings: Settings) -> list[str]:
    """The arguments that turn a Celery worker into an embedding worker."""
    from workers.network.runtime import choose_device
    from workers.pipeline import chunk_threads

    return [
        # Without its banner: standard output belongs to results, and a log in JSON holds nothing else.
        "--quiet",
        "worker",
        "--pool=threads",
        f"--concurrency={chunk_threads(settings, choose_device(settings.device).type)}",
        f"--hostname=lookalike-{os.getpid()}@%h",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        # Of the root logger: an image that fails is an event of ours. Celery's own are kept down; see `run_worker`.
        "--loglevel=INFO",
    ]
