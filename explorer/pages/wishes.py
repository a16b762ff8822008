"""What a visitor wishes of a search, as it stands in the address of a page.

A form without script sends its empty fields as well, and people change addresses by hand: what cannot be read is no
wish, instead of an error.
"""

from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from explorer.reading import Filters

# No more than the API answers: what a page shows can be had from there as well.
MANY = (30, 60, 120, 200)
PLAIN = 60


@dataclass(frozen=True, slots=True)
class Wish:
    """How many neighbours, how near, and of which images. None: any."""

    k: int = PLAIN
    max_distance: float | None = None
    licence: str | None = None
    since: date | None = None
    before: date | None = None
    encoder: str | None = None
    exclude_same_work: bool = False
    include_unwanted: bool = False

    @property
    def filters(self) -> Filters:
        return Filters(
            licence=self.licence,
            since=self.since,
            before=self.before,
            exclude_same_work=self.exclude_same_work,
            include_unwanted=self.include_unwanted,
        )

    def written(self) -> str:
        """The wish as it stands in an address, without what is wished anyway."""
        plain = Wish()
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return urlencode(
            {name: _word(value) for name, value in named.items() if value != getattr(plain, name)}
        )


def read_wish(words: QueryParams) -> Wish:
    """The wish in an address. A distance of 1 is any."""
    distance = _number(words.get("max_distance"))
    k = words.get("k", "")
    return Wish(
        int(k) if k in map(str, MANY) else PLAIN,
        None if distance is None or not 0 <= distance < 1 else distance,
        _text(words.get("licence")),
        _day(words.get("since")),
        _day(words.get("before")),
        _text(words.get("encoder")),
        words.get("exclude_same_work") == "true",
        words.get("include_unwanted") == "true",
    )


def _word(value: object) -> str:
    return "true" if value is True else str(value)


def _text(word: str | None) -> str | None:
    word = (word or "").strip().replace("\0", "")
    return word[:500] or None


def _number(word: str | None) -> float | None:
    try:
        return float(word or "")
    except ValueError:
        return None


def _day(word: str | None) -> date | None:
    try:
        return date.fromisoformat(word or "")
    except ValueError:
        return None
