"""Encoders taken out of an archive that goes on: nothing of them stays, nobody waits, an interruption is no harm."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from psycopg.errors import NoDataFound

from lookalike import analyses, archive, audit, books, index, ledger, removal, search, unwanted
from lookalike.audit import Wish
from lookalike.database import Connection, connect
from lookalike.errors import ConfigurationError, LostLeaseError, ServiceError, UnknownEncoderError
from lookalike.ledger import RetryPolicy
from tests.factories import TINY, make_images, make_vectors
from tests.meanwhile import meanwhile
from tests.servers import Lookalike

FORMER = replace(TINY, name="a-former.encoder")
IMAGES = 60
POLICY = RetryPolicy(1, 1)
# What refers to an encoder in some way: through an analysis, an audit, a map, a set, or as its own table.
THROUGH = """
select 'centres' from cluster_centres left join clusterings g using (analysis) where g.encoder is distinct from 'tiny'
union all
select 'findings' from audit_findings f left join audits a on a.id = f.audit where a.encoder is distinct from 'tiny'
union all select 'points' from map_points p left join maps m on m.id = p.map where m.encoder is distinct from 'tiny'
union all select relname from pg_class
where relnamespace = 'lookalike'::regnamespace and relname ~ 'former|^clustered_.*_[0-9]'
union all select proname from pg_proc where pronamespace = 'lookalike'::regnamespace and proname ~ 'former'
"""


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """Two encoders that have embedded everything, the second with something in every table that there is."""
    for spec in (TINY, FORMER):
        archive.add_encoder(connection, spec, 8)
    ledger.register(connection, make_images(IMAGES), chunk_size=8)
    for spec in (TINY, FORMER):
        for claim in ledger.lease(connection, spec.name, "backfill", 100, 60):
            chunk = ledger.start(connection, claim, "host.1", 60)
            assert chunk is not None
            failed = [ledger.Failure(chunk.images[-1], ledger.Reason.NOT_FOUND)]
            vectors = make_vectors(chunk.images[:-1], connection, spec.name)
            ledger.finish(connection, chunk, vectors, failed, POLICY)
    index.build(lambda: connect_to(connection), FORMER.name, 64 << 20, 0, lambda _: None)
    index.check(connection, FORMER.name, 5)
    audit.audit(connection, FORMER.name, Wish(whole=True), anew=True)
    unwanted.learn(
        connection, "cards", ["image/00001", "image/00002"], by="ann", threshold=0.4, encoder=FORMER.name
    )
    begun = analyses.begin(connection, "clusters", FORMER.name, {}, 8, scope="images kmeans")
    asked = {"encoder": FORMER.name, "analysis": begun.id}
    for statement in (
        "insert into labels select %(encoder)s, id, 1, 'a label', 0.5 from images",
        "insert into duplicate_pairs (encoder, a, b, distance) select %(encoder)s, id, id + 1, 0.1 from images"
        " where id + 1 in (select id from images)",
        "insert into duplicate_groups (encoder, size, representative_id) select %(encoder)s, 2, min(id) from images",
        "insert into duplicate_members select %(encoder)s, i.id, g.id, 0.1 from images i, duplicate_groups g",
        "insert into duplicate_thresholds values (%(encoder)s, 0.1, 0.9, 1, 1, 3)",
        "insert into clusterings (analysis, encoder, of, method, seed, sampled)"
        " values (%(analysis)s, %(encoder)s, 'images', 'kmeans', 0, 3)",
        "insert into cluster_identities (encoder, of, method) values (%(encoder)s, 'images', 'kmeans')",
        "insert into cluster_centres (analysis, number, centre, cluster)"
        " select %(analysis)s, 0, '[1,0]', id from cluster_identities",
        "select make_members('images', %(analysis)s)",
        "insert into clustered_images select %(analysis)s, id, 0, 0.1 from images",
        "insert into maps (encoder, method, seed, images) values (%(encoder)s, 'pca', 0, 1)",
        "insert into map_points select m.id, i.id, 0.5, 0.5 from maps m, images i",
        "insert into audit_findings (audit, fault, found) select max(id), 'lost', 1 from audits",
    ):
        connection.execute(statement.encode(), asked)
    return connection


def connect_to(connection: Connection) -> Connection:
    """Another connection to the same database, as the same login."""
    return connect(f"{connection.info.dsn} password={connection.info.password}", application_name="test")


def referring(connection: Connection, encoder: str) -> dict[str, int]:
    """How many rows each table with a column `encoder` has of one: by the catalogue, so that none is forgotten."""
    tables = connection.execute(
        "select c.relname from pg_attribute a join pg_class c on c.oid = a.attrelid where a.attname = 'encoder'"
        " and c.relnamespace = 'lookalike'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"
    ).fetchall()
    found = {}
    for (table,) in tables:
        counting = sql.SQL("select count(*) from {} where encoder = %s").format(sql.Identifier(table))
        (found[table],) = connection.execute(counting, [encoder]).fetchone() or (0,)
    return found


def answers(connection: Connection) -> list[tuple[str, float]]:
    return [(one.image, one.distance) for one in search.similar(connection, "image/00003", 5)]


def test_nothing_of_it_stays(archived: Connection) -> None:
    """No table with a column `encoder` has a row of it, none that hangs on one an orphan; the other is untouched."""
    archived.execute(
        "insert into workers (name, encoder, device, batch_size, started_at, seen_at, period, images, seconds,"
        " fetch_busy, decode_busy, encode_busy, store_busy, batch_fill)"
        " values ('gone.1', %s, 'cpu', 1, now(), now() - interval '1 hour', 10, 0, 1, 0, 0, 0, 0, 0)",
        [FORMER.name],
    )
    before = referring(archived, FORMER.name)
    assert [table for table, rows in before.items() if not rows] == [], "this test has to fill it"
    others, answered = referring(archived, "tiny"), answers(archived)
    parts = {part.name: part for part in removal.measure(archived, FORMER.name, stop_work=True)}
    assert parts["labels"].rows == IMAGES
    assert parts["vectors"].bytes > 0
    steps: list[str] = []
    removed = removal.remove(archived, FORMER.name, True, lambda part, _: steps.append(part))
    assert removed.rows >= before["labels"] + before["chunks"] + before["failures"]
    assert steps.count("vectors") == 8
    assert {table: rows for table, rows in referring(archived, FORMER.name).items() if rows} == {}
    assert archived.execute(THROUGH).fetchall() == []
    # The set of unwanted images has changed hands.
    assert referring(archived, "tiny") == {**others, "unwanted_sets": 1}
    assert (answers(archived), books.count_books(archived, "tiny").balanced) == (answered, True)
    assert archived.execute(
        "select current_user = session_user, current_setting('lock_timeout')"
    ).fetchone() == (True, "0")
    assert archive.add_encoder(archived, FORMER, 8), "it can come back"


def test_decisions_of_people_stay(archived: Connection) -> None:
    """Images that somebody called unwanted stay out of searches; what only the network took for it is forgotten."""
    candidates = [one.image for one in unwanted.list_images(archived, "cards", "candidate", 10)]
    assert candidates
    unwanted.decide(archived, "cards", "accepted", candidates[:1], "ann")
    removed = removal.remove(archived, FORMER.name, stop_work=True)
    assert removed.sets == ["cards"]
    found = [one.image for one in search.similar(archived, "image/00003", IMAGES)]
    assert not {"image/00001", *candidates[:1]} & set(found)
    assert unwanted.list_images(archived, "cards", "candidate", 10) == []
    assert unwanted.refresh(archived, "cards").candidates == 0
    assert unwanted.learn(archived, "cards", by="ann", threshold=0.4).encoder == "tiny"


def test_what_is_refused(archived: Connection) -> None:
    """The active one, one that is not there, one with open work, and one that a worker runs: with what to do."""
    with pytest.raises(ConfigurationError, match="searches use tiny: activate another one first"):
        removal.remove(archived, "tiny")
    with pytest.raises(UnknownEncoderError, match="nobody is not in this archive"):
        removal.remove(archived, "nobody")
    with pytest.raises(ConfigurationError, match=r"has \d+ open chunks of work: --stop-work gives it up"):
        removal.measure(archived, FORMER.name)
    with connect_to(archived) as other:
        removal._claim(other, FORMER.name)
        with pytest.raises(ServiceError, match="another process is removing"):
            removal.remove(archived, FORMER.name, stop_work=True)
    archived.execute(
        "insert into workers (name, encoder, device, batch_size, started_at, period, images, seconds,"
        " fetch_busy, decode_busy, encode_busy, store_busy, batch_fill)"
        " values ('alive.1', %s, 'cpu', 1, now(), 10, 0, 1, 0, 0, 0, 0, 0)",
        [FORMER.name],
    )
    with pytest.raises(ConfigurationError, match=r"workers run a-former.encoder: stop alive\.1 first"):
        removal.remove(archived, FORMER.name, stop_work=True)
    assert removal.list_leaving(archived) == []
    assert books.encoder_names(archived) == ["tiny", FORMER.name]


def test_a_forgotten_program_does_not_bring_it_back(archived: Connection) -> None:
    """One that starts with it is told that it was taken out; it comes back when somebody adds it on purpose."""
    removal.remove(archived, FORMER.name, stop_work=True)
    with pytest.raises(
        ConfigurationError, match=r"was taken out of this archive on .* encoders add a-former"
    ):
        archive.ensure_encoder(archived, FORMER, 8)
    assert not archive.is_added(archived, FORMER.name)
    assert archive.add_encoder(archived, FORMER, 8)
    assert not archive.ensure_encoder(archived, FORMER, 8)


def test_while_it_leaves_nothing_uses_it(archived: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted, it is out of searches, registration and lists, and neither added nor activated; then it goes on."""
    (claim, *_) = ledger.lease(archived, FORMER.name, "analysis", 100, 60)
    held = ledger.start(archived, claim, "host.1", 60)
    assert held is not None
    with monkeypatch.context() as patch:
        patch.setattr(removal, "_drop_clusterings", interrupt)
        with pytest.raises(KeyboardInterrupt):
            removal.remove(archived, FORMER.name, stop_work=True)
    (leaving,) = removal.list_leaving(archived)
    assert (leaving.encoder, leaving.vectors_bytes) == (FORMER.name, 0)
    assert books.encoder_names(archived) == ["tiny"]
    with pytest.raises(NoDataFound), archived.transaction():
        archived.execute("select * from similar('image/00003', encoder => %s)", [FORMER.name])
    for forbidden in (
        lambda: archive.add_encoder(archived, FORMER, 8),
        lambda: archive.activate(archived, FORMER.name),
    ):
        with pytest.raises(
            ServiceError, match="is being taken out of this archive: `lookalike encoders remove"
        ):
            forbidden()
    with pytest.raises(LostLeaseError):
        ledger.finish_analysis(archived, held, lambda *_: None)
    ledger.register(archived, make_images(9, "later"), chunk_size=8)
    assert archived.execute("select distinct encoder from chunks").fetchall() == [("tiny",)]
    # An older program that knows nothing of this.
    archived.execute("insert into chunks (encoder, lane, lo, hi) values (%s, 'events', 1, 1)", [FORMER.name])
    removal.remove(archived, FORMER.name)
    assert {table: rows for table, rows in referring(archived, FORMER.name).items() if rows} == {}
    assert removal.list_leaving(archived) == []


