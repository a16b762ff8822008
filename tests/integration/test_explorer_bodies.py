"""Bodies that strangers send to the explorer, over real sockets: many at once, and slow ones."""

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from explorer import bodies
from tests.explorer_archive import filled_database
from tests.explorer_servers import listening
from tests.integration.test_explorer_api import opened
from tests.servers import wait_until

FORM = "multipart/form-data; boundary=b"
START = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n\r\n'
LENGTH = 2_000_000
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module")
def archive_url(server_url: str, template_database: str) -> Iterator[str]:
    yield from filled_database(server_url, template_database)


@contextmanager
def sending(port: int, path: str, kind: str, client: str = "192.0.2.1") -> Iterator[socket.socket]:
    """A connection that has said how much it will send, and asks whether to."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {LENGTH}\r\nExpect: 100-continue\r\n\r\n"
        )
        one.sendall(head.encode())
        yield one


def begin(one: socket.socket, start: bytes) -> None:
    """Sends the beginning of the body, which the server has said that it reads."""
    said = one.recv(len(GO_ON), socket.MSG_WAITALL)
    assert said == GO_ON, said + one.recv(10_000)
    one.sendall(start)


def answer(one: socket.socket) -> tuple[int, str]:
    """The status and the whole of what is answered."""
    got = http.client.HTTPResponse(one)
    got.begin()
    return got.status, f"{got.headers}{got.read().decode()}"


@pytest.mark.parametrize("path", ["/api/v1/search", "/picture/search"])
def test_few_pictures_are_taken_in_at_once(
    archive_url: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next is told to come back before a byte of it is read, and one client never has all places; places that are
    left are free again, and all else is answered meanwhile."""
    monkeypatch.setattr(bodies, "UPLOADS", 4)
    monkeypatch.setattr(bodies, "UPLOADS_OF_ONE", 2)
    with listening(archive_url, explorer_proxies="127.0.0.1") as port:
        with ExitStack() as open_ones:
            for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"):
                begin(open_ones.enter_context(sending(port, path, FORM, client)), START + bytes(1_500_000))
            with sending(port, path, FORM, "192.0.2.1") as third:
                status, said = answer(third)
                assert (status, "retry-after: 5" in said.lower()) == (429, True)
            with sending(port, path, FORM, "192.0.2.9") as fifth:
                status, said = answer(fifth)
                assert (status, "retry-after: 5" in said.lower()) == (503, True)
                assert "urn:lookalike:problem:busy" in said
            assert httpx.get(f"http://127.0.0.1:{port}/api/v1/images/image/00001/similar").status_code == 200
        file = {"picture": ("a.jpg", b"words")}

        def is_free() -> bool:
            sent = httpx.post(
                f"http://127.0.0.1:{port}/api/v1/search", files=file, params={"encoder": "other"}
            )
            return sent.status_code == 404

        wait_until(is_free, 20, "a place")


def test_who_is_refused_reads_why(archive_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one who sends a large picture without waiting for an answer, as browsers do: the connection does not break
    under it."""
    monkeypatch.setattr(bodies, "UPLOADS", 0)
    with listening(archive_url) as port:
        for _ in range(3):
            for size, status in ((20_000_000, 503), (40_000_000, 413)):
                file = {"picture": ("a.jpg", bytes(size))}
                got = httpx.post(f"http://127.0.0.1:{port}/api/v1/search", files=file, timeout=20)
                assert got.status_code == status
        # Who asks first is told at once, and sends nothing.
        with sending(port, "/api/v1/search", FORM) as one:
            assert answer(one)[0] == 503


@pytest.mark.parametrize("path", ["/api/v1/search", "/picture/search"])
def test_only_one_file_may_be_long(archive_url: str, path: str) -> None:
    """Words of a form, and files that are small enough not to lie on disk, would be held in memory."""
    with opened(archive_url) as client:
        words = {"url": "https://example.org/" + "x" * 500_000}
        file = {"picture": ("a.jpg", b"x")}
        assert client.post(path, data=words, files=file).status_code == 400
        many = [("picture", (f"{number}.jpg", bytes(500_000))) for number in range(2)]
        assert client.post(path, files=many).status_code == 400


@pytest.mark.parametrize("path", ["/api/v1/search", "/picture/search", "/decisions/image"])
def test_no_charset_holds_up_the_process(archive_url: str, path: str) -> None:
    """Python reads punycode in a time that grows with the square: who names it is refused before it is read."""
    body = b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\n' + b"a" * 200_000 + b"\r\n--b--\r\n"
    with opened(archive_url) as client:
        for charset in ("punycode", '"PunyCode"', "idna", "utf-16"):
            began = time.monotonic()
            kind = {"Content-Type": f"{FORM}; charset={charset}"}
            assert client.post(path, content=body, headers=kind).status_code == 415
            assert time.monotonic() - began < 1
        plain = {"Content-Type": f"{FORM}; charset=UTF-8"}
        assert client.post(path, content=body, headers=plain).status_code != 415


@pytest.mark.parametrize(
    ("path", "kind", "start"),
    [
        ("/api/v1/search", FORM, START),
        ("/picture/search", FORM, START),
        ("/api/v1/unwanted", "application/json", b"{"),
        ("/decisions/image", "application/x-www-form-urlencoded", b"key="),
    ],
)
def test_a_slow_body_is_given_up(
    archive_url: str, path: str, kind: str, start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then is answered 408 after the stated time, and the connection ends."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 1.0)
    monkeypatch.setattr("tests.integration.test_explorer_bodies.LENGTH", 100_000)
    with listening(archive_url) as port, sending(port, path, kind) as one:
        began = time.monotonic()
        begin(one, start)
        one.settimeout(0.1)
        said = b""
        while not said and time.monotonic() < began + 30:
            one.sendall(b"x")
            try:
                said = one.recv(65_536)
            except TimeoutError:
                continue
        assert time.monotonic() - began > 0.9
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in said.lower()


def test_a_body_that_comes_fast_enough_has_its_time(
    archive_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives extends the time: a picture over a slow line is taken."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(bodies, "BYTES_A_SECOND", 100_000)

    def slowly() -> Iterator[bytes]:
        yield START
        for _ in range(8):
            time.sleep(0.25)
            yield bytes(40_000)
        yield b"\r\n--b--\r\n"

    with listening(archive_url) as port:
        got = httpx.post(
            f"http://127.0.0.1:{port}/api/v1/search?encoder=other",
            content=slowly(),
            headers={"Content-Type": FORM},
        )
    # All of it was read: now it is the encoder that nobody knows.
    assert got.status_code == 404
