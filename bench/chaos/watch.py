"""Looks at the ledger while servers come and go, and reads from it at the end what became of every image."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from bench.chaos.plan import DONE, Fate
from lookalike.database import Connection, connect
from lookalike.errors import ServiceError

Answer = TypeVar("Answer")
POLL_SECONDS = 0.1
# `now()` of Postgres is the beginning of the transaction that stores, a moment after the images were encoded.
CLOCKS_APART = 0.0

# Every vector that is stored is written down in the transaction that stores it.
WRITES = """
    create table if not exists public.writes (image_id bigint, revision integer, at timestamptz default now());
    create or replace function public.note_write() returns trigger language plpgsql as $$ begin
        insert into public.writes (image_id, revision) values (new.image_id, new.revision);
        return null;
    end $$;
    create or replace trigger note_write after insert or update on {vectors}
    for each row execute function public.note_write();
"""
SETTLED = """
    select (select count(*) from {vectors}) + (select count(*) from failures)
"""
FINISHED = "select count(*) from chunks where state in ('done', 'split', 'dead')"
OPEN = "select count(*) from unfinished_chunks"
UNDER_WAY = "select coalesce(array_agg(id), '{}') from chunks where state = 'running'"
# A chunk that was split is settled when its halves are.
UNSETTLED = """
    with recursive held as (
        select id, state from chunks where id = any(%s)
        union all
        select c.id, c.state from chunks c join held h on c.parent = h.id and h.state = 'split'
    )
    select count(*) from held where state not in ('done', 'split', 'dead')
"""
OUTCOMES = """
    select i.key, coalesce(f.reason, case when v.image_id is not null then 'done' else 'open' end)
    from images i
    left join {vectors} v on v.image_id = i.id and v.revision = i.revision
    left join failures f on f.image_id = i.id and v.image_id is null
"""
CRASHES = "select coalesce(sum(crashes), 0), count(*) filter (where lane = 'suspect') from chunks"


class Watcher:
    """Asks the ledger; a database that is away is waited for."""

    def __init__(self, database_url: str, encoder: str) -> None:
        self._database_url = database_url
        self._encoder = encoder
        self._connection: Connection | None = None

    def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """What `question` says of a connection, as soon as there is one."""
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = connect(self._database_url, application_name="bench")
                return question(self._connection)
            except (ServiceError, psycopg.OperationalError):
                self.close()
                time.sleep(POLL_SECONDS)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def prepare(self) -> None:
        """Has every stored vector written down."""
        self.ask(lambda connection: connection.execute(self._on_vectors(connection, WRITES)))

    def settled(self) -> int:
        """Images that are done or failed."""
        return int(self._value(SETTLED))

    def finished(self) -> int:
        """Chunks that are over."""
        return int(self._value(FINISHED))

    def open(self) -> int:
        """Chunks that are not over."""
        return int(self._value(OPEN))

    def under_way(self) -> list[int]:
        """Chunks that a worker holds now."""
        found: list[int] = self._value(UNDER_WAY)
        return found

    def unsettled(self, chunks: Sequence[int]) -> int:
        """How many of these chunks are still to be done."""
        return int(self._value(UNSETTLED, [list(chunks)]))

    def crashes(self) -> tuple[int, int]:
        """Crashes that were counted, and chunks that came into the lane of suspects."""
        row = self.ask(lambda connection: connection.execute(CRASHES).fetchone())
        assert row is not None
        return int(row[0]), int(row[1])

    def outcomes(self) -> dict[str, str]:
        """What became of each image: done, open, or the reason of its failure."""
        return dict(
            self.ask(lambda connection: connection.execute(self._on_vectors(connection, OUTCOMES)).fetchall())
        )

    def writes(self) -> dict[int, list[float]]:
        """When a vector of each image was stored, in seconds since 1970."""
        rows = self.ask(
            lambda connection: connection.execute(
                "select image_id, extract(epoch from at)::float8 from public.writes"
            ).fetchall()
        )
        stored = defaultdict(list)
        for image, at in rows:
            stored[image].append(at)
        return stored

    def _value(self, query: str, parameters: Sequence[object] = ()) -> Any:
        row = self.ask(
            lambda connection: connection.execute(self._on_vectors(connection, query), parameters).fetchone()
        )
        assert row is not None
        return row[0]

    def _on_vectors(self, connection: Connection, query: str) -> sql.Composable:
        if "{vectors}" not in query:
            return sql.SQL(query)
        row = connection.execute("select vectors from encoders where name = %s", [self._encoder]).fetchone()
        assert row is not None
        return sql.SQL(query).format(vectors=sql.Identifier(row[0]))


@dataclass(frozen=True)
class Verdict:
    """What became of the images of a run, beside what was to become of them."""

    images: int
    done: int
    failed: int
    unfinished: list[str]
    lost: list[str]
    twice: list[int]
    otherwise: dict[str, tuple[str, str]]


def judge(
    fates: Sequence[Fate], outcomes: dict[str, str], writes: dict[int, list[float]], complete: bool
) -> Verdict:
    """Compares. Images without an outcome are `lost` when the work is `complete`, else `unfinished`; `twice` are those
    of which more than one vector was stored; `otherwise` says (expected, found) of those that ended in another way.
    """
    found = {fate.key: outcomes.get(fate.key, "unknown") for fate in fates}
    settled = [outcome for outcome in found.values() if outcome not in ("open", "unknown")]
    done = settled.count(DONE)
    without = [key for key, outcome in found.items() if outcome in ("open", "unknown")]
    return Verdict(
        images=len(fates),
        done=done,
        failed=len(settled) - done,
        unfinished=[] if complete else without,
        lost=without if complete else [],
        twice=[image for image, times in writes.items() if len(times) > 1],
        otherwise={
            fate.key: (fate.outcome, found[fate.key])
            for fate in fates
            if found[fate.key] not in (fate.outcome, "open")
        },
    )


def wasted_times(record: Path, writes: dict[int, list[float]]) -> list[float]:
    """When images were encoded in vain: each encoding but the last one before the vector was stored."""
    encoded: dict[int, list[float]] = defaultdict(list)
    for line in record.read_text().splitlines():
        at, *images = line.split()
        for image in images:
            encoded[int(image)].append(float(at))
    wasted = []
    for image, times in encoded.items():
        stored = max(writes.get(image, [0.0]))
        used = max((at for at in times if at <= stored + CLOCKS_APART), default=None)
        wasted += [at for at in times if at != used]
    return wasted
