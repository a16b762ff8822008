"""Embedded services and databases for benchmarks; Postgres waits for the disk as it would in production."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from lookalike import services
from lookalike.database import Connection, connect
from lookalike.migrate import migrate
from lookalike.settings import Settings

_numbers = itertools.count()


@contextmanager
def bench_services(home: Path) -> Iterator[Settings]:
    """Settings whose services run for the time of the block."""
    settings = Settings(_env_file=None, home=home, DATABASE_URL=None, BROKER_URL=None)
    services.up(settings)
    try:
        yield settings
    finally:
        services.down(settings)


@contextmanager
def fresh_database(settings: Settings) -> Iterator[tuple[str, Connection]]:
    """A migrated database of its own: its URL, and a connection."""
    server = services.up(settings).database_url
    name = f"bench_{next(_numbers)}"
    with connect(server, application_name="bench") as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = server.replace("/lookalike?", f"/{name}?")
        migrate(url)
        with connect(url, application_name="bench") as connection:
            yield url, connection
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
