"""The audit: proves that the books of an encoder balance, and that each vector is what it has to be.

It goes through the archive in pieces, each one statement and thereby one moment, so that neither its memory nor the age
of its snapshots grows with the archive, and whatever it finds was wrong when it was found, whatever else went on. How
far it is stands in the table `audits`: stopped at any moment, the next audit of the kind goes on there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.rows import class_row, dict_row, scalar_row

from lookalike import archive, books, ledger, repair
from lookalike.calibration import Calibration
from lookalike.errors import ServiceError
from lookalike.faults import BY_CODE, Fault
from lookalike.ledger import Connection
from lookalike.queries import load_queries
from lookalike.verification import verify

QUERIES = load_queries("audit")

# Images that are looked at in one statement: a second or less.
PIECE = 50_000
# Vectors that an audit compares with their codes, unless it is to compare them all.
SAMPLE = 100_000
# A stopped audit is gone on with for so long; then what it saw first says too little of the archive of now.
HOURS = 24
# Findings of one fault that are kept by id.
EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What kind of audit is asked for: `whole` compares every vector with its code, not a sample; `repairs` mends."""

    whole: bool = False
    repairs: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault that was found: how often, how often it was repaired, and the ids of some."""

    fault: Fault
    found: int
    repaired: int
    examples: list[int]


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit as it stands: what it counted up to the image id `position`, of those up to `last`."""

    id: int
    encoder: str
    whole: bool
    repairs: bool
    share: int
    position: int
    last: int
    registered: int
    done: int
    failed: int
    open: int
    lost: int
    vectors: int
    compared: int
    begun_at: datetime
    looked_at: datetime
    ended_at: datetime | None
    findings: list[Finding] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """Nothing is wrong, or no longer. Only of an audit that has come to its end."""
        return self.ended_at is not None and all(one.found == one.repaired for one in self.findings)


Progress = Callable[[Audit], None]


def audit(
    connection: Connection,
    encoder: str,
    wish: Wish = Wish(),
    *,
    chunk_size: int = 64,
    anew: bool = False,
    piece: int = PIECE,
    on_progress: Progress = lambda _: None,
) -> Audit:
    """Audits one encoder to its end, going on with a stopped audit of the kind unless `anew`; returns what it found.

    `piece` is in images. Raises UnknownEncoderError; ServiceError when somebody else audits the encoder.
    """
    table = books.vectors_table(connection, encoder)
    with _claim(connection, encoder):
        number = _begin(connection, encoder, table, wish, anew)
        auditor = _Auditor(connection, show(connection, number), sql.Identifier(table), chunk_size)
        now = auditor.audit
        while now.position < now.last:
            on_progress(now)
            now = auditor.look(piece)
        on_progress(now)
        with connection.transaction():
            auditor.look_around(table)
            connection.execute(QUERIES["end"], {"audit": number})
        return show(connection, number)


def show(connection: Connection, number: int) -> Audit:
    """The audit of this number as it stands."""
    with connection.cursor(row_factory=class_row(Audit)) as cursor:
        found = cursor.execute(QUERIES["show"], {"audit": number}).fetchone()
    assert found is not None, f"no audit {number}"
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(QUERIES["findings"], {"audit": number}).fetchall()
    order = list(Fault)
    findings = [Finding(BY_CODE[row.pop("fault")], **row) for row in rows]
    found.findings.extend(sorted(findings, key=lambda one: order.index(one.fault)))
    return found


