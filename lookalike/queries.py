"""Reads the named SQL statements in `sql/*.sql`, so that SQL stays SQL.

A statement starts with a line `-- name: its_name` and one or more comment lines that say what it does.
"""

import re
from functools import cache
from importlib import resources
from typing import LiteralString, cast


@cache
def load_queries(file: str) -> dict[str, LiteralString]:
    """Returns the statements of `sql/<file>.sql` by name. They are part of the code, hence literal strings."""
    text = resources.files("lookalike").joinpath(f"sql/{file}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: *(\w+) *$", text, flags=re.MULTILINE)
    return {
        name: cast(LiteralString, sql.strip()) for name, sql in zip(parts[1::2], parts[2::2], strict=True)
    }
