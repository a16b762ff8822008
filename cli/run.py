"""`lookalike run`: one machine does the whole job, with a live progress bar, and can be stopped at any moment."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

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

from cli.output import errors
from cli.session import Session, ensure_encoder
from lookalike import books
from lookalike.books import Books
from lookalike.errors import ServiceError
from lookalike.queue import Broker, make_app
from orchestrator import dispatch
from orchestrator.intake import Intake, take_in
from orchestrator.sources import open_source

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
# A worker that dies so often in a row cannot start at all: say so instead of trying for ever.
DEATHS = 5


class WorkerProcess:
    """A worker in a process of its own, started again when it dies. It leaves by itself when we do."""

    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file
        self._deaths = 0
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # Its own session: Ctrl-C reaches us alone. Its standard input is the leash: it ends when we end.
        with self._log_file.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "cli.main", "worker", "--leash"],
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


class SpeedColumn(ProgressColumn):
    """Images per second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "", style="progress.data.speed")


def run(session: Session, sources: Sequence[str], quiet: bool = False) -> tuple[Books, Intake]:
    """Registers the sources (none: goes on with what is open) and embeds until nothing is left to do.

    KeyboardInterrupt stops it in order: the worker finishes or gives back what it holds, and a second run resumes.
    Returns the books of the settings' encoder and what was registered.
    """
    encoder = session.settings.encoder
    intake = Intake()
    failed: list[Exception] = []
    with session.connect() as connection:
        ensure_encoder(session, connection)
        with dispatching(session), working(session) as worker, _progress(quiet) as progress:
            task = progress.add_task(encoder, total=None)
            before = books.count_images(connection)
            reading = threading.Thread(
                target=_read_sources, args=(session, sources, intake, failed), daemon=True
            )
            reading.start()
            left = 0
            while reading.is_alive() or left or not books.is_finished(connection, encoder):
                worker.watch()
                left, previous = books.count_left(connection, encoder), left
                if left < previous:
                    worker.alive()
                total = before + intake.registered.new
                progress.update(task, total=total, completed=max(0, total - left))
                time.sleep(POLL_SECONDS)
        if failed:
            raise failed[0]
        return books.count_books(connection, encoder), intake


def _read_sources(session: Session, sources: Sequence[str], intake: Intake, failed: list[Exception]) -> None:
    """Registers the sources in a thread of its own, so that the first images are embedded while the last are read."""
    try:
        with session.connect() as connection:
            for source in sources:
                take_in(
                    connection, open_source(source, session.settings), session.settings.chunk_size, intake
                )
    except Exception as error:  # handed to the main thread, which raises it
        failed.append(error)


@contextmanager
def dispatching(session: Session) -> Iterator[None]:
    """An orchestrator in a thread, for the time of the block."""
    stop = threading.Event()
    app = make_app(session.endpoints.broker_url, session.settings.encoder)
    broker = Broker(session.endpoints.broker_url)
    thread = threading.Thread(
        target=dispatch.run, args=(session.settings, session.connect, app, broker, stop), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        broker.close()


@contextmanager
def working(session: Session) -> Iterator[WorkerProcess]:
    """A worker process, for the time of the block; a second Ctrl-C does not wait for it."""
    session.settings.home.mkdir(parents=True, exist_ok=True)
    worker = WorkerProcess(session.settings.home / "worker.log")
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


def _progress(quiet: bool) -> Progress:
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
