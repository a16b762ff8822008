"""Renders templates into pages: what every page knows, and the addresses of its own files.

Templates escape all they are given. The addresses of files hold a digest of all of them, so that browsers keep them for
ever, and scripts that name each other are of one version.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from explorer.paths import VERBS
from explorer.prefix import root_of

HERE = Path(__file__).parent
STATIC = HERE / "static"

# In the order of the head of each page: address and words.
SECTIONS = (
    ("/", "Wall"),
    ("/picture", "With a picture"),
    ("/clusters", "Clusters"),
    ("/duplicates", "Near-duplicates"),
    ("/unwanted", "Unwanted"),
    ("/map", "Map"),
    ("/status", "Status"),
)

_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(
    request: Request,
    template: str,
    section: str = "",
    status: int = 200,
    kept: bool = False,
    **words: Any,
) -> HTMLResponse:
    """The page of a template; `section` is the address in SECTIONS that the page belongs to.

    With `kept` a step back shows the page as it was: the same wall, without asking again.
    """
    root = root_of(request)
    known = {
        "root": root,
        "section": section,
        "sections": SECTIONS,
        "static": lambda name: f"{root}/static/{digest()}/{name}",
        "most_bytes": request.app.state.settings.explorer_upload_bytes,
        "q": None,
        "undo": None,
    }
    page = _templates.get_template(template).render(known | words)
    return HTMLResponse(page, status, headers={"Cache-Control": "private, no-cache" if kept else "no-store"})


def write(template: str, **words: Any) -> str:
    """A template that is part of a page, by itself."""
    return _templates.get_template(template).render(words)


def image_address(key: str, root: str = "") -> str:
    """Where the page of an image is: by query where a browser or a route would change the key in a path."""
    if _is_by_query(key):
        return f"{root}/image?key={quote(key, safe='')}"
    return f"{root}/images/{quote(key)}"


def compare_address(first: str, second: str, root: str, encoder: str | None) -> str:
    """Where two images are side by side, by the vectors of this encoder, else of the active one."""
    asked = {"first": first, "second": second} | ({"encoder": encoder} if encoder else {})
    return f"{root}/compare?{urlencode(asked)}"


def _is_by_query(key: str) -> bool:
    """Whether a key would be taken for something else in a path."""
    parts = key.split("/")
    return bool({".", "..", ""} & set(parts)) or parts[-1] in VERBS


@cache
def digest() -> str:
    """Of all files together."""
    found = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]
