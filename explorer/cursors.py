"""Cursors of lists: where the next page begins, opaque to whoever hands them back, and checked when they do."""

import base64
import binascii
import json
from collections.abc import Sequence

from lookalike.errors import ConfigurationError

Value = int | float | str


def write_cursor(*values: Value) -> str:
    """A cursor that says where a page ended: the values that the list is in order of."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, start: Sequence[Value]) -> tuple[Value, ...]:
    """The values of a cursor; those of `start` without one. Raises ConfigurationError for what is none of ours."""
    if cursor is None:
        return tuple(start)
    try:
        values = json.loads(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
    except (binascii.Error, ValueError, RecursionError):
        raise ConfigurationError("the cursor is none of this list: leave it out to begin again") from None
    if (
        not isinstance(values, list)
        or len(values) != len(start)
        or not all(_fits(value, like) for value, like in zip(values, start, strict=True))
    ):
        raise ConfigurationError("the cursor is none of this list: leave it out to begin again")
    return tuple(values)


def _fits(value: object, like: Value) -> bool:
    """Whether a value is of the kind of another, and one that Postgres takes for it."""
    if isinstance(like, str):
        return isinstance(value, str) and "\0" not in value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(like, int):
        return isinstance(value, int) and abs(value) < 2**63
    return abs(value) < 1e30
