"""Fetching from real servers on this machine: HTTP, S3 (moto), IIIF image services, and files."""

import hashlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer

from lookalike import __version__
from lookalike.errors import ImageError
from lookalike.images import Protocol
from lookalike.reasons import Reason
from lookalike.settings import Settings
from workers.fetch import Fetcher
from workers.gate import Host

PICTURE = bytes(range(256)) * 400  # 102,400 bytes
Answer = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Answers by a table of paths, and remembers what was asked for over how many connections."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.seen: list[dict[str, str]] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.seen.append(dict(self.headers.items()))
        self.server.answers.get(self.path, answer(404, b"nothing here"))(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    def respond(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def announce(length: int, body: bytes, pause: float = 0.0) -> Answer:
    """Says that `length` bytes follow, sends `body`, waits and hangs up."""

    def respond(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()
        time.sleep(pause)
        handler.close_connection = True

    return respond


def drip(handler: Handler) -> None:
    """A chunked body without end."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    while True:
        handler.wfile.write(chunk)


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make(**options: Any) -> Fetcher:
    return Fetcher(Settings(_env_file=None, **options))


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    fetcher = make(max_bytes=1_000_000)
    yield fetcher
    fetcher.close()


def refuse(fetcher: Fetcher, url: str, protocol: Protocol = "file") -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetcher.fetch(url, protocol, 384)
    return caught.value


# HTTP


def test_bytes_and_their_checksum_arrive(server: Server, fetcher: Fetcher) -> None:
    """An image over HTTP comes whole, with its SHA-256, and we say who asks."""
    server.answers["/a.jpg"] = answer(200, PICTURE)
    fetched = fetcher.fetch(server.url + "/a.jpg", "file", 384)
    assert fetched.data == PICTURE
    assert fetched.checksum == hashlib.sha256(PICTURE).digest()
    assert server.seen[0]["User-Agent"] == f"lookalike/{__version__}"


def test_an_empty_body_is_left_to_the_decoder(server: Server, fetcher: Fetcher) -> None:
    """Zero bytes were fetched in full; that they are no image is another's reason."""
    server.answers["/a.jpg"] = answer(200)
    assert fetcher.fetch(server.url + "/a.jpg", "file", 384).data == b""


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, Reason.REJECTED), (401, Reason.FORBIDDEN), (403, Reason.FORBIDDEN), (404, Reason.NOT_FOUND),
        (406, Reason.REJECTED), (410, Reason.NOT_FOUND), (418, Reason.REJECTED), (429, Reason.THROTTLED),
        (500, Reason.SERVER_ERROR), (502, Reason.SERVER_ERROR), (503, Reason.THROTTLED), (504, Reason.SERVER_ERROR),
        (304, Reason.REJECTED),
    ],
)  # fmt: skip
def test_each_status_has_its_reason(server: Server, fetcher: Fetcher, status: int, reason: Reason) -> None:
    """And the connection survives, for the next image of the same host."""
    server.answers["/a.jpg"] = answer(status, b"" if status == 304 else b"<html>sorry</html>")
    assert refuse(fetcher, server.url + "/a.jpg").reason == reason
    assert refuse(fetcher, server.url + "/a.jpg").detail == f"{status} from {server.url}/a.jpg"
    assert server.connections == 1


