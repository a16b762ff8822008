"""`python -m bench.server FOLDER SECONDS`: a light HTTP server that lets every answer wait as a distant host would.

It serves the files of one folder from memory, over kept connections, in one thread. Prints its port when it is ready.
"""

import asyncio
import sys
from pathlib import Path


class Connection(asyncio.Protocol):
    """One connection; requests are answered in turn."""

    def __init__(self, bodies: dict[bytes, bytes], seconds: float) -> None:
        self._bodies = bodies
        self._seconds = seconds
        self._received = b""
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
        self._transport.write(body or b"")
        if close:
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