@contextmanager
def _claim(connection: Connection, encoder: str) -> Iterator[None]:
    """Holds the lock of the encoder's audits for the time of the block."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(QUERIES["claim"], {"encoder": encoder}).fetchone():
            raise ServiceError(f"another process audits {encoder}: wait for it")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(QUERIES["release"], {"encoder": encoder})


def _begin(connection: Connection, encoder: str, table: str, wish: Wish, anew: bool) -> int:
    """The number of a stopped audit to go on with, or of a new one."""
    asked = {"encoder": encoder, "whole": wish.whole, "repairs": wish.repairs}
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        if not anew:
            stopped: int | None = cursor.execute(
                QUERIES["find_unfinished"], {**asked, "hours": HOURS}
            ).fetchone()
            if stopped is not None:
                return stopped
        cursor.execute(QUERIES["forget_unfinished"], asked)
        begin = sql.SQL(QUERIES["begin"]).format(vectors=sql.Identifier(table))
        number: int | None = cursor.execute(begin, {**asked, "sample": SAMPLE, "table": table}).fetchone()
    assert number is not None
    return number


class _Auditor:
    """One audit, piece by piece."""

    def __init__(
        self, connection: Connection, begun: Audit, vectors: sql.Identifier, chunk_size: int
    ) -> None:
        self._connection = connection
        self._vectors = vectors
        self._chunk_size = chunk_size
        self._calibration: Calibration = archive.load_calibration(connection, begun.encoder)
        self.audit = begun

    def look(self, images: int) -> Audit:
        """Looks at the next piece of so many images, repairs it if it is to, and keeps what it saw."""
        range_ = {"encoder": self.audit.encoder, "position": self.audit.position, "last": self.audit.last}
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            asked = {**range_, "images": images}
            range_["last"] = cursor.execute(QUERIES["end_of_piece"], asked).fetchone() or self.audit.last
        with self._connection.cursor(row_factory=dict_row) as cursor:
            counted: dict[str, Any] = cursor.execute(self._format("look"), range_).fetchone() or {}
        found = {BY_CODE[name]: ids for name, ids in counted.pop("faults").items() if ids}
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            sample = {**range_, "audit": self.audit.id, "share": self.audit.share}
            chosen: list[int] = cursor.execute(self._format("choose_vectors"), sample).fetchall()
        for fault, image in verify(self._connection, self._vectors, self._calibration, chosen):
            found.setdefault(fault, []).append(image)
        with self._connection.transaction():
            if self.audit.repairs and found:
                ledger.hold_deletions(self._connection)
                repair.repair_images(
                    self._connection, self.audit.encoder, self._vectors, found, self._chunk_size
                )
            self._connection.execute(
                QUERIES["record_piece"],
                {
                    **counted,
                    "compared": len(chosen),
                    "position": range_["last"],
                    "audit": self.audit.id,
                },
            )
            self._record(found, self.audit.repairs)
        self.audit = show(self._connection, self.audit.id)
        return self.audit

    def look_around(self, table: str) -> None:
        """What is seen in one look: the table itself, leases, deletions."""
        asked = {"encoder": self.audit.encoder, "table": table}
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            wrong = cursor.execute(QUERIES["wrong_tables"], asked).fetchone() or 0
            expired: list[int] = cursor.execute(QUERIES["expired_leases"], asked).fetchall()
        back = self._connection.execute(QUERIES["not_deleted"]).fetchall()
        if self.audit.repairs:
            if expired:
                repair.give_back_leases(self._connection)
            for _, key, as_of, by_hand in back:
                repair.delete_again(self._connection, str(key), str(as_of), bool(by_hand))
        self._record({Fault.WRONG_TABLE: [0] * wrong}, False)
        self._record(
            {Fault.EXPIRED_LEASE: expired, Fault.NOT_DELETED: [int(str(row[0])) for row in back]},
            self.audit.repairs,
        )

    def _record(self, found: Mapping[Fault, Sequence[int]], repaired: bool) -> None:
        for fault, ids in found.items():
            if ids:
                self._connection.execute(
                    QUERIES["record_finding"],
                    {
                        "audit": self.audit.id,
                        "fault": str(fault),
                        "found": len(ids),
                        "repaired": len(ids) if repaired else 0,
                        "examples": list(ids[:EXAMPLES]) if fault is not Fault.WRONG_TABLE else [],
                    },
                )

    def _format(self, query: str) -> sql.Composed:
        return sql.SQL(QUERIES[query]).format(vectors=self._vectors)