def test_hosts_say_how_long_to_wait(server: Server, fetcher: Fetcher) -> None:
    """Retry-After is understood as seconds and as a date, and is None where the host gives none."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    server.answers["/seconds"] = answer(429, Retry_After="7")
    server.answers["/date"] = answer(503, Retry_After=soon)
    server.answers["/rubbish"] = answer(503, Retry_After="soon")
    server.answers["/nothing"] = answer(429)
    assert refuse(fetcher, server.url + "/seconds").retry_after == 7
    assert 90 <= (refuse(fetcher, server.url + "/date").retry_after or 0) <= 101
    assert refuse(fetcher, server.url + "/rubbish").retry_after is None
    assert refuse(fetcher, server.url + "/nothing").retry_after is None


def test_short_bodies_are_incomplete(server: Server, fetcher: Fetcher) -> None:
    """Fewer bytes than announced are never taken for the image."""
    server.answers["/a.jpg"] = announce(len(PICTURE), PICTURE[:5000])
    assert refuse(fetcher, server.url + "/a.jpg").reason == Reason.INCOMPLETE


def test_slow_hosts_are_given_up(server: Server) -> None:
    """The time limit holds for silence before the answer and in the middle of it."""
    fetcher = make(fetch_timeout=0.4)
    server.answers["/body"] = announce(len(PICTURE), PICTURE[:5000], pause=1.5)
    server.answers["/header"] = lambda handler: time.sleep(1.5)
    for path in ("/body", "/header"):
        begun = time.monotonic()
        assert refuse(fetcher, server.url + path).reason == Reason.TIMEOUT
        assert time.monotonic() - begun < 1.2
    fetcher.close()


def test_too_many_bytes_are_refused_early(server: Server, fetcher: Fetcher) -> None:
    """By what the host announces, before the first byte; and on the stream, where it announces nothing."""
    server.answers["/announced"] = announce(10**12, b"", pause=0.5)
    server.answers["/endless"] = drip
    for path in ("/announced", "/endless"):
        begun = time.monotonic()
        assert refuse(fetcher, server.url + path).reason == Reason.TOO_LARGE
        assert time.monotonic() - begun < 0.5
    server.answers["/full"] = answer(200, bytes(1_000_000))
    assert len(fetcher.fetch(server.url + "/full", "file", 384).data) == 1_000_000


def test_the_status_of_a_huge_error_page_counts(server: Server, fetcher: Fetcher) -> None:
    """A 404 with a long body is not found, not too large."""
    server.answers["/a.jpg"] = answer(404, bytes(2_000_000))
    assert refuse(fetcher, server.url + "/a.jpg").reason == Reason.NOT_FOUND


def test_redirects_are_followed_so_far(server: Server, fetcher: Fetcher) -> None:
    """Five of them, relative or absolute, and only to HTTP."""
    server.answers["/loop"] = answer(302, Location="/loop")
    server.answers["/relative"] = answer(301, Location="/a.jpg")
    server.answers["/a.jpg"] = answer(200, PICTURE)
    for number in range(7):
        server.answers[f"/{number}"] = answer(
            302, Location=f"{server.url}/{number - 1}" if number else "/a.jpg"
        )
    server.answers["/file"] = answer(302, Location="file:///etc/hostname")
    server.answers["/nowhere"] = answer(302)
    assert fetcher.fetch(server.url + "/relative", "file", 384).data == PICTURE
    assert fetcher.fetch(server.url + "/4", "file", 384).data == PICTURE
    for path in ("/5", "/loop", "/file", "/nowhere"):
        assert refuse(fetcher, server.url + path).reason == Reason.REJECTED


def test_hosts_that_are_not_there_are_unreachable(server: Server, fetcher: Fetcher) -> None:
    """No such name, nobody listening, and a host that hangs up: all may pass."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/a.jpg"
        assert refuse(fetcher, closed).reason == Reason.UNREACHABLE
    server.answers["/a.jpg"] = hang_up
    assert refuse(fetcher, server.url + "/a.jpg").reason == Reason.UNREACHABLE
    assert refuse(fetcher, "http://lookalike.invalid/a.jpg").reason == Reason.UNREACHABLE


