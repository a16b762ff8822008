"""`python -m bench [NAME …]`: runs the named benchmarks, or all that are quick, on services of their own."""

import shutil
import signal
import sys
import tempfile
from pathlib import Path

from bench import datapath, fidelity, ledger, memory, store, worker
from bench.services import bench_services

QUICK = {"worker": worker.run, "ledger": ledger.run, "store": store.run}
# What `make bench-worker` runs as well; takes a quarter of an hour.
SLOW = {
    "fidelity": fidelity.run,
    "datapath": datapath.run,
    "devices": datapath.feed_devices,
    "memory": memory.run,
    "workers": worker.run_several,
}
BENCHES = QUICK | SLOW


def main() -> None:
    names = sys.argv[1:] or list(QUICK)
    unknown = set(names) - set(BENCHES)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES)}")
    # When told to stop, leave by way of the blocks that end services and processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Not under the checkout: the server's own user must be able to reach its data.
    home = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    try:
        for name in names:
            with bench_services(home) as settings:
                BENCHES[name](settings)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
