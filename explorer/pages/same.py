"""The same as a page shows, in other words: in SQL for analysts, by the API for programs, as a snippet for websites."""

import json
from dataclasses import asdict
from urllib.parse import quote, urlencode

from fastapi import Request

from explorer.pages.rendering import write
from explorer.pages.wishes import Wish
from explorer.prefix import root_of


def in_sql(key: str, wish: Wish) -> str:
    """The search for the neighbours of an image, for psql and notebooks."""
    parts = [_literal(key), f"k => {wish.k}"]
    for name, value in asdict(wish).items():
        if name != "k" and value not in (None, False):
            parts.append(f"{name} => {_literal(value)}")
    return f"select rank, image, distance, title, licence\nfrom lookalike.similar({', '.join(parts)});"


def by_api(request: Request, key: str, wish: Wish) -> str:
    """The same search as an address of the API."""
    # What is wished anyway on a page is not what the API answers by itself.
    asked = {name: value for name, value in asdict(wish).items() if value not in (None, False)}
    words = {name: "true" if value is True else str(value) for name, value in asked.items()}
    return f"{site_of(request)}/api/v1/images/{quote(key, safe='')}/similar?{urlencode(words)}"


def as_snippet(site: str, key: str) -> str:
    """What shows the neighbours of an image on another website; the same stands in docs/api.md."""
    # Within a script nothing may end the text of a key, nor the script.
    written = json.dumps(key)[1:-1].replace("<", "\\u003c").replace("&", "\\u0026")
    return write("snippet.html", site=site, key=written).strip()


def site_of(request: Request) -> str:
    """Where this explorer is, as it was asked for."""
    return f"{request.url.scheme}://{request.url.netloc}{root_of(request)}"


def _literal(value: object) -> str:
    """A value as SQL has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"