@pytest.mark.parametrize(
    "url",
    [
        "", "a.jpg", "relative/a.jpg", "ftp://127.0.0.1/a.jpg", "gopher://x/y", "http://", "http:///a.jpg",
        "http://[::1", "http://127.0.0.1:99999/", "http://host/a\r\nX-Injected: 1", "s3://", "s3://bucket", "s3:///key",
        "data:image/png,", "file://elsewhere/a.jpg", "file:", "http://\ud800/", "/tmp/\0", "http://xn--/\n",
    ],
)  # fmt: skip
def test_bad_addresses_are_told_from_bad_hosts(fetcher: Fetcher, url: str) -> None:
    """What can never be fetched is final, not tried again."""
    assert refuse(fetcher, url).reason == Reason.BAD_ADDRESS


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("/a b.jpg", "/a%20b.jpg"),
        ("/a%20b%2Fc%252Fd.jpg", "/a%20b%2Fc%252Fd.jpg"),
        ("/f\u00fcr.jpg", "/f%C3%BCr.jpg"),
        ("/a//b/../c+d.jpg", "/a//b/../c+d.jpg"),
        ("/a.jpg?x=1&y=a b%26", "/a.jpg?x=1&y=a%20b%26"),
        ("/100%.jpg", "/100%.jpg"),
        ("/a,b;c=(d)'!$@[e].jpg", "/a,b;c=(d)'!$@[e].jpg"),
    ],
)
def test_addresses_are_requested_as_given(server: Server, fetcher: Fetcher, given: str, asked: str) -> None:
    """What is encoded stays so, and only once; what may not be sent as it is, is encoded."""
    server.answers[asked] = answer(200, PICTURE)
    assert fetcher.fetch(server.url + given, "file", 384).data == PICTURE
    assert server.asked == [asked]


def test_secrets_stay_out_of_errors(server: Server, fetcher: Fetcher) -> None:
    """Passwords and signed queries reach neither the failure table nor a log."""
    address = server.url.replace("http://", "http://user:pass-word@") + "/a.jpg?X-Amz-Signature=very-secret"
    for url in (
        address,
        address.replace("127.0.0.1", "lookalike.invalid"),
        address.replace("http", "ftp", 1),
    ):
        error = refuse(fetcher, url)
        assert ("pass-word" in str(error), "very-secret" in str(error)) == (False, False)
    assert server.seen[0]["Authorization"].startswith("Basic ")


def test_connections_are_kept_and_shared_by_threads(server: Server, fetcher: Fetcher) -> None:
    """Many threads fetch at once and correctly, over about as many connections as there are threads."""
    for number in range(160):
        server.answers[f"/{number}"] = answer(200, PICTURE[number:])
    wrong: list[int] = []

    def work(first: int) -> None:
        for number in range(first, 160, 16):
            if fetcher.fetch(f"{server.url}/{number}", "file", 384).data != PICTURE[number:]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert server.connections <= 16


