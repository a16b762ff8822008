"""Makes an announcement of what a source read: one place for the rules on keys, addresses and odd text.

A record that Postgres could not store or nobody could fetch becomes Refused here; nothing raises.
"""

import os
import re
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin, urlsplit

from lookalike.images import Announcement, Image, Protocol, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ptif", ".webp"}
    | {".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm", ".avif", ".heic", ".heif", ".jxl"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".psd", ".dng"}
)
"""File names that end so (in any case) are images to a folder or an S3 prefix. Some need decoders that may
not be installed: those images fail with a reason to be seen, instead of being passed over in silence."""

MAX_KEY = 1024
"""Longest key in bytes of UTF-8: S3 has the same limit, and a Postgres index entry ends at 2,704 bytes."""

# Of so many characters none can be too many bytes of UTF-8.
_SHORT = MAX_KEY // 4
_MAX_URL = 8192
_MAX_TEXT = 1000
_HTTP = re.compile(
    r"https?://(?:[^/?#@]*@)?([^/?#@:\[\]\s]+|\[[0-9a-f:.]+\])(:\d+)?([/?#].*)?", re.IGNORECASE
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Control characters break logs and requests; NUL and half characters (surrogates) Postgres cannot store.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_WELLCOME = re.compile(r"iiif\.wellcomecollection\.org/(?:image|thumbs)/([^/?#]+)")


def announce(
    where: str,
    url: str,
    *,
    key: str | None = None,
    protocol: Protocol = "file",
    work: str | None = None,
    title: str | None = None,
    licence: str | None = None,
    access: str | None = None,
    content: str | None = None,
    digitised: str | None = None,
    as_of: str | None = None,
    outside: bool = True,
    credit: str | None = None,
) -> Announcement:
    """Returns the image, or Refused when its key or address cannot be used.

    `where` names the record for people. Without a `key` one is made by `key_of_url`. Title, licence, access
    and credit are cleaned of unusable characters and cut at 1,000 characters; what identifies (key, url, work,
    content) is never altered, but refused. `digitised` is an ISO date, with or without a time; `as_of` is taken
    as it is (see Image). Only who knows that the operator gave the address says that it does not come from
    `outside`.
    """
    key = key or key_of_url(url)
    path = path_of_url(url) if url.startswith("file://") else None
    for name, text in (("url", url), ("path", path), ("key", key), ("work", work), ("content", content)):
        if text and not _is_plain(text, _SHORT) and (fault := _text_fault(name, text)):
            return Refused(printable(where), Reason.BAD_RECORD, fault)
    if fault := _address_fault(url, protocol):
        return Refused(printable(where), Reason.BAD_ADDRESS, fault)
    try:
        day = _day(digitised) if digitised else None
    except ValueError:
        return Refused(printable(where), Reason.BAD_RECORD, "digitised is not a date like 2024-12-31")
    return Image(
        key,
        url,
        protocol,
        work or None,
        plain(title),
        plain(licence),
        plain(access),
        content or None,
        digitised=day,
        as_of=as_of,
        outside=outside,
        credit=plain(credit),
    )


def key_of_url(url: str) -> str:
    """Returns the key of an image that has no better name: its address without scheme and credentials.

    `https://host/path?query` gives `host/path?query`, `s3://bucket/path` gives `bucket/path`, `file:///a/b`
    gives `/a/b`. A last path segment alone (`1.jp2`, `default.jpg`) would let the images of two institutions
    overwrite one another in silence. Wellcome's image services are the exception: their identifiers are
    unique across all that Wellcome holds and name the same image in its manifests, catalogue and storage, so
    `V0021056EL` is the key.
    """
    if url.startswith("file://"):
        return path_of_url(url)
    if (found := _HTTP.fullmatch(url)) is None:
        return url.partition("://")[2]
    host, port, rest = found.groups(default="")
    key = host.lower() + port + rest
    wellcome = _WELLCOME.fullmatch(key)
    return wellcome[1] if wellcome else key


def key_of_path(path: Path, folder: Path) -> str:
    """Returns the key of a file: its path from the folder, that folder's name in front, with slashes.

    So it is the same wherever the folder lies. A file outside of the folder keeps its absolute path. Both
    paths are absolute.
    """
    if path.is_relative_to(folder):
        return (Path(folder.name) / path.relative_to(folder)).as_posix()
    return path.as_posix()


def service_base(address: str) -> str:
    """Returns the base address of a IIIF image service: without `/info.json` and trailing slashes."""
    return address.strip().rstrip("/").removesuffix("/info.json").rstrip("/")


def joined(base: str, address: str) -> str:
    """Returns an address that may be relative to another one. What no address can be made of is returned as it is."""
    try:
        return urljoin(base, address)
    except ValueError:
        return address


def absolute_path(path: Path) -> Path:
    """Returns the path without dots. Unlike `Path.resolve` it keeps the names that the user gave."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def has_scheme(address: str) -> bool:
    """Says whether the text is an absolute address (`https://...`) rather than a path."""
    return _SCHEME.match(address) is not None


def has_image_suffix(name: str, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> bool:
    """Says whether a file name or path ends as images do, or in one of other suffixes (in small letters)."""
    return name[name.rfind(".") :].lower() in suffixes if "." in name else False


def image_suffixes(settings: Settings) -> frozenset[str]:
    """Returns the suffixes that folders and S3 take for those of images: LOOKALIKE_SUFFIXES, or all known ones."""
    chosen = settings.suffixes or ""
    return frozenset(each.strip().lower() for each in chosen.split(",") if each.strip()) or IMAGE_SUFFIXES


def plain(text: str | None) -> str | None:
    """Returns text that can be stored and shown in one line, at most 1,000 characters; None for nothing."""
    if not text:
        return None
    if _is_plain(text, _MAX_TEXT) and "  " not in text and text.strip() == text:
        return text
    return " ".join(_UNUSABLE.sub(" ", text[: 4 * _MAX_TEXT]).split())[:_MAX_TEXT] or None


def manifest_fault(address: str) -> str | None:
    """Why the address of a manifest cannot be kept, to be asked for later; None: it can."""
    return None if _is_plain(address, _SHORT) else _text_fault("the address", address)


def printable(text: str) -> str:
    """Returns text that any terminal, log and database takes: odd characters are written as escapes."""
    return _UNUSABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)[:_MAX_URL]


def without_secrets(url: str) -> str:
    """Returns an address fit for messages: no user and password, of its query only the numbers."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(a malformed address)"
    shown = [(name, value if value.isdecimal() else "...") for name, value in parse_qsl(parts.query)]
    host = parts.netloc.rpartition("@")[2]
    return printable(parts._replace(netloc=host, query=urlencode(shown), fragment="").geturl())


def file_url(path: Path) -> str:
    """Returns the `file://` address of an absolute path, percent-encoded."""
    return "file://" + quote(path.as_posix(), errors="surrogateescape")


def path_of_url(url: str) -> str:
    """Returns the path that a `file://` address names; bytes that are not UTF-8 arrive as surrogates."""
    return unquote(url.removeprefix("file://"), errors="surrogateescape")


def _is_plain(text: str, longest: int) -> bool:
    """Says, quickly, that there is nothing to say against a text: short, no control character, no half one."""
    return len(text) <= longest and text.isprintable()


# A collection is digitised on few days.
@lru_cache(maxsize=4096)
def _day(digitised: str) -> str:
    return datetime.fromisoformat(digitised).date().isoformat()


def _address_fault(url: str, protocol: Protocol) -> str | None:
    if _HTTP.fullmatch(url):
        return None
    if protocol == "iiif":
        return "the address of a IIIF image service is http(s)://host/path"
    scheme, _, rest = url.partition("://")
    if scheme == "s3":
        bucket, _, name = rest.partition("/")
        return None if bucket and name else "the address of an object is s3://bucket/key"
    if scheme == "file":
        return None if rest.startswith("/") else "the address of a file is file:///absolute/path"
    if scheme.lower() in ("http", "https"):
        return "the address has no valid host"
    return "the address is of an unknown kind; known are http, https, s3 and file"


def _text_fault(name: str, text: str) -> str | None:
    if _UNUSABLE.search(text):
        return f"{name} holds control characters or is not UTF-8"
    limit = _MAX_URL if name in ("url", "path") else MAX_KEY
    # The length is counted in bytes only where it could matter: counting is dearer than the whole rest.
    if 4 * len(text) > limit and len(text.encode()) > limit:
        return f"{name} is longer than {limit} bytes"
    return None
