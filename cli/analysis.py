"""Runs an analysis on this machine, as `lookalike run` does with images, until it is settled."""

import time
from contextlib import closing

from cli.run import POLL_SECONDS, Asker, dispatching, progress_bar, working
from cli.session import Session
from lookalike import analyses
from lookalike.analyses import Analysis, Progress
from lookalike.database import Connection


def run_analysis(session: Session, analysis: Analysis, quiet: bool = False) -> None:
    """Works on an analysis until it is settled; others may work on it as well. Ctrl-C is safe: `orchestrate` and
    workers, or the same command again, go on with what is open."""

    def look(connection: Connection) -> tuple[Progress, bool]:
        settled = analyses.is_settled(connection, analysis.id)
        return analyses.progress(connection, analysis.id), settled

    with (
        dispatching(session) as broken,
        working(session, analysis.encoder) as worker,
        closing(Asker(session)) as asker,
        progress_bar(quiet) as progress,
    ):
        task = progress.add_task(analysis.kind, total=None)
        settled, left = False, 0
        while not settled:
            worker.watch()
            if broken:
                raise broken[0]
            since = time.monotonic()
            now, settled = asker.ask(look)
            if now.left < left:
                worker.alive()
            left = now.left
            progress.update(task, total=now.images, completed=now.images - now.left)
            time.sleep(max(POLL_SECONDS, 4 * (time.monotonic() - since)))