def test_certificates_are_checked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for ends the connection; one that the machine trusts does not."""
    certificate = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answers["/a.jpg"] = answer(200, PICTURE)
    url = f"https://localhost:{server.server_port}/a.jpg"
    doubtful = make()
    assert refuse(doubtful, url).reason == Reason.UNREACHABLE
    doubtful.close()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    trusting = make()
    assert trusting.fetch(url, "file", 384).data == PICTURE
    trusting.close()


def write_certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    return path


# S3


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Credentials of our own, and none of this machine's."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "identity")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    return monkeypatch


ODD_KEYS = [
    "a.jpg", "a b/c d.jpg", "a+b.jpg", "f\u00fcr/\u6f22\u5b57.jpg", "a//b.jpg", "a%20b%2Fc.jpg", "what?.jpg",
    "a#b&c=d;e,f.jpg", "it's (1) [2] {3}~!*.jpg", "/leading.jpg", "a/./b/../c.jpg",
]  # fmt: skip


@pytest.mark.parametrize("key", ODD_KEYS)
def test_objects_with_any_key_are_read(
    moto: str, keys: pytest.MonkeyPatch, fetcher: Fetcher, key: str
) -> None:
    """A key stands in the address as it is, and names the same object that boto3 wrote."""
    keys.setenv("AWS_ENDPOINT_URL", moto)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="scans")
    body = PICTURE + key.encode()
    client.put_object(Bucket="scans", Key=key, Body=body)
    assert fetcher.fetch(f"s3://scans/{key}", "file", 384).data == body


def test_missing_objects_and_buckets_are_not_found(
    moto: str, keys: pytest.MonkeyPatch, fetcher: Fetcher
) -> None:
    """NoSuchKey and NoSuchBucket are final."""
    keys.setenv("AWS_ENDPOINT_URL", moto)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="scans")
    assert refuse(fetcher, "s3://scans/missing.jpg").reason == Reason.NOT_FOUND
    assert refuse(fetcher, "s3://no-such-bucket/a.jpg").reason == Reason.NOT_FOUND


def test_requests_are_signed_for_the_path_as_sent(
    server: Server, keys: pytest.MonkeyPatch, fetcher: Fetcher
) -> None:
    """Version 4 signature, session token and configured region, with the bucket in the path of another server."""
    keys.setenv("AWS_ENDPOINT_URL", server.url)
    keys.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    keys.setenv("AWS_SESSION_TOKEN", "token")
    server.answers["/scans/a%20b%2B.jpg"] = answer(200, PICTURE)
    assert fetcher.fetch("s3://scans/a b+.jpg", "file", 384).data == PICTURE
    signature = server.seen[0]["Authorization"]
    assert signature.startswith("AWS4-HMAC-SHA256 Credential=identity/")
    assert "/eu-west-1/s3/aws4_request" in signature
    assert server.seen[0]["X-Amz-Security-Token"] == "token"


def test_buckets_elsewhere_are_asked_there(
    server: Server, keys: pytest.MonkeyPatch, fetcher: Fetcher
) -> None:
    """A bucket's own region is learnt from the first refusal, and remembered."""
    keys.setenv("AWS_ENDPOINT_URL", server.url)
    keys.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def only_in_ireland(handler: Handler) -> None:
        right = "/eu-west-1/s3/" in handler.headers["Authorization"]
        respond = answer(200, PICTURE) if right else answer(400, b"<Error/>", x_amz_bucket_region="eu-west-1")
        respond(handler)

    server.answers["/scans/a.jpg"] = only_in_ireland
    for _ in range(2):
        assert fetcher.fetch("s3://scans/a.jpg", "file", 384).data == PICTURE
    assert len(server.asked) == 3


def test_nobody_asks_without_signature(server: Server, keys: pytest.MonkeyPatch, fetcher: Fetcher) -> None:
    """Public buckets are read without credentials; S3's slowing down and its refusals have their reasons."""
    keys.delenv("AWS_ACCESS_KEY_ID")
    keys.delenv("AWS_SECRET_ACCESS_KEY")
    keys.setenv("AWS_ENDPOINT_URL_S3", server.url)
    server.answers["/scans/a.jpg"] = answer(200, PICTURE)
    server.answers["/scans/slow"] = answer(503, b"<Error><Code>SlowDown</Code></Error>")
    server.answers["/scans/secret"] = answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    assert fetcher.fetch("s3://scans/a.jpg", "file", 384).data == PICTURE
    assert "Authorization" not in server.seen[0]
    assert refuse(fetcher, "s3://scans/slow").reason == Reason.THROTTLED
    assert refuse(fetcher, "s3://scans/secret").reason == Reason.FORBIDDEN


def test_wrong_setups_of_s3_are_not_the_images_fault(keys: pytest.MonkeyPatch, fetcher: Fetcher) -> None:
    """An unknown profile fails as something that may pass, without a word of secrets."""
    keys.setenv("AWS_PROFILE", "nobody")
    error = refuse(fetcher, "s3://scans/a.jpg")
    assert (error.reason, "very-secret" in str(error)) == (Reason.UNREACHABLE, False)


