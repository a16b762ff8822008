"""Who may do what in the database: settled after every migration, so that what it made belongs to the right role.

Three roles without logins: `lookalike_owner` owns the schema and migrates it, `lookalike_app` is what orchestrator,
workers and commands are, `analyst` reads results. docs/access.md shows how logins are put into them.
"""

from psycopg.rows import scalar_row

from lookalike.database import Connection
from lookalike.queries import load_queries

QUERIES = load_queries("rights")


def settle_rights(connection: Connection) -> str | None:
    """Hands the schema to its owner and grants what each role may.

    Returns None, or why it could not be done and what to ask an administrator for: lookalike works without it, with a
    login that owns everything.
    """
    with connection.cursor(row_factory=scalar_row) as cursor:
        roles: list[str] = cursor.execute(QUERIES["missing_roles"]).fetchall()
        if roles:
            wanted = " ".join(f"create role {role} nologin;" for role in roles)
            return f"roles are missing that {connection.info.user} may not make: ask an administrator to run `{wanted}`"
        if not cursor.execute(QUERIES["may_hand_over"]).fetchone():
            return (
                f"{connection.info.user} may not settle who owns the schema:"
                f' ask an administrator to run `grant lookalike_owner to "{connection.info.user}";`'
            )
    with connection.transaction():
        for query in ("hand_over", "hand_over_books", "grant_rights"):
            connection.execute(QUERIES[query])
    return None
