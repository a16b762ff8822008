"""`python -m bench.chaos.web FOLDER`: serves pictures, and misbehaves as the plan in FOLDER/plan.json says.

One thread, in a process of its own that no fault strikes. Prints its port when it is ready.
"""

import asyncio
import json
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

# Of every answer, as of a distant host.
LATENCY_SECONDS = 0.15
SLOW_SECONDS = 0.8
SLOW_STEPS = 8
# A busy host answers so many requests, then refuses all for a while.
BUSY_REQUESTS = 8
BUSY_SECONDS = 2.0
Answer = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request that is being answered. Its connection is closed afterwards unless `keep` is set."""

    def __init__(self, writer: asyncio.StreamWriter, path: str, picture: bytes) -> None:
        self.writer = writer
        self.path = path
        self.picture = picture
        self.keep = False

    async def send(self, status: str, body: bytes, length: int | None = None, *headers: str) -> None:
        """Sends head and body, with another Content-Length if one is given."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
        await self.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


async def good(exchange: Exchange) -> None:
    exchange.keep = True
    await exchange.send("200 OK", exchange.picture)


async def slow(exchange: Exchange) -> None:
    """All of the picture, in small pieces."""
    exchange.keep = True
    step = -(-len(exchange.picture) // SLOW_STEPS)
    await exchange.send("200 OK", exchange.picture[:step], len(exchange.picture))
    for start in range(step, len(exchange.picture), step):
        await asyncio.sleep(SLOW_SECONDS / SLOW_STEPS)
        await exchange.write(exchange.picture[start : start + step])


async def throttle(exchange: Exchange) -> None:
    exchange.keep = True
    await exchange.send("429 Too Many Requests", b"", 0, "Retry-After: 1")


async def reset(exchange: Exchange) -> None:
    """Half of the picture, then RST in place of FIN."""
    await exchange.send("200 OK", exchange.picture[: len(exchange.picture) // 2], len(exchange.picture))
    exchange.writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    exchange.writer.transport.abort()


async def error(exchange: Exchange) -> None:
    await exchange.send("500 Internal Server Error", b"out of order")


async def short(exchange: Exchange) -> None:
    """Fewer bytes than announced."""
    await exchange.send("200 OK", exchange.picture, len(exchange.picture) + 1000)


async def html(exchange: Exchange) -> None:
    await exchange.send("200 OK", b"<!DOCTYPE html><html><body>We are sorry.</body></html>")


async def endless(exchange: Exchange) -> None:
    """A few bytes now and then, for ever."""
    await exchange.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + exchange.picture[:1000])
    while True:
        await asyncio.sleep(0.2)
        await exchange.write(b"\0" * 1000)


async def missing(exchange: Exchange) -> None:
    exchange.keep = True
    await exchange.send("404 Not Found", b"")


async def refused(exchange: Exchange) -> None:
    exchange.keep = True
    await exchange.send("403 Forbidden", b"")


async def loop(exchange: Exchange) -> None:
    exchange.keep = True
    await exchange.send("302 Found", b"", 0, f"Location: {exchange.path}")


async def flood(exchange: Exchange) -> None:
    """Bytes without end, as fast as they are taken."""
    await exchange.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + exchange.picture)
    while True:
        await exchange.write(b"\0" * 65536)


async def cut(exchange: Exchange) -> None:
    """A file that ends too early, sent faithfully."""
    exchange.keep = True
    await exchange.send("200 OK", exchange.picture[: len(exchange.picture) // 2])


async def understated(exchange: Exchange) -> None:
    """More bytes than announced."""
    await exchange.send("200 OK", exchange.picture, len(exchange.picture) // 2)


async def empty(exchange: Exchange) -> None:
    exchange.keep = True
    await exchange.send("200 OK", b"")


ANSWERS: dict[str, Answer] = {
    function.__name__: function
    for function in (
        *(good, slow, throttle, reset, error, short, html, endless),
        *(missing, refused, loop, flood, cut, understated, empty),
    )
}


class Site:
    """The answers of every path, and how often each was asked for."""

    def __init__(self, folder: Path) -> None:
        self._answers: dict[str, list[str]] = json.loads((folder / "plan.json").read_text())
        self._pictures = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
        self._asked: Counter[str] = Counter()
        self._served = 0
        self._busy_until = 0.0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection until either side closes it."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            keep = True
            while keep:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                answers = self._answers[path.removeprefix("/")]
                answer = answers[min(self._asked[path], len(answers) - 1)]
                if answer == "busy":
                    answer = "throttle" if self._is_busy() else "good"
                self._asked[path] += 1
                number = int(path[1:].partition(".")[0])
                exchange = Exchange(writer, path, self._pictures[number % len(self._pictures)])
                await asyncio.sleep(LATENCY_SECONDS)
                await ANSWERS[answer](exchange)
                keep = exchange.keep
        writer.close()

    def _is_busy(self) -> bool:
        """Whether the busy host refuses this request, as it does all others at this moment."""
        now = time.monotonic()
        if now < self._busy_until:
            return True
        self._served += 1
        if self._served % BUSY_REQUESTS == 0:
            self._busy_until = now + BUSY_SECONDS
        return False


async def serve(folder: Path) -> None:
    server = await asyncio.start_server(Site(folder).talk, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
