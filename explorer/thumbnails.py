"""Says where pictures of an image can be seen: by a browser, so only ever at http and https addresses.

Nothing is fetched here. An address that the archive keeps may hold a password or a signature: those never leave.
"""

from dataclasses import dataclass

from orchestrator.sources.records import without_secrets

SMALL, LARGE = 400, 1200


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a small and a large picture are; None: a browser can see none."""

    small: str | None
    large: str | None


def addresses(url: str, protocol: str) -> Addresses:
    """The pictures of an image that is fetched from `url`.

    A IIIF service is asked by width, which servers of all versions take from level 1 on. Other pictures are shown as
    they are.
    """
    public = public_address(url)
    if public is None:
        return Addresses(None, None)
    if protocol == "iiif":
        base = public.rstrip("/")
        return Addresses(f"{base}/full/{SMALL},/0/default.jpg", f"{base}/full/{LARGE},/0/default.jpg")
    return Addresses(public, public)


def public_address(url: str) -> str | None:
    """An address that may be shown: http or https, without passwords and signatures. None for any other."""
    if not url.startswith(("http://", "https://")):
        return None
    # Quick for nearly all of them.
    return url if "@" not in url and "?" not in url else without_secrets(url)
