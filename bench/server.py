"""`python -m bench.server FOLDER SECONDS`: a light HTTP server that lets every answer wait as a distant host would.

It serves the files of one folder from memory, over kept connections, in one thread. Prints its port when it is ready.
"""

import asyncio
import sys
from pathlib import Path

PART = 256 * 1024


class Connection(asyncio.Protocol):
    """One connection; requests are answered in turn."""

    def __init__(self, bodies: dict[bytes, bytes], seconds: float) -> None:
        self._bodies = bodies
        self._seconds = seconds
        self._received = b""
        self._left = memoryview(b"")
        self._paused = self._closing = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(self._seconds, self._answer, head)

    def _answer(self, head: bytes) -> None:
        assert self._transport is not None
        body = self._bodies.get(head.split(b" ", 2)[1])
        close = b"connection: close" in head.lower()
        status = b"200 OK" if body is not None else b"404 Not Found"
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\nConnection: %b\r\n\r\n"
            % (status, len(body or b""), b"close" if close else b"keep-alive")
        )
        self._left, self._closing = memoryview(body or b""), close
        self._send()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send()

    def _send(self) -> None:
        """Hands on as much as the client takes: asyncio would copy the whole of a large file, twice."""
        assert self._transport is not None
        while len(self._left) and not self._paused:
            part, self._left = self._left[:PART], self._left[PART:]
            self._transport.write(part)
        if not len(self._left) and self._closing:
            self._transport.close()


async def serve(folder: Path, seconds: float) -> None:
    """Serves `/NAME` for every file of a folder, with or without a query, until the process ends."""
    bodies = {b"/" + path.name.encode(): path.read_bytes() for path in folder.iterdir()}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(bodies, seconds), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
