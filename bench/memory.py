"""The peak of a worker's memory while scans of 48 megapixels arrive on all its threads, as fast as it can take them."""

from bench.pictures import write_scans
from bench.processes import child, server
from bench.table import print_table
from lookalike.settings import Settings

KINDS = {"baseline": 96, "progressive": 48, "png": 40, "tiff": 40, "jp2": 40}
DIFFERENT = 2
WIDTH, HEIGHT = 8000, 6000
# The server is a light one, and shares the cores with the decoders: it may take its time.
PATIENT = {"LOOKALIKE_FETCH_TIMEOUT": "600"}


def run(settings: Settings) -> None:
    """Prints the peak for each kind of file, each in a process of its own."""
    rows = []
    for kind, count in KINDS.items():
        folder = settings.home / f"scans-{kind}"
        names = write_scans(folder, kind, DIFFERENT, WIDTH, HEIGHT)
        size = sum((folder / name).stat().st_size for name in names) / DIFFERENT
        with server(folder, 0.05) as address, child("instant", **PATIENT) as ours:
            idle = ours.ask([])["peak"]
            answer = ours.ask([f"{address}/{names[number % DIFFERENT]}" for number in range(count)])
        assert not answer["failures"], answer["failures"][:3]
        rate = count / answer["seconds"]
        rows.append(
            (
                kind,
                f"{size / 2**20:.1f} MB",
                f"{rate:.1f}",
                *(f"{peak / 2**20:,.0f} MB" for peak in (idle, answer["peak"])),
            )
        )
    print_table(
        f"Memory of a worker without its network, scans of {WIDTH:,} x {HEIGHT:,} pixels over HTTP",
        ("file", "size", "images/s", "idle", "peak"),
        rows,
    )
