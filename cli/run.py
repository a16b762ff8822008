"""`lookalike run`: one machine does the whole job, with a live progress bar, and can be stopped at any moment."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psycopg
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from tenacity import Retrying, before_sleep_log, retry_if_exception_type, wait_random_exponential

from cli.hosts import describe_pauses, find_hosts
from cli.output import errors
from cli.session import Session, ensure_encoder
from lookalike import books
from lookalike.awaited import count_awaited
from lookalike.books import Books
from lookalike.database import Connection, describe
from lookalike.errors import ServiceError
from lookalike.queue import Broker, make_app
from orchestrator import dispatch
from orchestrator.intake import read_in
from orchestrator.progress import Intake
from orchestrator.reading import reading
from orchestrator.upkeep import keeping_up

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

POLL_SECONDS = 0.25
# When nothing has been done for so long, it is said which hosts are waited for, and looked at again as often.
STANDSTILL_SECONDS = 2.0
# A worker that dies so often in a row cannot start at all: say so instead of trying for ever.
DEATHS = 5


class WorkerProcess:
    """A worker in a process of its own, started again when it dies. It leaves by itself when we do."""

    def __init__(self, log_file: Path, encoder: str, thumbnails: str) -> None:
        self._log_file = log_file
        self._environment = {"LOOKALIKE_ENCODER": encoder, "LOOKALIKE_THUMBNAILS": thumbnails}
        self._deaths = 0
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # Its own session: Ctrl-C reaches us alone. Its standard input is the leash: it ends when we end. Its modules
        # never come from the working directory, which may hold a folder `cli` or a file `queue.py` of somebody else's.
        with self._log_file.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "cli.main", "worker", "--leash"],
                env={**os.environ, "PYTHONSAFEPATH": "1", **self._environment},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def watch(self) -> None:
        """Starts the worker again if it has died. Raises ServiceError when it dies again and again."""
        if self._process.poll() is None:
            return
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise ServiceError(f"the worker died {DEATHS} times; it last said: {self._last_words()}")
        log.warning("the worker ended with code %d: starting another", self._process.returncode)
        self._process = self._start()

    def alive(self) -> None:
        """Forgets earlier deaths: the worker has got something done."""
        self._deaths = 0

    def _last_words(self) -> str:
        lines = self._log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"nothing, see {self._log_file}"

    def stop(self, patience: float) -> None:
        """Asks the worker to finish or give back what it holds; kills it when it takes longer than `patience` s."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Asker:
    """Asks the database the same again and again; waits for one that is away."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._connection: Connection | None = None

    def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """Returns what `question` says of a connection."""
        for attempt in Retrying(
            retry=retry_if_exception_type((ServiceError, psycopg.OperationalError)),
            wait=wait_random_exponential(0.5, max=10),
            before_sleep=before_sleep_log(log, logging.WARNING),
        ):
            with attempt:
                if self._connection is None or self._connection.closed:
                    self._connection = self._session.connect()
                return question(self._connection)
        raise AssertionError("tenacity returns or raises")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class Standstill:
    """Says why nothing moves: a run that waits for a paused host must not look as if it hung."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url
        self._ask_at = time.monotonic() + STANDSTILL_SECONDS
        self._said = ""

    def explain(self, has_moved: bool) -> str:
        """A few words about paused hosts, while nothing moves."""
        now = time.monotonic()
        if has_moved:
            self._said = ""
        elif now < self._ask_at:
            return self._said
        else:
            self._said = describe_pauses(find_hosts(self._broker_url))
        self._ask_at = now + STANDSTILL_SECONDS
        return self._said


