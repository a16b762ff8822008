"""Registers what a source announces, batch by batch; each batch is committed with the chunks that cover it."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lookalike import ledger
from lookalike.images import Announcement, Image, Refused

BATCH = 2000
# A slow source (manifests over the network) still shows its images after so long.
FLUSH_SECONDS = 1.0
EXAMPLES = 10


@dataclass
class Intake:
    """What became of a source's announcements so far."""

    registered: ledger.Registered = field(default_factory=ledger.Registered)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[Refused] = field(default_factory=list)

    def refuse(self, refusal: Refused) -> None:
        """Counts a refusal and keeps the first few to show."""
        self.refused[str(refusal.reason)] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(refusal)


def take_in(
    connection: ledger.Connection,
    source: str,
    announcements: Iterable[Announcement],
    chunk_size: int,
    intake: Intake,
    on_batch: Callable[[Intake], None] = lambda _: None,
) -> None:
    """Registers all announcements of a source and counts them in `intake`. Stopped at any point, it can be repeated.

    `source` is what the images are filed under, where they are new.
    """
    size = -(-BATCH // chunk_size) * chunk_size
    batch: list[Image] = []
    since = time.monotonic()
    for announcement in announcements:
        if isinstance(announcement, Refused):
            intake.refuse(announcement)
        else:
            batch.append(announcement)
        if len(batch) >= size or time.monotonic() - since > FLUSH_SECONDS:
            _flush(connection, source, batch, chunk_size, intake)
            on_batch(intake)
            since = time.monotonic()
    _flush(connection, source, batch, chunk_size, intake)
    on_batch(intake)


def _flush(
    connection: ledger.Connection, source: str, batch: list[Image], chunk_size: int, intake: Intake
) -> None:
    intake.registered += ledger.register(connection, batch, "backfill", chunk_size, source)
    batch.clear()