def test_objects_are_fetched_from_the_host_of_their_bucket(
    keys: pytest.MonkeyPatch, fetcher: Fetcher
) -> None:
    """Which is paused like any other host, but has no limits by default, as Amazon scales; files have no host."""
    keys.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert fetcher.host("s3://scans/a.jpg") == Host("scans.s3.eu-west-1.amazonaws.com", limited=False)
    assert fetcher.host("https://IIIF.example.org/iiif/a") == Host("iiif.example.org", limited=True)
    assert fetcher.host("file:///a.jpg") == fetcher.host("/a.jpg") == Host("", limited=False)


def test_objects_of_another_server_share_its_host(keys: pytest.MonkeyPatch, fetcher: Fetcher) -> None:
    """The bucket is part of the path there."""
    keys.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert fetcher.host("s3://scans/a.jpg") == Host("minio:9000", limited=False)


def test_what_a_host_answers_is_told(server: Server, fetcher: Fetcher) -> None:
    """Each answer with its status, info.json included, and how long the host wants to be left in peace."""
    told: list[tuple[int, float | None]] = []
    server.answers["/a/info.json"] = answer(200, service(2, 2))
    server.answers["/a/full/!576,384/0/default.jpg"] = answer(429, Retry_After="3")
    with pytest.raises(ImageError):
        fetcher.fetch(server.url + "/a", "iiif", 384, answered=lambda *said: told.append(said))
    assert told == [(200, None), (429, 3)]


# IIIF


def service(level: int, version: int, **more: Any) -> bytes:
    info = {
        "@context": f"http://iiif.io/api/image/{version}/context.json",
        "protocol": "http://iiif.io/api/image",
        "profile": f"level{level}" if version == 3 else [f"http://iiif.io/api/image/2/level{level}.json"],
        **{"width": 6000, "height": 4000},
    }
    return json.dumps(info | more).encode()


@pytest.mark.parametrize(
    "base",
    [
        "/iiif/b12345678_0001.jp2", "/iiif/a%2Fb", "/iiif/a%252Fb", "/iiif/a%20b", "/iiif/f%C3%BCr",
        "/iipsrv?IIIF=a/b.tif", "/iiif/a:b,c",
    ],
)  # fmt: skip
def test_services_are_asked_for_the_least_that_suffices(server: Server, fetcher: Fetcher, base: str) -> None:
    """First info.json, then a picture of 384 pixels; the identifier exactly as given."""
    server.answers[f"{base}/info.json"] = answer(200, service(2, 2))
    server.answers[f"{base}/full/!576,384/0/default.jpg"] = answer(200, PICTURE)
    assert fetcher.fetch(server.url + base, "iiif", 384).data == PICTURE
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("given", "base"),
    [("/iiif/a b", "/iiif/a%20b"), ("/iiif/\u00fc", "/iiif/%C3%BC"), ("/iiif/a/", "/iiif/a"),
     ("/iiif/a/info.json", "/iiif/a")],
)  # fmt: skip
def test_loosely_written_services_are_found(server: Server, fetcher: Fetcher, given: str, base: str) -> None:
    """Spaces and letters are encoded once; a slash at the end is not doubled."""
    server.answers[f"{base}/info.json"] = answer(200, service(1, 3))
    server.answers[f"{base}/full/576,384/0/default.jpg"] = answer(200, PICTURE)
    assert fetcher.fetch(server.url + given, "iiif", 384).data == PICTURE


def test_static_services_are_asked_in_all_spellings(server: Server, fetcher: Fetcher) -> None:
    """Level 0: the listed size first, in the other spelling next; what was found is returned."""
    sizes = [{"width": 150, "height": 100}, {"width": 600, "height": 400}]
    server.answers["/a/info.json"] = answer(200, service(0, 2, sizes=sizes))
    server.answers["/a/full/600,/0/default.jpg"] = answer(200, PICTURE)
    assert fetcher.fetch(server.url + "/a", "iiif", 384).data == PICTURE
    assert server.asked[1:] == ["/a/full/600,400/0/default.jpg", "/a/full/600,/0/default.jpg"]