class SpeedColumn(ProgressColumn):
    """Images per second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "", style="progress.data.speed")


def run(session: Session, sources: Sequence[str], quiet: bool = False) -> tuple[Books, Intake]:
    """Registers the sources (none: goes on with what is open) and embeds until nothing is left to do.

    Manifests whose hosts fail for the moment are waited for until they were read or given up, unless a source broke
    off. KeyboardInterrupt stops it in order: the worker finishes or gives back what it holds, and a second run resumes.
    Returns the books of the settings' encoder and what was registered.
    """
    encoder = session.settings.encoder
    intake = Intake()
    failed: list[Exception] = []
    with session.connect() as connection:
        ensure_encoder(session, connection)
        before = books.count_images(connection)
    with (
        dispatching(session) as broken,
        reading(session.settings, session.connect, []),
        working(session, encoder) as worker,
        closing(Asker(session)) as asker,
        progress_bar(quiet) as progress,
    ):
        task = progress.add_task(encoder, total=None)
        reader = threading.Thread(target=_read_sources, args=(session, sources, intake, failed), daemon=True)
        reader.start()
        standstill = Standstill(session.endpoints.broker_url)
        left = awaited = 0
        is_reading = True
        # Where a source broke off, that is said before a manifest of its host comes, or fails after a day.
        while is_reading or left or (awaited and not failed):
            worker.watch()
            if broken:
                raise broken[0]
            # In this order: what is registered last is counted.
            is_reading = reader.is_alive()
            since = time.monotonic()
            awaited = asker.ask(count_awaited)["awaited"]
            left, previous = asker.ask(lambda connection: books.count_left(connection, encoder)), left
            if left < previous:
                worker.alive()
            total = before + intake.registered.new
            waits = standstill.explain(left != previous)
            if awaited and not is_reading and not waits:
                waits = f"{awaited:,} manifests awaited"
            progress.update(
                task,
                total=total,
                completed=max(0, total - left),
                description=f"{encoder} {escape(waits)}" if waits else encoder,
            )
            # In a large archive counting takes a while: it must not be all that the database does.
            time.sleep(max(POLL_SECONDS, 4 * (time.monotonic() - since)))
    if failed:
        raise failed[0]
    with session.connect() as connection:
        return books.count_books(connection, encoder), intake


def _read_sources(session: Session, sources: Sequence[str], intake: Intake, failed: list[Exception]) -> None:
    """Registers the sources in a thread of its own, so that the first images are embedded while the last are read."""
    try:
        with session.connect() as connection:
            for source in sources:
                read_in(connection, source, session.settings, intake)
    except psycopg.OperationalError as error:
        said = describe(error, session.endpoints.database_url)
        failed.append(ServiceError(f"the sources were not read to their end, run it again: {said}"))
    except Exception as error:  # handed to the main thread, which raises it
        failed.append(error)


@contextmanager
def dispatching(session: Session) -> Iterator[list[Exception]]:
    """An orchestrator in a thread, for the time of the block; yields where it puts the error that ended it."""
    broken: list[Exception] = []
    stop = threading.Event()
    app = make_app(session.endpoints.broker_url, session.settings.encoder)
    broker = Broker(session.endpoints.broker_url)

    def orchestrate() -> None:
        try:
            dispatch.run(session.settings, session.connect, app, broker, stop)
        except Exception as error:  # handed to the main thread, which raises it
            broken.append(error)

    thread = threading.Thread(target=orchestrate, name="orchestrator", daemon=True)
    thread.start()
    try:
        with keeping_up(session.settings, session.connect):
            yield broken
    finally:
        stop.set()
        thread.join(10)
        broker.close()


@contextmanager
def working(session: Session, encoder: str) -> Iterator[WorkerProcess]:
    """A worker process, for the time of the block; a second Ctrl-C does not wait for it."""
    session.settings.home.mkdir(parents=True, exist_ok=True)
    # On a machine of its own, the explorer shows pictures of this machine's disks at once.
    thumbnails = session.settings.thumbnails or ("local" if session.settings.database_url is None else "off")
    worker = WorkerProcess(session.settings.home / "worker.log", encoder, thumbnails)
    try:
        yield worker
    except KeyboardInterrupt:
        errors.print("stopping: the worker finishes what it holds (Ctrl-C again to leave at once)")
        try:
            worker.stop(session.settings.stop_seconds + 10)
        except KeyboardInterrupt:
            worker.stop(0)
        raise
    finally:
        worker.stop(session.settings.stop_seconds + 10)


def progress_bar(quiet: bool) -> Progress:
    """The bar of long work on images, on standard error."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=quiet,
    )


def leave_with_parent() -> None:
    """Ends this process in order when its standard input closes, that is when its parent is gone."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="leash", daemon=True).start()
