"""Searches with a picture that is sent to the explorer, beside decoding and the network alone."""

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import numpy as np

from bench.explorer import COLUMNS, Asked, serving
from bench.pictures import encode_jpeg, make_picture
from bench.services import fresh_database
from bench.table import print_table
from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.ledger import RetryPolicy
from lookalike.settings import Settings
from lookalike.vectors import Vectors
from workers.picture import PictureEncoder

ENCODER = "efficientnet-lite0"
UPLOADS = 60


def run(settings: Settings) -> None:
    """Sends pictures, one after the other and by four at once, beside the bare network."""
    pictures = [encode_jpeg(make_picture(number, 1200, 900), 85) for number in range(UPLOADS)]
    bare = PictureEncoder(ENCODER, settings)
    network = Asked()
    for data in (pictures[0], *pictures):
        since = time.perf_counter()
        bare.embed(data)
        network.seconds.append(time.perf_counter() - since)
    del network.seconds[0]
    network.wall = sum(network.seconds)
    with fresh_database(settings) as (url, connection):
        _fill(connection)
        with serving(settings, url) as address:
            send = uploading(address)
            send(pictures[0])
            found = {f"POST /search, {n} at once": _send_all(send, pictures, n) for n in (1, 4)}
    rows = [
        one.row(name, network) for name, one in {"decoding and the network alone": network, **found}.items()
    ]
    columns = (*COLUMNS[:-1], "p95 to the network")
    print_table("Searches with a picture: a JPEG of 1,200 x 900, 1,000 images", columns, rows)


def uploading(address: str) -> Callable[[bytes], None]:
    """Sends a picture as a form, over a connection of the thread."""
    parts = urlsplit(address)
    kept = threading.local()
    head = b'--edge\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}

    def send(data: bytes) -> None:
        if not hasattr(kept, "client"):
            kept.client = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        kept.client.request("POST", "/api/v1/search?k=20", head + data + b"\r\n--edge--\r\n", headers)
        answer = kept.client.getresponse()
        body = answer.read()
        assert answer.status == 200, body

    return send


def _send_all(send: Callable[[bytes], None], pictures: Sequence[bytes], at_once: int) -> Asked:
    found = Asked()

    def go(first: int) -> None:
        for data in pictures[first::at_once]:
            since = time.perf_counter()
            send(data)
            found.seconds.append(time.perf_counter() - since)

    threads = [threading.Thread(target=go, args=(first,)) for first in range(at_once)]
    since = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.wall = time.perf_counter() - since
    return found


def _fill(connection: Connection) -> None:
    """A thousand images with vectors that mean nothing."""
    spec = find_encoder(ENCODER)
    archive.add_encoder(connection, spec, 1000)
    ledger.register(
        connection, [Image(f"i/{n}", f"https://example.org/{n}.jpg") for n in range(1000)], chunk_size=1000
    )
    (claim,) = ledger.lease(connection, ENCODER, "backfill", 10, 60)
    chunk = ledger.start(connection, claim, "bench", 60)
    assert chunk is not None
    vectors = np.abs(np.random.default_rng(1).standard_normal((1000, spec.dimension))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = Vectors(
        np.array([image.id for image in chunk.images], np.int64),
        np.array([image.revision for image in chunk.images], np.int32),
        np.zeros((1000, 32), np.uint8),
        archive.load_calibration(connection, ENCODER).codes(vectors),
        vectors,
    )
    ledger.finish(connection, chunk, made, [], RetryPolicy(1, 1))
