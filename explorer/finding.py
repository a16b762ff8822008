"""Finds images by the beginning of their key and by words of their titles, a page at a time.

What a page costs is bounded whatever is asked and however many images there are. Titles have two roads, and the
planner's statistics choose between them: the index on words names all images that fit before the first can be shown,
which is right where these are few; a word that every tenth title has is met soon enough by reading titles in order.
"""

from typing import Any

from psycopg import sql
from psycopg.rows import scalar_row

from explorer.cursors import read_cursor, write_cursor
from explorer.reading import QUERIES, page, rows
from explorer.records import Page, Picture, as_picture
from lookalike.database import Connection
from lookalike.estimates import estimate_rows

# A word of a title is found by its beginning from so many letters on.
LEAST_LETTERS = 3
# Images that the index names which are put in order; of more these are some.
FOUND_AT_MOST = 2_000
# Titles that are read for a page at most: a fifth of a second on one core.
WALK_AT_MOST = 10_000
# The walk is taken where so many times as many titles as are wanted are expected on it.
PLENTY = 2


def find(
    connection: Connection,
    text: str,
    cursor: str | None = None,
    limit: int = 40,
    include_unwanted: bool = False,
) -> Page[Picture]:
    """Images whose key begins with a text, then those with all its words in the title, by their keys.

    The last word may be the beginning of one. A page may hold fewer than `limit`, even none, and yet have a `next`: so
    many titles were read, and the search goes on behind them. Raises ConfigurationError for a cursor that is none.
    """
    text = text.strip()
    if not text:
        return Page(items=[])
    after_class, after = read_cursor(cursor, (0, ""))
    asked = {"text": text, "words": _as_words(text), "include_unwanted": include_unwanted}
    found: list[dict[str, Any]] = []
    if after_class == 0:
        found = rows(connection, QUERIES["find_by_key"], {**asked, "after": after, "limit": limit + 1})
        after = ""
    walked_to = None
    if asked["words"] and len(found) <= limit:
        wanted = limit + 1 - len(found)
        titles, walked_to = _find_titles(connection, {**asked, "after": after, "limit": wanted})
        found += titles
    shown = page(found, limit, lambda row: Picture(**as_picture(row)), lambda row: (row["class"], row["key"]))
    if shown.next is None and walked_to is not None:
        return Page(items=shown.items, next=write_cursor(1, walked_to))
    return shown


def _find_titles(connection: Connection, asked: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
    """Images whose titles fit, and the key up to which titles were read where that was not to the end."""
    if not _are_many(connection, asked):
        return rows(connection, QUERIES["find_by_title"], {**asked, "most": FOUND_AT_MOST}), None
    walk = {**asked, "most": WALK_AT_MOST}
    found = rows(connection, QUERIES["walk_titles"], walk)
    if len(found) == asked["limit"]:
        return found, None
    with connection.cursor(row_factory=scalar_row) as cursor:
        return found, cursor.execute(QUERIES["walked_to"], walk).fetchone()


def _are_many(connection: Connection, asked: dict[str, Any]) -> bool:
    """Whether so many titles fit that a walk meets enough of them."""
    fitting = estimate_rows(connection, sql.SQL(QUERIES["fitting_titles"]), asked)
    with connection.cursor(row_factory=scalar_row) as cursor:
        images: int = cursor.execute(QUERIES["about_images"]).fetchone() or 1
    return bool(fitting * WALK_AT_MOST >= PLENTY * asked["limit"] * images)


def _as_words(text: str) -> str:
    """A tsquery of the words of a text, of which the last may be a beginning; empty without a word.

    Not of one or two letters: so many words begin with them that the index would be read as a whole.
    """
    words = "".join(c if c.isalnum() else " " for c in text).split()
    if not words:
        return ""
    return " & ".join(f"'{word}'" for word in words) + (":*" if len(words[-1]) >= LEAST_LETTERS else "")
