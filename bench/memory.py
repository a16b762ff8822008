"""The peak of a worker's memory while scans of 48 megapixels arrive on all its threads, as fast as it can take them."""

from bench.pictures import write_scans
from bench.processes import child, server
from bench.table import print_table
from lookalike.settings import Settings

KINDS = {"baseline": 128, "progressive": 64, "png": 48, "tiff": 48, "jp2": 48}
DIFFERENT = 2
WIDTH, HEIGHT = 8000, 6000


def run(settings: Settings) -> None:
    """Prints the peak for each kind of file, each in a process of its own."""
    rows = []
    for kind, count in KINDS.items():
        folder = settings.home / f"scans-{kind}"
        names = write_scans(folder, kind, DIFFERENT, WIDTH, HEIGHT)
        size = sum((folder / name).stat().st_size for name in names) / DIFFERENT
        with server(folder, 0.05) as address, child("instant") as ours:
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
