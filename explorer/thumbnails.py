"""Says where pictures of an image can be seen: by a browser, so only ever at http and https addresses, or at ours.

Nothing is fetched here. An address that the archive keeps may hold a password or a signature: those never leave.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

from orchestrator.sources.records import without_secrets

SMALL, LARGE = 400, 1200
# What names of parameters hold that are no name of a picture: of AWS, Azure and Google, of tokens and logins.
_CREDENTIAL = re.compile(
    r"(sig|token|key|secret|pass|pwd|auth|cred|session|policy|jwt|hmac|x-amz|x-goog)[^&=]*=", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a small and a large picture are; None: a browser can see none. Those that begin with a slash are the
    explorer's own.
    """

    small: str | None
    large: str | None


def addresses(url: str, protocol: str, key: str = "", kept: int | None = None) -> Addresses:
    """The pictures of an image that is fetched from `url`; `kept` is the revision of its thumbnail, if it has one.

    A IIIF service is asked for the largest picture within a square, which all take from level 2 on, and which no small
    original is too small for. One that does not take it (level 1, or files of level 0) fails, and then `thumbnail(key)`
    knows what it takes. Other pictures are shown by their thumbnail, or as they are.
    """
    public = public_address(url)
    if public is not None and protocol == "iiif":
        base = public.rstrip("/").removesuffix("/info.json")
        small, large = (f"{base}/full/!{side},{side}/0/default.jpg" for side in (SMALL, LARGE))
        return Addresses(small, large)
    ours = None if kept is None else f"{thumbnail(key)}?v={kept}"
    return Addresses(ours or public, public or ours)


def thumbnail(key: str) -> str:
    """Where the explorer itself shows an image: a thumbnail, what shows it elsewhere, or its colours."""
    # Browsers would take . and .. for steps, and proxies two slashes for one.
    is_plain = not {".", "..", ""} & set(key.split("/"))
    return f"/thumbnails/{quote(key, safe='/' if is_plain else '')}"


def under(root: str, address: str | None) -> str | None:
    """A picture's address on a website that has the explorer below a path: our own ones begin with a slash."""
    return root + address if address and address.startswith("/") else address


def public_address(url: str) -> str | None:
    """An address that may be shown: http or https, without passwords and signatures. None for any other.

    A query that may hold one leads to no picture without it; any other, as `?page=3&file=a.tif`, stays as it is.
    """
    if not url.startswith(("http://", "https://")):
        return None
    if "@" in url or _CREDENTIAL.search(url.partition("?")[2]):
        return without_secrets(url)
    return url
