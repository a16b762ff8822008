"""Takes messages from a queue into the ledger. A message is deleted only after what it says has been committed.

It may be killed at any point: what was committed and not deleted comes again and changes nothing. It must never let one
message hold up others.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import psycopg
from botocore.exceptions import BotoCoreError

from lookalike import awaited, books, deletion, ledger
from lookalike.errors import ServiceError, UnknownEventError
from lookalike.ledger import Connection
from lookalike.settings import Settings
from orchestrator import progress
from orchestrator.events.batch import combine
from orchestrator.events.messages import Interpreter, Statement
from orchestrator.events.queue import Queue, Received
from orchestrator.progress import Intake

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
KNOWN_MESSAGES = 10_000
# What a database or queue that is away raises; InternalError: after a failover, a server that is read-only still.
AWAY = (ServiceError, psycopg.OperationalError, psycopg.InternalError, BotoCoreError, OSError)


def consume(
    settings: Settings, connect: Callable[[], Connection], address: str, stop: threading.Event
) -> None:
    """Takes in the messages of a queue until `stop` is set, which it sees within about a second.

    Waits out a database or queue that is away, with growing pauses. Raises SourceError when the address
    names no queue.
    """
    queue, pause = Queue(address, settings), FIRST_PAUSE
    consumer = Consumer(settings, queue, Interpreter(settings))
    while not stop.is_set():
        try:
            with connect() as connection:
                # Its counts stand at 0 before its first message: whoever watches them sees the first refusal.
                progress.add(connection, queue.name, Intake())
                while not stop.is_set():
                    consumer.step(connection)
                    pause = FIRST_PAUSE
        except AWAY as error:
            log.warning("%s; trying again in %.1f s", " ".join(str(error).split()), pause)
        except Exception:
            # Nobody would notice that this thread has ended.
            log.exception("%s; trying again in %.1f s", queue.name, pause)
        stop.wait(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
    queue.close()


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A message that was understood."""

    received: Received
    statements: Sequence[Statement]


@dataclass
class Consumer:
    """One receive after another; see `consume`."""

    settings: Settings
    queue: Queue
    interpreter: Interpreter
    _left: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def step(self, connection: Connection) -> int:
        """Receives once and takes in what came. Returns how many messages were understood."""
        # A message that is received while the database is away counts as tried, and may end among the dead letters.
        connection.execute("select 1")
        arrived = []
        for each in self.queue.receive():
            try:
                arrived.append(_Arrived(each, self.interpreter.interpret(each.message)))
            except UnknownEventError as error:
                self._leave(connection, each, error)
        return self._take_in(connection, arrived)

    def _take_in(self, connection: Connection, arrived: Sequence[_Arrived]) -> int:
        if not arrived:
            return 0
        try:
            with connection.transaction():
                intake = register(connection, self.queue.name, arrived_statements(arrived), self.settings)
                intake.irrelevant = sum(1 for each in arrived if not each.statements)
                progress.add(connection, self.queue.name, intake)
        except psycopg.Error as error:
            if isinstance(error, AWAY):
                raise
            if len(arrived) > 1:
                # One of them holds what Postgres does not take; the others are none the worse for it.
                return sum(self._take_in(connection, [each]) for each in arrived)
            fault = UnknownEventError(f"Postgres does not take what it says ({type(error).__name__})")
            self._leave(connection, arrived[0].received, fault)
            return 0
        self.queue.delete([each.received for each in arrived])
        return len(arrived)

    def _leave(self, connection: Connection, received: Received, error: UnknownEventError) -> None:
        """Leaves a message to the queue, which moves it to its dead letters; says and counts so once."""
        if received.id in self._left:
            return
        self._left[received.id] = None
        if len(self._left) > KNOWN_MESSAGES:
            self._left.popitem(last=False)
        log.warning("%s: message %s is left undeleted: %s", self.queue.name, received.id, error)
        intake = Intake()
        intake.refused[str(error.reason)] += 1
        progress.add(connection, self.queue.name, intake)


def arrived_statements(arrived: Sequence[_Arrived]) -> list[Statement]:
    """All that the messages say."""
    return [statement for each in arrived for statement in each.statements]


def register(
    connection: Connection, source: str, statements: Sequence[Statement], settings: Settings
) -> Intake:
    """Does what statements say, in the caller's transaction. Images go ahead of every backfill."""
    batch, intake = combine(statements), Intake()
    intake.refused.update(str(each.reason) for each in batch.refused)
    # In this order, so that nobody waits in a circle: whoever has read an awaited manifest locks its row, then deletes.
    awaited.await_manifests(connection, batch.awaited)
    # A deletion waits for whoever registers, and that must not be ourselves and somebody else like us.
    for removal in batch.removals:
        intake.deleted += deletion.remove(connection, removal)
    images = [replace(image, source=source) for image in batch.images]
    intake.registered = ledger.register(connection, images, "events", settings.chunk_size)
    if batch.restored:
        for encoder in books.encoder_names(connection):
            books.retry(connection, encoder, settings.chunk_size, keys=batch.restored)
    return intake
