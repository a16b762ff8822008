"""Indexes on large tables, built beside programs that write: those that `migrations/concurrently/indexes.sql` names.

What it says has to be there; what is missing, or was left broken by an interruption, is built, and what another one
has replaced is dropped. It must never run inside a transaction, nor hold a lock that stops writers.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql
from psycopg.rows import class_row, scalar_row

from lookalike.database import Connection
from lookalike.queries import load_queries

QUERIES = load_queries("concurrently")
FILE = "concurrently/indexes.sql"
# The forms that a statement of the file may have: those that can be interrupted and repeated.
FORM = re.compile(
    r"create (?:unique )?index concurrently if not exists (?P<built>\w+)\s+on lookalike\.\w+\s.*"
    r"|drop index concurrently if exists lookalike\.(?P<dropped>\w+)",
    re.DOTALL,
)
# How often we look whether a build is over that somebody else has begun, and whom ours waits for.
PAUSE = 0.5
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WantedIndex:
    """An index that has to be there, or to be gone, and the statement that sees to it."""

    name: str
    statement: str
    kept: bool


def wanted_indexes(folder: Path) -> list[WantedIndex]:
    """What the file of a folder of migrations names, in its order; nothing without a file. ValueError says what is not
    of the form that can be interrupted."""
    file = folder / FILE
    if not file.exists():
        return []
    text = re.sub(r"^--.*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    wanted = []
    for statement in filter(None, map(str.strip, text.split(";"))):
        if not (found := FORM.fullmatch(statement)):
            raise ValueError(
                f"{FILE}: not `create index concurrently if not exists NAME on lookalike.…`: {statement}"
            )
        name = found["built"] or found["dropped"]
        wanted.append(WantedIndex(name, statement, kept=found["built"] is not None))
    return wanted


def missing_indexes(connection: Connection, folder: Path) -> list[str]:
    """The names of those that are not there in full, one that is being built with them."""
    return [one.name for one in wanted_indexes(folder) if one.kept and _state(connection, one) != "valid"]


def build_indexes(connection: Connection, folder: Path, on_build: Tell) -> list[str]:
    """Builds what is missing, and returns the names; `on_build` hears of each before it begins.

    Takes an autocommit connection. Interrupted at any moment, the next call goes on with what is left.
    """
    if not (wanted := wanted_indexes(folder)):
        return []
    built = [one.name for one in wanted if _settle(connection, one, on_build)]
    with connection.cursor(row_factory=scalar_row) as cursor:
        tables: list[str] = cursor.execute(QUERIES["unknown_statistics"]).fetchall()
    for table in tables:
        name = sql.Identifier("lookalike", table.removeprefix("lookalike."))
        connection.execute(sql.SQL(QUERIES["analyze"]).format(table=name))
    return built


@contextmanager
def telling_who_holds_up(watcher: Connection, on_wait: Tell) -> Iterator[None]:
    """For the time of the block, `on_wait` hears of each transaction that the builds of this database wait for.

    They wait without end for one that was open before, which may be a forgotten session. It holds up nobody else.
    """
    over, told = threading.Event(), set[int]()

    def watch() -> None:
        while not over.wait(PAUSE):
            try:
                with watcher.cursor(row_factory=class_row(_Holder)) as cursor:
                    holders = cursor.execute(QUERIES["holding_up"]).fetchall()
            except psycopg.Error:
                return  # whoever builds will say it
            for holder in holders:
                if holder.pid not in told:
                    told.add(holder.pid)
                    on_wait(str(holder))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, slots=True)
class _Holder:
    pid: int
    login: str | None
    program: str | None
    since: datetime | None

    def __str__(self) -> str:
        since = f", since {self.since:%Y-%m-%d %H:%M}" if self.since else ""
        return (
            f"it waits for a transaction of process {self.pid} ({self.login}, {self.program or 'unknown'}{since});"
            f" if that is forgotten: select pg_terminate_backend({self.pid});"
        )


def _settle(connection: Connection, one: WantedIndex, on_build: Tell) -> bool:
    # Whoever began to build it was killed, and the server has not noticed: it ends well, or leaves a broken one.
    while (state := _state(connection, one)) == "building":
        time.sleep(PAUSE)
    if not one.kept:
        if state != "missing":
            connection.execute(one.statement.encode())
        return False
    if state == "valid":
        return False
    on_build(one.name)
    if state == "broken":
        name = sql.Identifier("lookalike", one.name)
        connection.execute(sql.SQL(QUERIES["drop_broken"]).format(index=name))
    connection.execute(one.statement.encode())
    return True


@dataclass(frozen=True, slots=True)
class _Found:
    valid: bool
    building: bool


def _state(connection: Connection, one: WantedIndex) -> Literal["missing", "building", "broken", "valid"]:
    with connection.cursor(row_factory=class_row(_Found)) as cursor:
        found = cursor.execute(QUERIES["state"], {"index": one.name}).fetchone()
    if found is None:
        return "missing"
    if found.valid:
        return "valid"
    return "building" if found.building else "broken"
