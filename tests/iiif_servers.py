"""IIIF image services for tests: one of our own, of level 2, and Debian's iipsrv behind lighttpd."""

import io
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote
from urllib.request import urlopen

from PIL import Image

from tests.servers import free_port, wait_until

IIPSRV = Path("/usr/lib/iipimage-server/iipsrv.fcgi")
_REQUEST = re.compile(r"/iiif/([^/]+)/([^/]+)/([^/]+)/([^/]+)/(default|color|gray|bitonal)\.(jpg|png)")


@dataclass
class ImageService:
    """A running service: the base of its addresses, and the sizes that were asked for."""

    url: str
    asked: list[str] = field(default_factory=list)

    def base(self, name: str) -> str:
        """The address of one image, as manifests name it."""
        return f"{self.url}/{name}"


@contextmanager
def own_service(pictures: dict[str, Image.Image], version: int) -> Iterator[ImageService]:
    """Serves pictures by name as IIIF Image API 2 or 3, level 2; like strict servers, it does not enlarge."""
    service = ImageService("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                status, kind, body = 200, *_answer(service, pictures, version, unquote(self.path))
            except LookupError:
                status, kind, body = 404, "text/plain", b""
            except ValueError as error:
                status, kind, body = 400, "text/plain", str(error).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}/iiif"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def _answer(
    service: ImageService, pictures: dict[str, Image.Image], version: int, path: str
) -> tuple[str, bytes]:
    """Media type and body. Raises LookupError for an unknown image, ValueError for what the service does not do."""
    if path.endswith("/info.json"):
        name = path.removeprefix("/iiif/").removesuffix("/info.json")
        return "application/ld+json", json.dumps(_info(service.base(name), pictures[name], version)).encode()
    if (found := _REQUEST.fullmatch(path)) is None:
        raise ValueError("not a request of the Image API")
    name, region, size, rotation, quality, form = found.groups()
    picture = pictures[name]
    service.asked.append(size)
    if rotation != "0":
        raise ValueError("rotation is not tested")
    made = _resized(_cut(picture, region), size, version)
    buffer = io.BytesIO()
    made.convert("L" if quality == "gray" else "RGB").save(buffer, "JPEG" if form == "jpg" else "PNG")
    return f"image/{'jpeg' if form == 'jpg' else form}", buffer.getvalue()


def _info(base: str, picture: Image.Image, version: int) -> dict[str, object]:
    common = {
        "@context": f"http://iiif.io/api/image/{version}/context.json",
        "protocol": "http://iiif.io/api/image",
        "width": picture.width,
        "height": picture.height,
    }
    if version == 3:
        return {**common, "id": base, "type": "ImageService3", "profile": "level2"}
    return {**common, "@id": base, "profile": ["http://iiif.io/api/image/2/level2.json"]}


def _cut(picture: Image.Image, region: str) -> Image.Image:
    if region == "full":
        return picture
    x, y, width, height = map(int, region.split(","))
    return picture.crop((x, y, min(x + width, picture.width), min(y + height, picture.height)))


def _resized(picture: Image.Image, size: str, version: int) -> Image.Image:
    if size in ("max", "full"):
        if (size == "full") == (version == 3):
            raise ValueError(f"{size} is not a word of version {version}")
        return picture
    width, height = (int(part) if part else 0 for part in size.removeprefix("!").split(","))
    if size.startswith("!"):
        scale = min(width / picture.width, height / picture.height)
        width, height = round(picture.width * scale), round(picture.height * scale)
    width = width or round(height * picture.width / picture.height)
    height = height or round(width * picture.height / picture.width)
    if width > picture.width or height > picture.height:
        raise ValueError("this service does not enlarge")
    return picture.resize((max(1, width), max(1, height)), Image.Resampling.LANCZOS)


def has_iipsrv() -> bool:
    """Whether Debian's packages iipimage-server, lighttpd and libvips-tools are installed."""
    return IIPSRV.exists() and all(
        shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("lighttpd", "vips")
    )


@contextmanager
def iipsrv_service(pictures: dict[str, Image.Image], folder: Path) -> Iterator[ImageService]:
    """Serves pictures as tiled TIFF through iipsrv (IIIF Image API 2, level 1) behind lighttpd."""
    files = folder / "tiff"
    files.mkdir()
    for name, picture in pictures.items():
        picture.convert("RGB").save(folder / "plain.tif")
        options = "[tile,pyramid,compression=jpeg,tile-width=256,tile-height=256]"
        subprocess.run(["vips", "copy", str(folder / "plain.tif"), f"{files / name}{options}"], check=True)
    port = free_port()
    config = folder / "lighttpd.conf"
    config.write_text(f"""
server.modules = ("mod_fastcgi", "mod_rewrite")
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{files}"
url.rewrite-once = ("^/iiif/(.*)$" => "/iipsrv?IIIF=$1")
fastcgi.server = ("/iipsrv" => ((
    "socket" => "{folder / "iipsrv.sock"}",
    "check-local" => "disable",
    "min-procs" => 1, "max-procs" => 1,
    "bin-path" => "{IIPSRV}",
    "bin-environment" => ("FILESYSTEM_PREFIX" => "{files}/", "LOGFILE" => "{folder / "iipsrv.log"}"))))
""")
    process = subprocess.Popen(["lighttpd", "-D", "-f", str(config)])
    service = ImageService(f"http://127.0.0.1:{port}/iiif")
    try:
        first = service.base(next(iter(pictures))) + "/info.json"
        wait_until(lambda: _answers(first), 30, "iipsrv")
        yield service
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=2) as answer:
            return bool(json.load(answer))
    except (OSError, ValueError):
        return False
