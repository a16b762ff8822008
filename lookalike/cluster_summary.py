"""Sums a clustering up when all of it is assigned: sizes, exemplars, labels and identities; then it is shown.

All in SQL, and in one transaction. Sizes and identities read every member once; exemplars and labels only the members
nearest to each centre, so that they cost the same however many there are.
"""

import logging
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable
from psycopg.rows import dict_row, scalar_row

from lookalike.analyses import Analysis
from lookalike.cluster_samples import QUERIES, Of

Connection = psycopg.Connection[tuple[Any, ...]]

log = logging.getLogger(__name__)

EXEMPLARS = 5
# Members of each cluster, nearest to the centre first, whose classes and titles tell what it is about.
CORE = 200
# Too common in titles to tell anything; an archive that is too small does not show that by itself.
STOP_WORDS = [
    "the", "and", "for", "with", "from", "after", "his", "her", "its", "that", "this", "has", "have", "are", "was",
    "des", "les", "une", "dans", "par", "pour", "sur", "avec", "del", "las", "los", "una", "con", "por", "per", "nel",
    "della", "delle", "der", "die", "das", "und", "den", "dem", "ein", "eine", "mit", "von", "zur", "zum",
]  # fmt: skip


def members_of(of: Of) -> sql.Identifier:
    """The table of all members that are images, or works."""
    return sql.Identifier("lookalike", f"clustered_{of}")


def partition_of(of: Of, analysis: int) -> sql.Identifier:
    """The part of that table which belongs to one clustering."""
    return sql.Identifier("lookalike", f"clustered_{of}_{analysis}")


def is_shown(connection: Connection, analysis: int) -> bool:
    """Whether a clustering is complete and has not been replaced."""
    asked = {"analysis": analysis}
    with connection.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(QUERIES["is_shown"], asked).fetchone())


def settle(connection: Connection, analysis: Analysis) -> bool:
    """Sums up and shows a clustering, in the caller's transaction. False when it is too early to do it again.

    What arrives later is assigned at once, but summed up only now and then: at most for 1 % of the time.
    """
    asked = {"analysis": analysis.id}
    with connection.cursor(row_factory=dict_row) as cursor:
        clustering = cursor.execute(QUERIES["summary_due"], asked).fetchone()
    if clustering is None:
        return True
    if not clustering["due"]:
        return False
    summary = _Summary(connection, analysis, clustering["of"])
    summary.measure()
    summary.label()
    summary.identify()
    connection.execute(QUERIES["show"], asked)
    with connection.cursor(row_factory=scalar_row) as cursor:
        outdated = cursor.execute(QUERIES["outdated"], asked).fetchall()
    for old in outdated:
        _delete(connection, clustering["of"], old)
    return True


def _delete(connection: Connection, of: Of, analysis: int) -> None:
    """Deletes an old clustering; while somebody reads it, it waits for the next summary."""
    try:
        with connection.transaction():
            connection.execute(QUERIES["wait_briefly"])
            connection.execute(QUERIES["drop_partition"], {"of": of, "analysis": analysis})
            connection.execute(QUERIES["delete_clustering"], {"analysis": analysis})
    except LockNotAvailable:
        log.info("clustering %d is read still: it is deleted later", analysis)


class _Summary:
    """The steps of one summary."""

    def __init__(self, connection: Connection, analysis: Analysis, of: Of) -> None:
        self._connection = connection
        self._of = of
        self._asked = {
            "analysis": analysis.id,
            "encoder": analysis.encoder,
            "exemplars": EXEMPLARS,
            "core": CORE,
            "stop_words": STOP_WORDS,
        }
        images = of == "images"
        self._names = {
            "members": members_of(of),
            "partition": partition_of(of, analysis.id),
            "item": sql.Identifier("image_id" if images else "work"),
            "key": sql.SQL("i.key" if images else "m.work"),
            "with_keys": sql.SQL("join lookalike.images i on i.id = m.image_id" if images else ""),
        }

    def _run(self, query: str, **more: object) -> "psycopg.Cursor[tuple[Any, ...]]":
        return self._connection.execute(
            sql.SQL(QUERIES[query]).format(**self._names), {**self._asked, **more}
        )

    def measure(self) -> None:
        """Sizes and exemplars."""
        self._connection.execute(sql.SQL(QUERIES["analyze"]).format(**self._names))
        self._run("count_members")
        self._run("choose_exemplars")

    def label(self) -> None:
        """Classes, from encoders that have a classifier, and words of titles."""
        self._connection.execute(QUERIES["make_cores"])
        self._connection.execute(QUERIES["make_terms"])
        self._connection.execute(QUERIES["clear_cores"])
        self._run("fill_image_cores" if self._of == "images" else "fill_work_cores")
        # A class needs half the probability of one image and one standard error, so that small clusters have a label
        # too; a word needs two titles and two standard errors, because there are so many words.
        for terms, fill, least, surprise in (
            ("classes", "fill_classes", 0.5, 1),
            ("words", "fill_words", 2, 2),
        ):
            self._connection.execute(QUERIES["clear_terms"])
            self._run(fill)
            self._connection.execute(
                sql.SQL(QUERIES["score_terms"]).format(terms=sql.Identifier(terms)),
                {**self._asked, "least": least, "surprise": surprise},
            )

    def identify(self) -> None:
        """Identities of the clustering that was shown before, where they go on, and new ones."""
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            predecessor = cursor.execute(QUERIES["predecessor"], self._asked).fetchone()
        if predecessor is not None:
            self._run("inherit_identities", predecessor=predecessor)
            self._connection.execute(QUERIES["hide"], {"predecessor": predecessor})
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            numbers = cursor.execute(QUERIES["unidentified"], self._asked).fetchall()
            clusters = [cursor.execute(QUERIES["new_identity"], self._asked).fetchone() for _ in numbers]
        self._connection.execute(
            QUERIES["identify"], {**self._asked, "numbers": numbers, "clusters": clusters}
        )
