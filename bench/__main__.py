"""`python -m bench [NAME …]`: runs the named benchmarks, or all that are quick, on services of their own."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import (
    datapath,
    duplicates,
    events,
    explorer,
    explorer_map,
    explorer_pages,
    explorer_paint,
    explorer_uploads,
    fidelity,
    fleet,
    hosts,
    ledger,
    ledger_scale,
    memory,
    odd,
    register,
    scaling,
    search,
    search_build,
    search_data,
    search_filters,
    search_mixed,
    search_partitions,
    search_peers,
    search_quality,
    search_real,
    store,
    thumbnails,
    worker,
)
from bench.services import bench_services
from lookalike.settings import Settings

QUICK = {"worker": worker.run, "ledger": ledger.run, "store": store.run}
# What `make bench-worker` runs as well; takes a quarter of an hour.
SLOW = {
    "fidelity": fidelity.run,
    "datapath": datapath.run,
    "devices": datapath.feed_devices,
    "hosts": hosts.run,
    "memory": memory.run,
    "workers": worker.run_several,
    # Downloads its pictures: `make bench-odd`.
    "odd": odd.run,
    "thumbnails": thumbnails.run,
}
# What `make bench-scale` runs.
SCALE = {"scaling": scaling.run, "fleet": fleet.run}
# What `make bench-intake` runs.
INTAKE = {
    "events": events.run,
    "register": register.run,
    "register-memory": register.run_memory,
    "ledger-scale": ledger_scale.run,
}
# What `make bench-search` runs, but for the last; the first that needs an archive loads it.
SEARCH: dict[str, Callable[[Settings], None]] = {
    "search-data": search_data.run,
    "search": search.run,
    "search-peers": search_peers.run,
    "search-filters": search_filters.run,
    "search-build": search_build.run,
    "search-mixed": search_mixed.run,
    "search-partitions": search_partitions.run,
    "search-real": search_real.run,
    "search-quality": search_quality.run,
    "duplicates": duplicates.run,
    "search-million": search.run_million,
}
# What `make bench-explorer` runs; it shares its archive with those of search.
EXPLORER: dict[str, Callable[[Settings], None]] = {
    "explorer": explorer.run,
    "explorer-uploads": explorer_uploads.run,
    # In Debian's Chromium: `make browser` installs it.
    "explorer-paint": explorer_paint.run,
    "explorer-map": explorer_map.run,
    # Makes a catalogue of four million images first: five minutes.
    "explorer-pages": explorer_pages.run,
}
BENCHES: dict[str, Callable[[Settings], None]] = {**QUICK, **SLOW, **SCALE, **INTAKE, **SEARCH, **EXPLORER}


def main() -> None:
    names = sys.argv[1:] or list(QUICK)
    unknown = set(names) - set(BENCHES)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES)}")
    # When told to stop, leave by way of the blocks that end services and processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A folder that is named keeps the archives that were loaded, so that benches can be run one by one.
    kept = os.environ.get("BENCH_HOME")
    # Not under the checkout: the server's own user must be able to reach its data.
    home = Path(kept or tempfile.mkdtemp(prefix="lookalike-bench-"))
    try:
        for name in names:
            with bench_services(home) as settings:
                BENCHES[name](settings)
    finally:
        if not kept:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
