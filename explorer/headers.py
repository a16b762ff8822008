"""Headers that keep browsers from doing what no page of ours needs: foreign scripts, frames, guesses at types."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Scripts and styles are files of ours; nothing is inline.
PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self';"
    " img-src 'self' data: blob: {images}; form-action 'self'; base-uri 'none'; frame-ancestors 'none';"
    " manifest-src 'self'"
)
DATA = b"default-src 'none'; frame-ancestors 'none'"
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


class SecurityHeaders:
    """The middleware, plain ASGI because every answer passes it."""

    def __init__(self, app: ASGIApp, image_sources: str) -> None:
        self._app = app
        self._pages = PAGES.format(images=image_sources).encode("latin-1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                sent = {name.lower(): value for name, value in headers}
                is_page = sent.get(b"content-type", b"").startswith(b"text/html")
                policy = (b"content-security-policy", self._pages if is_page else DATA)
                headers += [one for one in (*ALWAYS, policy) if one[0] not in sent]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, with_headers)
