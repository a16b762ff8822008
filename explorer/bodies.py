"""Bodies that strangers send: how long they may be, how slow, and how many pictures are taken in at once.

Files of forms are written to disk as they come and lie there until they are answered. So the disk holds no more than
`UPLOADS` times the longest form, whatever a proxy in front lets through.
"""

import time

import anyio
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from explorer.limits import client_of
from explorer.metrics import Metrics
from explorer.places import Places
from explorer.prefix import below
from explorer.problems import BusyError, Problem, TooManyRequestsError, answer, describe

# A form, or a list of keys.
BODY_BYTES = 256 * 1024
# The boundaries and other fields around a picture.
AROUND_BYTES = 64 * 1024
# Pictures that are taken in at once, until they are answered; one client holds no more than half of the places.
UPLOADS = 16
UPLOADS_OF_ONE = 8
# A body is waited for so long, and a second longer for each such part of it that came: 1 Mbit/s is fast enough.
BODY_SECONDS = 20.0
BYTES_A_SECOND = 128 * 1024
# Of a body that was refused so much is thrown away, which costs neither disk nor memory.
THROWN_AWAY = 256 * 2**20
# What the words of a form may be written in. Of all that Python knows some take minutes for a megabyte (punycode).
CHARSETS = (b"utf-8", b"utf8", b"us-ascii")


class Bodies:
    """The middleware. It refuses before it reads where it can: too long, or too many pictures at once."""

    def __init__(self, app: ASGIApp, upload_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._upload_bytes = upload_bytes
        self._metrics = metrics
        self._places = Places(UPLOADS, UPLOADS_OF_ONE, "pictures")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = _is_upload(scope)
        most = self._upload_bytes + AROUND_BYTES if is_upload else BODY_BYTES
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > most:
            await _refuse(_too_large(most))(scope, receive, send)
            return
        if not _is_readable(scope):
            await _refuse(_UNREADABLE)(scope, receive, send)
            return
        if not is_upload:
            await self._app(scope, _limited(receive, most), send)
            return
        client = client_of(scope)
        try:
            self._places.take(client)
        except (BusyError, TooManyRequestsError) as error:
            self._metrics.pictures.labels("upload", "busy").inc()
            await _refuse(describe(error))(scope, receive, send)
            return
        try:
            await self._app(scope, _limited(receive, most), send)
        finally:
            self._places.give_back(client)


def _is_upload(scope: Scope) -> bool:
    """Whether files may come: only those of forms are written to disk, all else is held in memory."""
    return below(scope).endswith("/search") and _kind(scope).lower().startswith(b"multipart/form-data")


def _is_readable(scope: Scope) -> bool:
    """Whether a form does not name a charset that browsers have no use for; whoever reads it would believe it."""
    return parse_options_header(_kind(scope))[1].get(b"charset", CHARSETS[0]).lower() in CHARSETS


def _kind(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"content-type"), b"")


def _limited(receive: Receive, most: int) -> Receive:
    """The body as it comes. Raises HTTPException: 413 beyond so many bytes, 408 when it comes too slowly."""
    received, waited, is_whole = 0, 0.0, False

    async def limited() -> Message:
        nonlocal received, waited, is_whole
        if is_whole:  # from now on only a disconnect comes, and may take as long as the answer
            return await receive()
        began = time.monotonic()
        try:
            # Only the time that the client takes: to write to a busy disk is not his fault.
            with anyio.fail_after(BODY_SECONDS + received / BYTES_A_SECOND - waited):
                message = await receive()
        except TimeoutError:
            said = (
                f"the body comes too slowly: {received:,} bytes in {waited + time.monotonic() - began:.0f} s"
            )
            raise HTTPException(408, said, {"Connection": "close"}) from None
        waited += time.monotonic() - began
        received += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if received > most:
            raise HTTPException(413, _too_large(most).detail, {"Connection": "close"})
        return message

    return limited


def _refuse(problem: Problem) -> ASGIApp:
    """Answers before the body is read. What is on its way is then thrown away as it comes: a connection that is closed
    under somebody who sends breaks, and he never reads why."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        async def begin(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await answer(Request(scope), problem, {"Connection": "close"})(scope, receive, begin)
        # Whoever asks first whether to send has not begun.
        if not any(name == b"expect" for name, _ in scope["headers"]):
            with anyio.move_on_after(BODY_SECONDS):
                await _throw_away(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return refuse


async def _throw_away(receive: Receive) -> None:
    left = THROWN_AWAY
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body", False):
            return


_UNREADABLE = Problem(
    type="urn:lookalike:problem:invalid-request",
    title="Unsupported Media Type",
    status=415,
    detail="what is sent here is written in UTF-8: leave the charset out",
)


def _too_large(most: int) -> Problem:
    return Problem(
        type="urn:lookalike:problem:too-large",
        title="Content Too Large",
        status=413,
        detail=f"no more than {most:,} bytes can be sent here",
    )
