"""Who may change something or see what is for operators, and from where: tokens, or only this machine; and never
another website's pages.

Reading the archive needs nothing. Nothing here is told apart by how long it takes.
"""

import base64
import binascii
import hmac
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from explorer.problems import RefusedError, UnauthorisedError
from lookalike.settings import Settings

# Who decides at this machine and does not say a name.
LOCAL = "local"
FIGURES = "operators' figures"
NAMES = ("localhost", "localhost.localdomain")


@dataclass(frozen=True, slots=True)
class Who:
    """Who decides. A name that came with a token is who it is; at this machine people say it themselves."""

    name: str
    proven: bool

    def called(self, by: str | None) -> str:
        """The name to be kept, where the request says `by`."""
        return self.name if self.proven or not by or not by.strip() else by.strip()


async def who_decides(request: Request) -> Who:
    """Who asks for a change. Raises UnauthorisedError and RefusedError, which say what to do."""
    return _who(request, "changes")


async def who_operates(request: Request) -> Who:
    """Who asks for what is nobody's business but the operators'. Raises as `who_decides`: it is the same people."""
    return _who(request, FIGURES, is_visit(request))


def is_operator(request: Request) -> bool:
    """Whether whoever asks is one of those, for pages that show everybody a part."""
    try:
        _who(request, FIGURES, is_visit(request))
    except (RefusedError, UnauthorisedError):
        return False
    return True


def _who(request: Request, what: str, is_harmless: bool = False) -> Who:
    settings: Settings = request.app.state.settings
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    # What a browser adds by itself, such as a password it knows, it adds to posts of other websites' pages, too.
    if scheme.lower() != "bearer" and not is_harmless and not is_same_origin(request):
        raise RefusedError(f"{what} are not for the pages of other websites")
    if settings.explorer_tokens:
        owner = _known(settings, scheme.lower(), credentials.strip())
        if owner is None:
            raise UnauthorisedError(
                f"{what} need a token: Authorization: Bearer …, or name and token in the browser"
            )
        return Who(owner, True)
    if not is_local(request):
        raise RefusedError(
            f"without LOOKALIKE_EXPLORER_TOKENS {what} are only for the machine of the explorer itself"
        )
    return Who(LOCAL, False)


Decider = Annotated[Who, Depends(who_decides)]
# What a route depends on that is for operators alone.
FOR_OPERATORS = [Depends(who_operates)]


def _known(settings: Settings, scheme: str, credentials: str) -> str | None:
    """The name of a token, as `Bearer TOKEN`, or `Basic` with NAME:TOKEN as browsers ask for it; None: nobody's."""
    name, token = None, credentials
    if scheme == "basic":
        try:
            name, _, token = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            token = ""
    elif scheme != "bearer":
        token = ""
    known = None
    for owner, secret in settings.explorer_tokens.items():
        # All of them, whichever it is.
        same = hmac.compare_digest(secret.get_secret_value().encode(), token.encode())
        if same and token and name in (None, "", owner):
            known = owner
    return known


def is_same_origin(request: Request) -> bool:
    """Whether a page of our own asks, or no page at all: by what browsers say and pages cannot change."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def is_visit(request: Request) -> bool:
    """Whether somebody follows a link to a page, which the website where that stands does not see."""
    said = (request.headers.get("sec-fetch-mode"), request.headers.get("sec-fetch-dest"))
    return request.method == "GET" and said == ("navigate", "document")


def is_local(request: Request) -> bool:
    """Whether this machine itself asks: not through a proxy, and not under a name that may be anybody's.

    The name counts because a website can have its own name lead to this machine (DNS rebinding).
    """
    if request.client is None or not _is_loopback(request.client.host):
        return False
    if any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via")):
        return False
    # nginx as it comes says nothing of whom it asks for, and calls us by the address it knows us by; but it speaks
    # HTTP/1.0, which no browser does.
    if request.scope.get("http_version") == "1.0":
        return False
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return host in NAMES or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
