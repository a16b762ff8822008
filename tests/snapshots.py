"""What a database holds, to be compared before and after."""

from psycopg import sql

from lookalike.database import Connection


def snapshot(connection: Connection) -> list[tuple[object, ...]]:
    """Every table, index and sequence with its size, the rows of each table, the numbers used up, and the schemas."""
    relations = connection.execute(
        "select relname, relkind, pg_relation_size(oid) from pg_class"
        " where relnamespace = 'lookalike'::regnamespace order by 1"
    ).fetchall()
    counts = [
        (
            name,
            *connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(name))).fetchone(),
        )
        for name, kind, _ in relations
        if kind in ("r", "p")
    ]
    numbers = [
        (
            name,
            *connection.execute(
                sql.SQL("select last_value, is_called from {}").format(sql.Identifier(name))
            ).fetchone(),
        )
        for name, kind, _ in relations
        if kind == "S"
    ]
    schemas = connection.execute("select nspname from pg_namespace order by 1").fetchall()
    return [*relations, *counts, *numbers, *schemas]
