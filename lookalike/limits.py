"""What limits each worker, in words: the stage whose threads have no time left, or the lack of work."""

from dataclasses import asdict, dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from lookalike.queries import load_queries

QUERIES = load_queries("limits")

# A stage whose threads work for so much of the time is what the others wait for.
SATURATED = 0.8
SENTENCES = {
    "encode": "the network: a faster device, or more workers, would help",
    "store": "storing: look at the database",
    "decode": "decoding: more cores, or smaller pictures from a IIIF service, would help",
    "fetch": "fetching: the hosts are slow; more LOOKALIKE_FETCH_THREADS would help if they allow it",
}


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker as of its last heartbeats: shares of time 0..1 that the threads of each stage were busy."""

    name: str
    encoder: str
    device: str
    batch_size: int
    started_at: datetime
    seen_at: datetime
    images: int
    seconds: float
    fetch_busy: float
    decode_busy: float
    encode_busy: float
    store_busy: float
    batch_fill: float
    refused: int
    alive: bool
    thumbnails_missed: int = 0
    listening: bool = True

    @property
    def images_per_second(self) -> float:
        """Speed over the time that the shares are about."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def limit(self) -> str:
        """What this worker waits for, as a sentence."""
        if not self.alive:
            return "unknown: its heartbeats have stopped"
        if not self.listening:
            return "the broker: it has no connection, and takes no chunk; its log says why"
        if self.images == 0:
            return "work: none has come since its last heartbeat"
        # From the last stage back to the first: a full stage holds up all those before it.
        for stage in ("encode", "store", "decode", "fetch"):
            if getattr(self, f"{stage}_busy") >= SATURATED:
                return SENTENCES[stage]
        return "work: chunks come too slowly, look at LOOKALIKE_WINDOW and at the orchestrator"


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker says of itself with a heartbeat; the fields are those of WorkerState, `period` in seconds."""

    name: str
    encoder: str
    device: str
    batch_size: int
    started_at: datetime
    period: float
    images: int
    seconds: float
    fetch_busy: float
    decode_busy: float
    encode_busy: float
    store_busy: float
    batch_fill: float
    refused: int
    thumbnails_missed: int = 0
    listening: bool = True


def record_beat(connection: psycopg.Connection[tuple[object, ...]], beat: Beat) -> None:
    """Replaces what the worker said before."""
    connection.execute(QUERIES["beat"], asdict(beat))


def forget_worker(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    """A worker that has left in order is no longer heard of, and none that has fallen silent."""
    connection.execute(QUERIES["forget"], {"name": name})


def list_workers(connection: psycopg.Connection[tuple[object, ...]], encoder: str) -> list[WorkerState]:
    """The workers of an encoder that were heard of within the last hour."""
    with connection.cursor(row_factory=class_row(WorkerState)) as cursor:
        return cursor.execute(QUERIES["workers"], {"encoder": encoder}).fetchall()
