"""`lookalike demo`: the main job end to end on photographs that come with Python packages, over real HTTP.

Copies made from them by code (cropped, recompressed, rotated, grey) are the neighbours that it must find.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from PIL import Image as Pictures
from PIL import ImageOps

from cli import output
from cli.run import run
from cli.session import Session
from cli.sheet import write_sheet
from lookalike import search
from lookalike.errors import ConfigurationError

# Where the photographs lie: the module, its folder, its files.
PHOTOGRAPHS = {
    "skimage": (
        "data",
        "astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png color.png"
        " grass.png gravel.png horse.png hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png"
        " motorcycle_right.png page.png retina.jpg rocket.jpg text.png",
    ),
    "sklearn": ("datasets/images", "china.jpg flower.jpg"),
}
SHOWN = ("chelsea", "coffee", "motorcycle_left", "rocket", "china", "flower")
NEIGHBOURS = 5


def run_demo(session: Session, folder: Path | None = None, explorer: tuple[str, int] | None = None) -> None:
    """Registers, embeds and searches; prints neighbours and the path of the contact sheet it wrote.

    With an address for the `explorer`, host and port, it ends with that: pictures are served as long as it runs.
    """
    home = (session.settings.home / "demo").absolute()
    originals = sorted(p for p in folder.iterdir() if p.is_file()) if folder else find_photographs()
    if not originals:
        raise ConfigurationError(
            "no photographs: pip install 'lookalike[local]', or name a folder with --images"
        )
    make_copies(originals, home)
    if session.settings.database_url is None and session.settings.thumbnails is None:
        # The server of the photographs ends with the demo: later, `lookalike serve` shows what was kept of them.
        kept = session.settings.model_copy(update={"thumbnails": "database"})
        session = replace(session, settings=kept)
    with serving(home) as address:
        _embed_and_show(session, originals, home, address)
        if explorer is not None:
            from cli.serve import run_server

            run_server(showing_pictures_of(session, address), *explorer)


def showing_pictures_of(session: Session, address: str) -> Session:
    """A session whose explorer shows the demo's pictures as well, which do not come over https."""
    sources = f"{session.settings.explorer_image_sources} {address}"
    return replace(session, settings=session.settings.model_copy(update={"explorer_image_sources": sources}))


def _embed_and_show(session: Session, originals: list[Path], home: Path, address: str) -> None:
    table = write_table(home, address)
    output.errors.print(f"{len(originals)} photographs and their copies are served at {address}")
    books, _ = run(session, [str(table)])
    output.console.print(
        f"{books.registered} images registered = {books.done} done + {books.failed} failed + {books.open} open",
        highlight=False,
    )
    names = [p.stem for p in originals]
    shown = [name for name in SHOWN if name in names] or names[: len(SHOWN)]
    sheet = home / "contact-sheet.png"
    with session.connect() as connection:
        rows = [
            (key, search.similar(connection, key, NEIGHBOURS, encoder=session.settings.encoder))
            for key in (f"demo/{name}/original.jpg" for name in shown)
        ]
        write_sheet(sheet, rows, connection, session.settings)
    for key, neighbours in rows:
        output.print_table(
            key, ("rank", "distance", "image"), [(n.rank, n.distance, n.image) for n in neighbours]
        )
    output.console.print(f"contact sheet: {sheet}", soft_wrap=True, highlight=False)


def find_photographs() -> list[Path]:
    """The photographs inside the packages that are installed."""
    found = []
    for module, (folder, names) in PHOTOGRAPHS.items():
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            continue
        paths = [Path(spec.origin).parent / folder / name for name in names.split()]
        found += [path for path in paths if path.is_file()]
    return found


def make_copies(originals: list[Path], home: Path) -> None:
    """Writes each photograph as a JPEG with four copies to `home/<name>/`; what is there already is kept."""
    for path in originals:
        target = home / path.stem
        if (target / "grey.jpg").exists():
            continue
        target.mkdir(parents=True, exist_ok=True)
        with Pictures.open(path) as picture:
            original = ImageOps.exif_transpose(picture).convert("RGB")
        original.thumbnail((800, 800))
        width, height = original.size
        box = (width // 10, height // 10, width - width // 10, height - height // 10)
        copies = {
            "original": original,
            "cropped": original.crop(box),
            "recompressed": original,
            "rotated": original.rotate(5, Pictures.Resampling.BICUBIC, expand=False, fillcolor="white"),
            "grey": original.convert("L"),
        }
        for name, copy in copies.items():
            copy.save(target / f"{name}.jpg", quality=25 if name == "recompressed" else 90)


def write_table(home: Path, address: str) -> Path:
    """Writes the JSONL that announces the images; the work of each is the photograph that it comes from."""
    table = home / "images.jsonl"
    with table.open("w") as lines:
        for path in sorted(home.glob("*/*.jpg")):
            name, copy = path.parent.name, path.stem
            record = {
                "key": f"demo/{name}/{path.name}",
                "url": f"{address}/{quote(name)}/{quote(path.name)}",
                "work": name,
                "title": f"{name.replace('_', ' ')} ({copy})",
                "content": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            lines.write(json.dumps(record) + "\n")
    return table


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """The progress bar says enough."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves a folder over HTTP on the loopback address, for the time of the block; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
