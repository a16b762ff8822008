"""The explorer behind a real socket, and a reverse proxy in front of it as a website has one."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import uvicorn

from explorer.app import create_app
from lookalike.settings import Settings
from tests.servers import wait_until


@contextmanager
def listening(database_url: str, **options: object) -> Iterator[int]:
    """Serves an app with these settings as `lookalike serve` does, and yields its port."""
    app = create_app(Settings(_env_file=None, explorer_rate=0, **options), database_url)
    config = uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False)
    server = uvicorn.Server(config)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        wait_until(lambda: server.started, 20, "the explorer")
        yield bound.getsockname()[1]
        server.should_exit = True
        thread.join(20)


@contextmanager
def reverse_proxy(port: int, prefix: str, strips: bool) -> Iterator[int]:
    """Passes what lies below a path on to a port, without the path where it `strips`, under a name of its own, as nginx
    does unless it is told otherwise. All else is another website's: 404. Yields its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            if not self.path.startswith(f"{prefix}/") and self.path != prefix:
                self.send_error(404, "another website")
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            path = (self.path.removeprefix(prefix) or "/") if strips else self.path
            ours = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            ours.request(
                self.command,
                path,
                body,
                {**headers, "Host": "backend", "X-Forwarded-For": self.client_address[0]},
            )
            got = ours.getresponse()
            data = got.read()
            self.send_response(got.status)
            for name, value in got.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            ours.close()

        do_GET = do_HEAD = do_POST = do_DELETE = pass_on

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
