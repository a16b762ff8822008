"""How many rows a statement would find, as the planner estimates it from its statistics: asked, never run."""

from typing import Any

import psycopg
from psycopg import sql

Connection = psycopg.Connection[tuple[Any, ...]]


def estimate_rows(connection: Connection, statement: sql.Composable, parameters: dict[str, Any]) -> int:
    """What the planner expects; it takes a moment in any archive, and is as good as the last `analyze`."""
    row = connection.execute(sql.SQL("explain (format json) ") + statement, parameters).fetchone()
    assert row is not None
    return int(row[0][0]["Plan"]["Plan Rows"])
