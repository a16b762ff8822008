"""Registers what a source announces, batch by batch; each is committed with its chunks and the source's position."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from lookalike import awaited, deletion, ledger
from lookalike.errors import SourceError
from lookalike.images import AwaitedManifest, Checkpoint, Image, Notice, Refused, Removal
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator import progress
from orchestrator.progress import Begun, Intake
from orchestrator.sources import STANDARD_INPUT, read_source, source_name
from orchestrator.sources.records import without_secrets

BATCH = 2000
# A slow source (manifests over the network) still shows its images after so long.
FLUSH_SECONDS = 1.0
# So many batches are registered as one, at most, while the next checkpoint is awaited.
_LONGEST = 4

OnBatch = Callable[[Intake], None]


class StoppedError(Exception):
    """Raised by an `on_batch` to end the reading of a source: what was read so far is committed."""


def read_in(
    connection: ledger.Connection,
    spec: str,
    settings: Settings,
    intake: Intake,
    on_batch: OnBatch = lambda _: None,
    *,
    anew: bool = False,
) -> None:
    """Reads a source to its end, registers what it announces and counts it in `intake`.

    A source that was stopped midway is gone on with, `anew` from its beginning in any case. What a stream brings after
    it was read to its end goes ahead of backfills. Raises SourceError when the source cannot be read, or breaks off:
    what came before is registered.
    """
    name = source_name(spec)
    if spec == STANDARD_INPUT:
        take_in(connection, name, read_source(spec, settings), settings.chunk_size, intake, on_batch)
        return
    with progress.holding(connection, name):
        begun = progress.begin(connection, name, anew)
        batches = _Batches(connection, name, settings.chunk_size, intake, on_batch, begun)
        try:
            batches.take(read_source(spec, settings, begun.position))
        except StoppedError:
            raise
        except Exception as error:
            if not connection.closed:
                progress.fail(connection, name, error)
            raise
        progress.end(connection, name, batches.lasting)


def take_in(
    connection: ledger.Connection,
    source: str,
    notices: Iterable[Notice],
    chunk_size: int,
    intake: Intake,
    on_batch: OnBatch = lambda _: None,
) -> None:
    """Registers announcements and counts them in `intake`. Stopped at any point, it can be repeated.

    `source` is what the images are filed under, where they are new. Positions are not kept; see `read_in`.
    """
    _Batches(connection, source, chunk_size, intake, on_batch).take(notices)


class _Batches:
    """The announcements of a source on their way into the ledger; with `begun`, also its row in `sources`."""

    def __init__(
        self,
        connection: ledger.Connection,
        source: str,
        chunk_size: int,
        intake: Intake,
        on_batch: OnBatch,
        begun: Begun | None = None,
    ) -> None:
        self._connection = connection
        self._source = source
        self._chunk_size = chunk_size
        self._size = -(-BATCH // chunk_size) * chunk_size
        self._intake = intake
        self._on_batch = on_batch
        self._begun = begun
        self._position = begun.position if begun else None
        # What a stream brings once it is followed has just happened.
        self._lane: ledger.Lane = "events" if begun and begun.is_followed else "backfill"
        self._counted = Intake()  # since the last flush
        self._batch: list[Image] = []
        self._awaited: list[AwaitedManifest] = []
        self._since = time.monotonic()
        self._has_checkpoints = False
        self.lasting = False

    def take(self, notices: Iterable[Notice]) -> None:
        """Registers all there is. When the source breaks off, what it has yielded is registered first."""
        try:
            for notice in notices:
                self._take(notice)
        except SourceError:
            self._flush()
            raise
        self._flush()

    def _take(self, notice: Notice) -> None:
        if isinstance(notice, Image):
            self._batch.append(notice)
        elif isinstance(notice, Refused):
            self._counted.refuse(notice)
        elif isinstance(notice, Removal):
            self._flush()
            self._remove(notice)
        elif isinstance(notice, AwaitedManifest):
            self._awaited.append(replace(notice, source=self._source))
            self._counted.awaited += 1
        else:
            self._has_checkpoints = True
            self._position, self.lasting = notice.position, notice.lasting
        # Where there are checkpoints a batch ends at one: nothing that was committed is read again.
        if isinstance(notice, Checkpoint) or not self._has_checkpoints:
            due = len(self._batch) >= self._size or time.monotonic() - self._since > FLUSH_SECONDS
        else:
            due = len(self._batch) >= _LONGEST * self._size
        if due:
            self._flush()

    def _remove(self, removal: Removal) -> None:
        self._counted.deleted += deletion.remove(self._connection, removal, self._source)
        if removal.work:
            awaited.forget(self._connection, removal.work, self._source, removal.as_of)
        if removal.work and (kept := deletion.count_foreign(self._connection, removal, self._source)):
            detail = f"{kept} images stay: neither this source nor its host has announced them"
            self._counted.refuse(Refused(without_secrets(removal.work), Reason.FOREIGN_DELETION, detail))

    def _flush(self) -> None:
        with self._connection.transaction():
            awaited.await_manifests(self._connection, self._awaited)
            registered = ledger.register(
                self._connection, self._batch, self._lane, self._chunk_size, self._source
            )
            self._counted.registered += registered
            if self._begun is not None:
                progress.record(
                    self._connection, self._source, self._begun.intake + self._counted, self._position
                )
        if self._begun is not None:
            self._begun.intake.add(self._counted)
        self._intake.add(self._counted)
        self._counted = Intake()
        self._batch.clear()
        self._awaited.clear()
        self._on_batch(self._intake)
        self._since = time.monotonic()