def test_a_throttled_static_service_is_not_asked_again(server: Server, fetcher: Fetcher) -> None:
    """Other spellings are for pictures that are not there, not for hosts that want peace."""
    server.answers["/a/info.json"] = answer(200, service(0, 2, sizes=[{"width": 600, "height": 400}]))
    server.answers["/a/full/600,400/0/default.jpg"] = answer(429, Retry_After="3")
    error = refuse(fetcher, server.url + "/a", "iiif")
    assert (error.reason, error.retry_after, len(server.asked)) == (Reason.THROTTLED, 3, 2)


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (answer(200, b"<html>welcome</html>"), Reason.UNREADABLE_SERVICE),
        (answer(200, b"{}"), Reason.UNREADABLE_SERVICE),
        (answer(200), Reason.UNREADABLE_SERVICE),
        (answer(401, b"{}"), Reason.FORBIDDEN),
        (answer(404), Reason.NOT_FOUND),
        (answer(500), Reason.SERVER_ERROR),
        (drip, Reason.UNREADABLE_SERVICE),
    ],
)
def test_failures_of_a_service_have_their_reasons(
    server: Server, fetcher: Fetcher, info: Answer, reason: Reason
) -> None:
    """What is wrong with info.json is wrong with the image."""
    server.answers["/a/info.json"] = info
    assert refuse(fetcher, server.url + "/a", "iiif").reason == reason


def test_the_time_limit_is_for_both_requests(server: Server) -> None:
    """A slow info.json leaves less time for the picture."""
    fetcher = make(fetch_timeout=0.6)

    def slowly(respond: Answer) -> Answer:
        def respond_late(handler: Handler) -> None:
            time.sleep(0.4)
            respond(handler)

        return respond_late

    server.answers["/a/info.json"] = slowly(answer(200, service(2, 3)))
    server.answers["/a/full/576,384/0/default.jpg"] = slowly(answer(200, PICTURE))
    assert refuse(fetcher, server.url + "/a", "iiif").reason == Reason.TIMEOUT
    fetcher.close()


# Files


def test_files_are_read_by_path_and_address(tmp_path: Path, fetcher: Fetcher) -> None:
    """Bare absolute paths as they are, file addresses percent-decoded."""
    path = tmp_path / "a b#c?d%20\u00fc.jpg"
    path.write_bytes(PICTURE)
    for url in (str(path), path.as_uri(), path.as_uri().replace("file://", "FILE://localhost")):
        assert fetcher.fetch(url, "file", 384).data == PICTURE


def test_files_that_cannot_be_read_have_their_reasons(tmp_path: Path, fetcher: Fetcher) -> None:
    """Missing, too large, empty: told apart."""
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(1_000_001)
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert refuse(fetcher, str(large)).reason == Reason.TOO_LARGE
    assert refuse(fetcher, str(tmp_path / "missing.jpg")).reason == Reason.NOT_FOUND
    assert refuse(fetcher, str(large / "below")).reason == Reason.NOT_FOUND
    assert refuse(fetcher, str(tmp_path / "loop.jpg")).reason == Reason.BAD_ADDRESS
    assert refuse(fetcher, "/" + "a" * 300).reason == Reason.BAD_ADDRESS
    assert fetcher.fetch(str(tmp_path / "empty.jpg"), "file", 384).data == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_files(tmp_path: Path, fetcher: Fetcher) -> None:
    """A file without permission is final."""
    path = tmp_path / "a.jpg"
    path.touch(mode=0)
    assert refuse(fetcher, str(path)).reason == Reason.FORBIDDEN


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, fetcher: Fetcher) -> None:
    """Folders, pipes without a writer, devices without an end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/null"):
        assert refuse(fetcher, str(path)).reason == Reason.BAD_ADDRESS
