"""Learns sets of unwanted images from examples, in a thread, one at a time: it takes a while, and tells."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from explorer.archive import Archive
from explorer.problems import describe
from lookalike import unwanted


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the learning is, in a sentence; `busy`: it goes on."""

    sentence: str
    busy: bool


class Learning:
    """What this process learns."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lock = threading.Lock()
        self._progress: Progress | None = None

    @property
    def progress(self) -> Progress | None:
        """How far it is, or what came of it; None when nothing was learned yet."""
        return self._progress

    def begin(self, name: str, examples: Sequence[str], by: str) -> bool:
        """Begins to learn a set; False while another one is being learned."""
        with self._lock:
            if self._progress is not None and self._progress.busy:
                return False
            self._progress = Progress(f"Learning {name} from {len(examples)} examples…", True)
        threading.Thread(
            target=self._learn, args=(name, list(examples), by), name="learning", daemon=True
        ).start()
        return True

    def _learn(self, name: str, examples: list[str], by: str) -> None:
        def tell(done: int, of: int) -> None:
            self._progress = Progress(f"Learning {name}: {done:,} of {of:,} examples searched for.", True)

        try:
            with self._archive.deciding() as connection:
                learned = unwanted.learn(connection, name, examples, by=by, on_progress=tell)
        except Exception as error:  # said on the page, whatever it is
            self._progress = Progress(f"{name} was not learned: {describe(error).detail}", False)
            return
        chosen = learned.report.chosen
        self._progress = Progress(
            f"{name} is learned: {learned.found.candidates:,} candidates within {chosen.threshold:.3f}, with a"
            f" precision of {chosen.precision:.2f} on what was held out.",
            False,
        )