def test_what_comes_in_at_the_last_moment(archived: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes for it when its tables are empty already: that is said, and taken away next time."""
    end = removal._end

    def late(*words: Any) -> None:
        monkeypatch.setattr(removal, "_end", end)
        archived.execute("insert into duplicate_thresholds values (%s, 0.1, 0.9, 1, 1, 3)", [FORMER.name])
        end(*words)

    monkeypatch.setattr(removal, "_end", late)
    with pytest.raises(ServiceError, match=r"somebody still works with .*: call it again"):
        removal.remove(archived, FORMER.name, stop_work=True)
    assert [one.encoder for one in removal.list_leaving(archived)] == [FORMER.name]
    removal.remove(archived, FORMER.name)
    assert removal.list_leaving(archived) == []


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_large_tables_go_in_pieces(archived: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a piece, all rows go, and none of the other encoder."""
    archived.execute("insert into labels select 'tiny', id, 1, 'a label', 0.5 from images")
    monkeypatch.setattr(removal, "PIECE", 7)
    monkeypatch.setattr(removal, "COUNTED", 10)
    archived.execute("analyze labels")
    parts = {part.name: part.rows for part in removal.measure(archived, FORMER.name, stop_work=True)}
    assert 10 <= parts["labels"] <= 2 * IMAGES
    pieces: list[tuple[str, int]] = []
    removal.remove(archived, FORMER.name, True, lambda part, rows: pieces.append((part, rows)))
    sizes = [rows for part, rows in pieces if part == "labels"]
    assert (sum(sizes), max(sizes)) == (IMAGES, 8)
    assert referring(archived, "tiny")["labels"] == IMAGES
    assert referring(archived, FORMER.name)["labels"] == 0


@contextmanager
def searching(connection: Connection) -> Iterator[list[float]]:
    """Searches with the active encoder, looks at clusters and registers images; yields how long each round took."""
    with connect_to(connection) as own:

        def go_on(number: int) -> None:
            answers(own)
            own.execute("select count(*) from cluster_members").fetchone()
            ledger.register(own, make_images(1, f"beside-{number}"), chunk_size=8)

        with meanwhile(go_on) as seconds:
            yield seconds


def test_nobody_waits_for_it(archived: Connection) -> None:
    """A removal that finds its tables in use lets others through: none waits much longer than its lock does."""
    with connect_to(archived) as analyst:
        analyst.execute("begin")
        analyst.execute("select count(*) from clustered_images")
        analyst.execute("select count(*) from vectors_a_former_encoder_p5")
        done = threading.Timer(3, lambda: analyst.execute("commit"))
        done.start()
        since = time.perf_counter()
        with searching(archived) as seconds:
            removal.remove(archived, FORMER.name, stop_work=True)
        done.join()
    assert time.perf_counter() - since > 3, "it did not meet the analyst's locks"
    assert len(seconds) > 20
    # Twice: once for each of the statements of a round that may queue behind its lock.
    assert max(seconds) < 2 * 0.5 + 1
    assert books.count_books(archived, "tiny").balanced


@pytest.mark.slow
def test_the_command(archived: Connection, database_url: str, broker_url: str, tmp_path: Path) -> None:
    """It says what goes, asks, and does nothing on a no; `status` shows it as leaving; with --yes it goes."""
    system = Lookalike(tmp_path, database_url, broker_url, LOOKALIKE_ENCODER="efficientnet-lite0")
    words = ("encoders", "remove", FORMER.name, "--stop-work")
    refused = system.run(*words, stdin="n\n", check=False)
    assert refused.returncode == 1
    assert "what goes with a-former.encoder" in refused.stdout
    assert referring(archived, FORMER.name)["labels"] == IMAGES
    archived.execute("update encoders set leaving_at = now() where name = %s", [FORMER.name])
    shown = json.loads(system.run("status", "--json").stdout)
    assert (list(shown["encoders"]), [one["encoder"] for one in shown["leaving"]]) == (
        ["tiny"],
        [FORMER.name],
    )
    assert "is being taken out since" in system.run("status").stdout
    done = json.loads(system.run(*words, "--yes", "--json").stdout)
    assert (done["sets"], {part["name"] for part in done["parts"]} >= {"vectors", "labels", "clusters"}) == (
        ["cards"],
        True,
    )
    assert referring(archived, FORMER.name)["labels"] == 0
    own = Lookalike(tmp_path, database_url, broker_url, LOOKALIKE_ENCODER=FORMER.name)
    assert "LOOKALIKE_ENCODER is still" in own.run(*words, check=False).stderr
