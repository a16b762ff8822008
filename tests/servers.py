"""Real servers and processes for tests: HTTP that can misbehave, S3, and lookalike's own workers and orchestrator."""

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import urlopen

import boto3

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def http_server(files: dict[str, bytes]) -> Iterator[str]:
    """Serves these files by path at the address it yields; 404 for all others. Files may be added meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = files.get(unquote(self.path))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Misbehaving:
    """A server of pages (status, headers, body) by path; with a `misdeed` it does that to every request instead."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.misdeed: Callable[[Misbehaving], None] | None = None
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.connections = 0
        self.url, self.port = "", 0
        self.handler: BaseHTTPRequestHandler | None = None
        self.is_over = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request; a client that hangs up is what these tests are about."""
        self.asked.append(handler.path)
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.handler = handler
        with suppress(ConnectionError):
            if self.misdeed is not None:
                self.misdeed(self)
                return
            status, headers, body = self.pages.get(handler.path, (404, {}, b""))
            self._begin(status, {**headers, "Content-Length": str(len(body))})
            handler.wfile.write(body)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        assert self.handler is not None
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def _write(self, data: bytes) -> None:
        assert self.handler is not None
        self.handler.wfile.write(data)

    def pour_for_ever(self) -> None:
        """A body without an end, as fast as it goes."""
        self._begin(200, {"Connection": "close"})
        while not self.is_over.is_set():
            self._write(bytes(2**16))

    def drip(self) -> None:
        """A byte now and then."""
        self._begin(200, {"Content-Length": "1000"})
        while not self.is_over.wait(0.2):
            self._write(b"x")

    def drip_headers(self) -> None:
        """Headers without an end, one now and then."""
        self._write(b"HTTP/1.1 200 OK\r\n")
        while not self.is_over.wait(0.2):
            self._write(b"X-More: yes\r\n")

    def promise_more(self) -> None:
        """Less than Content-Length says."""
        self._begin(200, {"Content-Length": "1000", "Connection": "close"})
        self._write(b"x" * 10)
        assert self.handler is not None
        self.handler.close_connection = True

    def promise_too_much(self) -> None:
        """A Content-Length beyond all limits."""
        self._begin(200, {"Content-Length": str(2**62)})
        self._write(b"x" * 10)

    def redirect_for_ever(self) -> None:
        """Always to the next address."""
        self._begin(302, {"Location": f"/{len(self.asked)}", "Content-Length": "0"})

    def answer_packed(self) -> None:
        """Two megabytes of zeros in two kilobytes."""
        packed = gzip.compress(bytes(2**21))
        self._begin(200, {"Content-Encoding": "gzip", "Content-Length": str(len(packed))})
        self._write(packed)


@contextmanager
def misbehaving_server() -> Iterator[Misbehaving]:
    """A server that counts connections and can be told to misbehave."""
    site = Misbehaving()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            site.connections += 1
            super().setup()

        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site.port = server.server_port
    site.url = f"http://127.0.0.1:{site.port}"
    try:
        yield site
    finally:
        site.is_over.set()
        server.shutdown()
        server.server_close()


Answering = Callable[[str], tuple[int, bytes, dict[str, str]]]


class WatchedServer(ThreadingHTTPServer):
    """Answers as it is told by `answering`, each after `seconds`, and remembers when it was asked, and for what.

    `asked` has (time.monotonic, path, status); `most` is the largest number of requests that were under way at once.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answering: Answering, seconds: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), WatchedHandler)
        self.answering, self.seconds = answering, seconds
        self.asked: list[tuple[float, str, int]] = []
        self.most = self.under_way = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.host = f"127.0.0.1:{self.server_port}"

    def most_within(self, seconds: float) -> int:
        """The largest number of requests that came within so many seconds."""
        times = sorted(began for began, *_ in self.asked)
        return max(sum(1 for one in times if since <= one < since + seconds) for since in times)

    def handle_error(self, request: object, client_address: object) -> None:
        """Workers that are killed hang up."""


class WatchedHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: WatchedServer

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            status, body, headers = server.answering(unquote(self.path))
            server.asked.append((time.monotonic(), self.path, status))
            server.under_way += 1
            server.most = max(server.most, server.under_way)
        time.sleep(server.seconds)
        with server.lock:
            server.under_way -= 1
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def watched_server(answering: Answering, seconds: float = 0.0) -> Iterator[WatchedServer]:
    """Runs a WatchedServer for the time of the block."""
    server = WatchedServer(answering, seconds)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def aws_server() -> Iterator[dict[str, str]]:
    """Runs moto's server of S3, SQS and SNS; yields the environment that leads boto3 and lookalike to it."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(address), 60)
        yield {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
    finally:
        process.terminate()
        process.wait()


def notifying_bucket(aws: dict[str, str], name: str) -> Any:
    """Makes a bucket that tells uploads and deletions to a queue of the same name; returns the client of S3."""
    session = boto3.Session(
        aws["AWS_ACCESS_KEY_ID"], aws["AWS_SECRET_ACCESS_KEY"], region_name=aws["AWS_DEFAULT_REGION"]
    )
    storage = session.client("s3", endpoint_url=aws["AWS_ENDPOINT_URL"])
    queues = session.client("sqs", endpoint_url=aws["AWS_ENDPOINT_URL"])
    queue = queues.create_queue(QueueName=name)["QueueUrl"]
    wanted = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    storage.create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": aws["AWS_DEFAULT_REGION"]}
    )
    told = {"QueueArn": wanted["QueueArn"], "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    storage.put_bucket_notification_configuration(
        Bucket=name, NotificationConfiguration={"QueueConfigurations": [told]}
    )
    return storage


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=1):
            return True
    except OSError:
        return False


def wait_until(
    condition: Callable[[], bool], seconds: float, what: str | Callable[[], str] = "the condition"
) -> None:
    """Waits until the condition holds; fails the test after so many seconds, and says what did not come."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            raise AssertionError(f"{what() if callable(what) else what} did not come within {seconds} s")
        time.sleep(0.05)


class Lookalike:
    """Runs `lookalike` commands in processes of their own, with settings of this test; stops what it started."""

    def __init__(self, folder: Path, database_url: str, broker_url: str, **settings: str) -> None:
        self._folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LOOKALIKE_", "AWS_"))}
        self.environment = {
            **inherited,
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_url,
            "LOOKALIKE_HOME": str(folder),
            "LOOKALIKE_RETRY_SECONDS": "0.05",
            "LOOKALIKE_DECODE_THREADS": "1",
            "LOOKALIKE_BATCH_SIZE": "8",  # no probe at each start
            "PYTHONPATH": str(ROOT),
            **settings,
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts a command that runs until it is stopped; its output goes to a file in the test's folder."""
        with (self._folder / f"{words[0]}-{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *words],
                cwd=self._folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A test run in the background ignores Ctrl-C, and its children would inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
            )
        self.started.append(process)
        return process

    def run(self, *words: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; with `check`, its failure fails the test."""
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words],
            cwd=self._folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done

    def logs(self) -> str:
        """What the started commands have said, to explain a failure."""
        return "\n".join(
            f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in self._folder.glob("*.log")
        )

    def stop(self) -> None:
        """Ends every process that is still there."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
