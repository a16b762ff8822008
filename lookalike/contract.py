"""The contract: what programs and database must agree on, as one number that stands in both and in every message.

It covers the tables and functions that programs use, the states of chunks, the form of vectors and codes, and the
message. A change that older programs can live with, such as a new column, keeps it; one that they cannot live with
raises CONTRACT here and the row of the table `contract` in the migration that makes the change.
"""

import psycopg

from lookalike import __version__
from lookalike.errors import ContractError
from lookalike.queries import load_queries

CONTRACT = 2

QUERIES = load_queries("contract")


def check_contract(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Raises ContractError, which says which side to upgrade, unless the database keeps our contract."""
    try:
        row = connection.execute(QUERIES["contract"]).fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    kept = int(str(row[0])) if row else 0
    if kept == CONTRACT:
        return
    ours = f"this lookalike ({__version__}) keeps contract {CONTRACT}"
    if kept > CONTRACT:
        raise ContractError(
            f"the database was migrated for a later lookalike: it keeps contract {kept}, {ours}:"
            " upgrade lookalike on this machine"
        )
    raise ContractError(
        f"the database is older than this program: it keeps contract {kept or 'none'}, {ours}: run `lookalike migrate`"
    )
