"""The ledger on a real Postgres: registration, leases, fences, retries, crashes, and the books after each."""

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from lookalike import archive, books, ledger, sweeping
from lookalike.audit import audit
from lookalike.database import Connection, connect
from lookalike.errors import LostLeaseError, UnknownEncoderError
from lookalike.images import Image
from lookalike.ledger import Failure, Lease, Postponement, RetryPolicy
from lookalike.reasons import Reason
from tests.factories import TINY, make_images, make_vectors

POLICY = RetryPolicy(tries=3, seconds=0.01)


@pytest.fixture
def archive_db(connection: Connection) -> Connection:
    archive.add_encoder(connection, TINY, chunk_size=4)
    return connection


def lease_one(connection: Connection, lane: ledger.Lane = "backfill") -> Lease:
    (claim,) = ledger.lease(connection, "tiny", lane, window=100, seconds=60, batch=1)
    return claim


def start_one(connection: Connection, lane: ledger.Lane = "backfill") -> ledger.Chunk:
    chunk = ledger.start(connection, lease_one(connection, lane), "w", 60)
    assert chunk is not None
    return chunk


def due_now(connection: Connection) -> None:
    connection.execute("update chunks set not_before = now() where state = 'pending'")


def expire(connection: Connection) -> None:
    connection.execute("update chunks set lease_until = now() - interval '1 second' where lease is not null")


def test_register_is_idempotent(archive_db: Connection) -> None:
    """The same images announced twice are rows and chunks once."""
    first = ledger.register(archive_db, make_images(10), chunk_size=4)
    second = ledger.register(archive_db, make_images(10), chunk_size=4)

    assert first == ledger.Registered(new=10)
    assert second == ledger.Registered(unchanged=10)
    assert books.count_books(archive_db, "tiny") == books.Books(10, 0, 0, 10, 0)
    assert archive_db.execute("select count(*) from chunks").fetchone() == (3,)


def test_register_takes_the_last_of_a_key_in_a_batch(archive_db: Connection) -> None:
    """A key twice in one batch is one image, with the later address."""
    counts = ledger.register(archive_db, [Image("a", "file:///1"), Image("a", "file:///2")])

    assert counts == ledger.Registered(new=1)
    assert archive_db.execute("select url from images").fetchall() == [("file:///2",)]


@pytest.mark.parametrize(
    ("before", "after", "counts", "revision"),
    [
        (Image("a", "u", content="1"), Image("a", "u", content="2"), ledger.Registered(changed=1), 2),
        (Image("a", "u", content="1"), Image("a", "moved", content="1"), ledger.Registered(changed=1), 1),
        (Image("a", "u"), Image("a", "moved"), ledger.Registered(changed=1), 2),
        (Image("a", "u", title="T"), Image("a", "u"), ledger.Registered(unchanged=1), 1),
        (Image("a", "u", content="1"), Image("a", "u"), ledger.Registered(unchanged=1), 1),
        (Image("a", "u"), Image("a", "u", content="1"), ledger.Registered(changed=1), 1),
        (Image("a", "u"), Image("a", "moved", content="1"), ledger.Registered(changed=1), 2),
    ],
    ids=[
        "content",
        "address, same content",
        "address, content unknown",
        "fewer words",
        "less known",
        "more known",
        "address, content unknown before",
    ],
)
def test_register_embeds_again_only_what_has_new_content(
    archive_db: Connection, before: Image, after: Image, counts: ledger.Registered, revision: int
) -> None:
    """New content makes a new revision and a chunk; new words only change the row; missing ones erase nothing."""
    ledger.register(archive_db, [before])
    chunk = start_one(archive_db)
    ledger.finish(archive_db, chunk, make_vectors(chunk.images, archive_db), [], POLICY)

    assert ledger.register(archive_db, [after]) == counts
    assert archive_db.execute("select revision from images").fetchone() == (revision,)
    expected = books.Books(1, 0, 0, 1, 0) if revision == 2 else books.Books(1, 1, 0, 0, 0)
    assert books.count_books(archive_db, "tiny") == expected


def test_the_old_vector_serves_until_the_new_one_replaces_it(archive_db: Connection) -> None:
    """An image whose content changed keeps its vector while it is open, and has one vector after."""
    ledger.register(archive_db, [Image("a", "u", content="1")])
    chunk = start_one(archive_db)
    ledger.finish(archive_db, chunk, make_vectors(chunk.images, archive_db), [], POLICY)
    ledger.register(archive_db, [Image("a", "u", content="2")])
    assert archive_db.execute("select revision from vectors_tiny").fetchall() == [(1,)]

    chunk = start_one(archive_db)
    ledger.finish(archive_db, chunk, make_vectors(chunk.images, archive_db), [], POLICY)

    assert archive_db.execute("select revision from vectors_tiny").fetchall() == [(2,)]
    assert books.count_books(archive_db, "tiny").complete


def test_late_work_on_old_content_never_replaces_newer(archive_db: Connection) -> None:
    """A worker that read revision 1 and finishes after one that read revision 2 changes nothing."""
    ledger.register(archive_db, [Image("a", "u", content="1")])
    old = start_one(archive_db)
    ledger.register(archive_db, [Image("a", "u", content="2")])
    new = start_one(archive_db)
    ledger.finish(archive_db, new, make_vectors(new.images, archive_db), [], POLICY)
    ledger.finish(archive_db, old, make_vectors(old.images, archive_db), [], POLICY)

    assert archive_db.execute("select revision from vectors_tiny").fetchall() == [(2,)]


def test_late_failure_on_old_content_never_replaces_newer(archive_db: Connection) -> None:
    """An image whose new content failed is failed, whatever comes of its old content afterwards."""
    for key in ("a", "b"):
        ledger.register(archive_db, [Image(key, "u", content="1")])
        old = start_one(archive_db)
        ledger.register(archive_db, [Image(key, "u", content="2")])
        new = start_one(archive_db)
        ledger.finish(
            archive_db, new, make_vectors([], archive_db), [Failure(new.images[0], Reason.EMPTY)], POLICY
        )
        if key == "a":
            late = [Failure(old.images[0], Reason.NOT_FOUND)]
            ledger.finish(archive_db, old, make_vectors([], archive_db), late, POLICY)
        else:
            ledger.finish(archive_db, old, make_vectors(old.images, archive_db), [], POLICY)

    assert books.count_books(archive_db, "tiny") == books.Books(2, 0, 2, 0, 0)
    assert books.count_reasons(archive_db, "tiny") == {"empty": 2}


def test_a_failed_image_with_a_new_address_is_tried_again(archive_db: Connection) -> None:
    """Whoever corrects the address of images that failed, their content being the same, need not say retry."""
    ledger.register(archive_db, [Image("a", "typo", content="1"), Image("b", "right", content="1")])
    chunk = start_one(archive_db)
    failures = [Failure(image, Reason.NOT_FOUND) for image in chunk.images]
    ledger.finish(archive_db, chunk, make_vectors([], archive_db), failures, POLICY)

    ledger.register(
        archive_db, [Image("a", "right", content="1"), Image("b", "right", content="1", title="B")]
    )

    assert books.count_books(archive_db, "tiny") == books.Books(2, 0, 1, 1, 0)


def test_what_is_announced_again_costs_no_writing(archive_db: Connection) -> None:
    """An archive that is announced anew every night locks no row and uses up no ids."""
    ledger.register(archive_db, make_images(10))
    for _ in range(3):
        ledger.register(archive_db, make_images(10))
    ledger.register(archive_db, [Image("new", "u")])

    assert archive_db.execute(
        "select count(*) filter (where xmax <> 0), max(id) - min(id) from images"
    ).fetchone() == (0, 10)


def test_gaps_between_ids_make_no_empty_chunks(archive_db: Connection) -> None:
    """An encoder added to an archive whose ids have gaps gets as many chunks as its images need."""
    ledger.register(archive_db, make_images(6))
    archive_db.execute("select setval('images_id_seq', 1000000)")
    ledger.register(archive_db, make_images(6, "late"))
    archive.add_encoder(archive_db, replace(TINY, name="second"), chunk_size=4)

    assert archive_db.execute("select count(*) from chunks where encoder = 'second'").fetchone() == (3,)
    assert books.count_books(archive_db, "second") == books.Books(12, 0, 0, 12, 0)


def test_searches_go_on_while_an_encoder_is_added(archive_db: Connection, database_url: str) -> None:
    """Until the new encoder is committed, registration waits; whoever only reads does not."""
    ledger.register(archive_db, make_images(2))
    with connect(database_url, application_name="reader") as other:
        other.execute("set lock_timeout = '200ms'")
        with archive_db.transaction():
            archive.add_encoder(archive_db, replace(TINY, name="second"), chunk_size=4)
            assert other.execute("select active_encoder()").fetchone() == ("tiny",)
            assert books.count_books(other, "tiny").open == 2
            with pytest.raises(psycopg.errors.LockNotAvailable):
                ledger.register(other, make_images(1, "meanwhile"))
        ledger.register(other, make_images(1, "meanwhile"))

    assert books.count_books(archive_db, "second") == books.Books(3, 0, 0, 3, 0)


def test_chunks_of_interleaved_registrations_never_overlap(archive_db: Connection, database_url: str) -> None:
    """A range chunk covers only images of its own batch, whoever else registers at the same time."""
    archive_db.execute("select setval('images_id_seq', 100)")
    with archive_db.transaction():
        archive_db.execute("insert into images (id, key, url) values (103, 'other', 'u')")
    archive_db.execute("select setval('images_id_seq', 100)")
    ledger.register(archive_db, make_images(2, "a"), chunk_size=4)
    archive_db.execute("select setval('images_id_seq', 103)")
    ledger.register(archive_db, make_images(2, "b"), chunk_size=4)

    open_images = archive_db.execute("select open, lost from books('tiny')").fetchone()
    assert open_images == (4, 1)  # `other` was slipped in without a chunk: the books see it


def test_an_encoder_added_later_covers_every_image(archive_db: Connection) -> None:
    """Adding an encoder opens all registered images for it, and leaves the first one active."""
    ledger.register(archive_db, make_images(10))
    archive.add_encoder(archive_db, replace(TINY, name="second"), chunk_size=4)

    assert books.count_books(archive_db, "second") == books.Books(10, 0, 0, 10, 0)
    assert books.encoder_names(archive_db) == ["tiny", "second"]
    archive.activate(archive_db, "second")
    assert books.encoder_names(archive_db) == ["second", "tiny"]


def test_lease_stays_within_its_window(archive_db: Connection) -> None:
    """No more chunks are in flight than the window, or three times those that workers have started."""
    ledger.register(archive_db, make_images(40), chunk_size=1)

    first = ledger.lease(archive_db, "tiny", "backfill", window=4, seconds=60)
    assert len(first) == 4
    assert ledger.lease(archive_db, "tiny", "backfill", window=4, seconds=60) == []
    for claim in first:
        ledger.start(archive_db, claim, "w", 60)
    assert len(ledger.lease(archive_db, "tiny", "backfill", window=4, seconds=60)) == 8


def test_two_dispatchers_never_lease_the_same_chunk(archive_db: Connection, database_url: str) -> None:
    """A chunk that one transaction is leasing is skipped by another."""
    ledger.register(archive_db, make_images(8), chunk_size=4)
    with connect(database_url, application_name="other dispatcher") as other, other.transaction():
        theirs = ledger.lease(other, "tiny", "backfill", window=100, seconds=60, batch=1)
        ours = ledger.lease(archive_db, "tiny", "backfill", window=100, seconds=60)

    assert len(theirs) == len(ours) == 1
    assert theirs[0].chunk != ours[0].chunk


def test_only_the_holder_of_the_lease_starts_and_once(archive_db: Connection) -> None:
    """A wrong token or a second start is a stale message."""
    ledger.register(archive_db, make_images(2))
    claim = lease_one(archive_db)

    assert ledger.start(archive_db, Lease(claim.chunk, uuid4()), "w", 60) is None
    assert ledger.start(archive_db, claim, "w", 60) is not None
    assert ledger.start(archive_db, claim, "w", 60) is None


def test_a_late_twin_stores_nothing(archive_db: Connection) -> None:
    """Whoever finishes without the lease rolls back, vectors and all."""
    ledger.register(archive_db, make_images(3))
    chunk = start_one(archive_db)
    expire(archive_db)
    sweeping.sweep(archive_db)

    with pytest.raises(LostLeaseError):
        ledger.finish(archive_db, chunk, make_vectors(chunk.images, archive_db), [], POLICY)
    assert archive_db.execute("select count(*) from vectors_tiny").fetchone() == (0,)


def test_renew_names_the_leases_that_are_still_ours(archive_db: Connection) -> None:
    """A heartbeat prolongs what is ours and leaves out what is not."""
    ledger.register(archive_db, make_images(8), chunk_size=4)
    mine, lost = start_one(archive_db), start_one(archive_db)
    stolen = Lease(lost.lease.chunk, uuid4())

    assert ledger.renew(archive_db, [mine.lease, stolen], 60) == {mine.lease.chunk}


def test_finish_settles_each_image_by_its_fate(archive_db: Connection) -> None:
    """Vectors are stored, final failures are rows, transient ones wait in a new chunk of only these images."""
    ledger.register(archive_db, make_images(4), chunk_size=4)
    chunk = start_one(archive_db)
    one, two, three, four = chunk.images
    failures = [Failure(three, Reason.NOT_FOUND, "404"), Failure(four, Reason.TIMEOUT, "slow\0", 0.02)]

    ledger.finish(archive_db, chunk, make_vectors([one, two], archive_db), failures, POLICY)

    assert books.count_books(archive_db, "tiny") == books.Books(4, 2, 1, 1, 0)
    assert books.count_reasons(archive_db, "tiny") == {"not_found": 1}
    assert archive_db.execute(
        "select attempts, ids, parent, not_before > now() - interval '1 s' from chunks where state = 'pending'"
    ).fetchone() == (1, [four.id], chunk.lease.chunk, True)


def test_a_failure_beside_a_vector_is_not_kept(archive_db: Connection) -> None:
    """Of two chunks that hold the same image, one's failure does not stand beside the other's vector."""
    ledger.register(archive_db, [Image("a", "u", content="1")])
    ledger.register(archive_db, [Image("a", "u", content="2")])
    first, second = start_one(archive_db), start_one(archive_db)

    ledger.finish(archive_db, first, make_vectors(first.images, archive_db), [], POLICY)
    failed = [Failure(image, Reason.NOT_FOUND) for image in second.images]
    ledger.finish(archive_db, second, make_vectors([], archive_db), failed, POLICY)

    assert books.count_books(archive_db, "tiny") == books.Books(1, 1, 0, 0, 0)
    assert books.list_failures(archive_db, "tiny") == []


def test_a_transient_failure_ends_after_its_tries(archive_db: Connection) -> None:
    """No image is tried for ever: the last try makes the failure final, with its number of tries."""
    ledger.register(archive_db, make_images(1))
    for _ in range(POLICY.tries):
        due_now(archive_db)
        chunk = start_one(archive_db)
        ledger.finish(
            archive_db,
            chunk,
            make_vectors([], archive_db),
            [Failure(chunk.images[0], Reason.TIMEOUT)],
            POLICY,
        )

    assert books.count_books(archive_db, "tiny") == books.Books(1, 0, 1, 0, 0)
    assert archive_db.execute("select reason, attempts from failures").fetchone() == ("timeout", 3)


def test_postponed_images_spend_no_attempt(archive_db: Connection) -> None:
    """Each group is a chunk of its own, due when it was said, in its lane, with the tries it had; nothing is lost."""
    ledger.register(archive_db, make_images(6), "events", chunk_size=6)
    archive_db.execute("update chunks set attempts = 1")
    chunk = start_one(archive_db, "events")
    one, *others = chunk.images
    groups = [Postponement(others[:2], 100, True, "h answered 429"), Postponement(others[2:], 7, False)]

    ledger.finish(archive_db, chunk, make_vectors([one], archive_db), [], POLICY, groups)

    assert books.count_books(archive_db, "tiny") == books.Books(6, 1, 0, 5, 0)
    assert archive_db.execute(
        "select lane, attempts, ids, parent, round(extract(epoch from not_before - now())), waiting_since is not null"
        " from chunks where state = 'pending' order by id"
    ).fetchall() == [
        ("events", 1, [image.id for image in others[:2]], chunk.lease.chunk, 100, True),
        ("events", 1, [image.id for image in others[2:]], chunk.lease.chunk, 7, False),
    ]
    assert books.count_last_minute(archive_db, "tiny") == 1


def test_patience_with_a_host_ends(archive_db: Connection) -> None:
    """Images whose host has refused all requests for too long fail; those that only wait for their turn never do."""
    ledger.register(archive_db, make_images(3), chunk_size=3)
    policy = RetryPolicy(tries=1, seconds=0.01, patience=3600)
    for hours in (0, 0.9):
        archive_db.execute(
            "update chunks set waiting_since = waiting_since - make_interval(hours => 1) * %s", [hours]
        )
        due_now(archive_db)
        chunk = start_one(archive_db)
        paused = Postponement(chunk.images, 60, True, "h answered 503")
        ledger.finish(archive_db, chunk, make_vectors([], archive_db), [], policy, [paused])
    assert books.count_books(archive_db, "tiny") == books.Books(3, 0, 0, 3, 0)

    archive_db.execute("update chunks set waiting_since = waiting_since - interval '1 hour'")
    due_now(archive_db)
    chunk = start_one(archive_db)
    groups = [
        Postponement(chunk.images[:2], 60, True, "h answered 503"),
        Postponement(chunk.images[2:], 60, False),
    ]
    ledger.finish(archive_db, chunk, make_vectors([], archive_db), [], policy, groups)

    assert books.count_books(archive_db, "tiny") == books.Books(3, 0, 2, 1, 0)
    assert [(f.reason, f.detail) for f in books.list_failures(archive_db, "tiny")] == [
        ("throttled", "h answered 503, for 2 hours")
    ] * 2
    assert archive_db.execute(
        "select count(*) from chunks where state = 'pending' and waiting_since is null"
    ).fetchone() == (1,)


def test_refusals_that_may_pass_are_tried_again(archive_db: Connection) -> None:
    """`forbidden` is final, unless the host refused everything: then it is tried as often as what is transient."""
    ledger.register(archive_db, make_images(2), chunk_size=2)
    chunk = start_one(archive_db)
    one, two = chunk.images
    failures = [Failure(one, Reason.FORBIDDEN), Failure(two, Reason.FORBIDDEN, passing=True)]
    ledger.finish(archive_db, chunk, make_vectors([], archive_db), failures, POLICY)
    assert books.count_books(archive_db, "tiny") == books.Books(2, 0, 1, 1, 0)
    for _ in range(POLICY.tries - 1):
        due_now(archive_db)
        chunk = start_one(archive_db)
        failures = [Failure(two, Reason.FORBIDDEN, passing=True)]
        ledger.finish(archive_db, chunk, make_vectors([], archive_db), failures, POLICY)
    assert books.count_reasons(archive_db, "tiny") == {"forbidden": 2}


def test_retry_opens_failed_images_again(archive_db: Connection) -> None:
    """Retry takes the failures of a reason or key away and covers their images with chunks."""
    ledger.register(archive_db, make_images(4), chunk_size=4)
    chunk = start_one(archive_db)
    reasons = [Reason.NOT_FOUND, Reason.NOT_FOUND, Reason.CORRUPT, Reason.EMPTY]
    failures = [Failure(image, reason) for image, reason in zip(chunk.images, reasons, strict=True)]
    ledger.finish(archive_db, chunk, make_vectors([], archive_db), failures, POLICY)

    assert books.retry(archive_db, "tiny", 4, reasons=[Reason.NOT_FOUND]) == 2
    assert books.retry(archive_db, "tiny", 4, keys=["image/00003"]) == 1
    assert books.count_books(archive_db, "tiny") == books.Books(4, 0, 1, 3, 0)


def test_a_chunk_that_was_given_back_is_not_a_crash(archive_db: Connection) -> None:
    """A stopping worker's chunk is pending again, with no crash to its name."""
    ledger.register(archive_db, make_images(2))
    chunk = start_one(archive_db)
    ledger.give_back(archive_db, chunk.lease)

    assert archive_db.execute("select state, crashes from chunks").fetchone() == ("pending", 0)


def test_a_message_that_nobody_took_is_not_a_crash(archive_db: Connection) -> None:
    """An expired queued chunk is pending again and blames nobody."""
    ledger.register(archive_db, make_images(2))
    lease_one(archive_db)
    expire(archive_db)

    assert sweeping.sweep(archive_db) == sweeping.Swept(expired=1)
    assert archive_db.execute("select state, crashes from chunks").fetchone() == ("pending", 0)


def test_the_one_poisonous_image_is_found(archive_db: Connection) -> None:
    """A chunk that crashes every worker is halved until the poison is alone and dead; its neighbours are done."""
    ledger.register(archive_db, make_images(8), chunk_size=8)
    crashes = 0
    while not books.is_finished(archive_db, "tiny"):
        lane: ledger.Lane = "suspect" if crashes >= 2 else "backfill"
        chunk = start_one(archive_db, lane)
        if any(image.key == "image/00005" for image in chunk.images):
            crashes += 1
            expire(archive_db)
            sweeping.sweep(archive_db)
        else:
            ledger.finish(archive_db, chunk, make_vectors(chunk.images, archive_db), [], POLICY)

    assert books.count_books(archive_db, "tiny") == books.Books(8, 7, 1, 0, 0)
    assert [f.image for f in books.list_failures(archive_db, "tiny", [Reason.CRASHED_WORKER])] == [
        "image/00005"
    ]
    assert crashes == 6  # 2 for eight, 1 each for four and two, 2 more for the one


def test_images_beside_a_poisonous_one_survive(archive_db: Connection) -> None:
    """What crashed twice in company goes to the lane of suspects, where it is alone, and dies only there."""
    ledger.register(archive_db, make_images(4), "events", chunk_size=1)
    for _ in range(sweeping.CRASHES_BEFORE_SPLIT):
        for claim in ledger.lease(archive_db, "tiny", "events", window=100, seconds=60):
            assert ledger.start(archive_db, claim, "w", 60)
        expire(archive_db)
        assert sweeping.sweep(archive_db) == sweeping.Swept(crashed=4)

    for _ in range(4):
        chunk = start_one(archive_db, "suspect")
        if chunk.images[0].key == "image/00002":
            expire(archive_db)
            assert sweeping.sweep(archive_db) == sweeping.Swept(crashed=1, dead=[chunk.images[0].id])
        else:
            ledger.finish(archive_db, chunk, make_vectors(chunk.images, archive_db), [], POLICY)

    assert books.count_books(archive_db, "tiny") == books.Books(4, 3, 1, 0, 0)


def test_a_worker_that_starts_anew_takes_back_what_its_name_held(archive_db: Connection) -> None:
    """The chunks of a crashed predecessor are pending at once, without waiting for their lease to expire."""
    ledger.register(archive_db, make_images(2))
    start_one(archive_db)

    assert sweeping.sweep(archive_db, worker="other") == sweeping.Swept()
    assert sweeping.sweep(archive_db, worker="w") == sweeping.Swept(crashed=1)


def test_a_worker_that_starts_anew_takes_nothing_of_others(archive_db: Connection) -> None:
    """After an outage every lease has run out: whose owner lives, only the orchestrator can tell, a moment later."""
    ledger.register(archive_db, make_images(2))
    start_one(archive_db)
    expire(archive_db)

    assert sweeping.sweep(archive_db, worker="other") == sweeping.Swept()


def test_names_are_not_given_away_just_after_a_restart(
    archive_db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Living workers lost the locks on theirs: while anybody holds a chunk, a new worker gives them a moment."""
    monkeypatch.setattr(sweeping, "LONG_UP_SECONDS", 1e9)
    assert sweeping.grace_due(archive_db, 60) == 0
    ledger.register(archive_db, make_images(2))
    start_one(archive_db)
    assert sweeping.grace_due(archive_db, 60) == sweeping.grace(60)

    monkeypatch.setattr(sweeping, "LONG_UP_SECONDS", 0)
    assert sweeping.grace_due(archive_db, 60) == 0


def test_two_living_workers_never_have_the_same_name(archive_db: Connection, database_url: str) -> None:
    """A second worker of a host gets the next number, and the first's when that one is gone."""
    first = connect(database_url, application_name="worker")
    assert sweeping.claim_worker_name(first, "host") == "host.1"
    assert sweeping.claim_worker_name(archive_db, "host") == "host.2"
    first.close()
    with connect(database_url, application_name="worker") as third:
        assert sweeping.claim_worker_name(third, "host") == "host.1"


def test_a_worker_that_lost_its_connection_keeps_its_name(archive_db: Connection, database_url: str) -> None:
    """It gets the name that it had, though a lower number is free; unless somebody has taken it."""
    assert sweeping.claim_worker_name(archive_db, "host", "host.2") == "host.2"
    with connect(database_url, application_name="worker") as other:
        assert sweeping.claim_worker_name(other, "host", "host.2") == "host.1"


def test_messages_that_still_wait_keep_their_chunks(archive_db: Connection) -> None:
    """Leases of queued chunks are prolonged while there are as many messages; not when one has none."""
    ledger.register(archive_db, make_images(8), chunk_size=4)
    ledger.lease(archive_db, "tiny", "backfill", window=10, seconds=60)

    expire(archive_db)
    sweeping.prolong_queued(archive_db, "tiny", "backfill", waiting=2, seconds=60)
    assert sweeping.sweep(archive_db) == sweeping.Swept()

    expire(archive_db)
    sweeping.prolong_queued(archive_db, "tiny", "backfill", waiting=1, seconds=60)
    assert sweeping.sweep(archive_db) == sweeping.Swept(expired=2)


def test_finished_chunks_are_never_read(archive_db: Connection) -> None:
    """What is left is found by indexes of what is left, however many chunks an old archive has finished."""
    archive_db.execute("set enable_seqscan = off")
    plan = archive_db.execute(
        "explain select count(*) from unfinished_chunks where encoder = 'tiny'"
    ).fetchall()
    text = "\n".join(str(line) for (line,) in plan)

    assert "chunks_pending" in text
    assert "chunks_leased" in text
    assert "Seq Scan" not in text


@pytest.mark.parametrize("question", [books.count_books, books.list_failures, audit])
def test_an_unknown_encoder_is_named(
    archive_db: Connection, question: Callable[[Connection, str], object]
) -> None:
    """A misspelt encoder is an error that says which there are, never an empty answer."""
    with pytest.raises(UnknownEncoderError, match="it has: tiny"):
        question(archive_db, "tinny")


@pytest.mark.parametrize(
    "change",
    [
        "state = 'odd'",
        "state = 'queued'",
        "state = 'running', lease = gen_random_uuid(), lease_until = now()",
        "state = 'done'",
        "lease = gen_random_uuid(), lease_until = now()",
        "ids = '{}'",
        "lo = hi + 1",
        "lane = 'other'",
    ],
)
def test_the_checks_refuse_impossible_states(archive_db: Connection, change: str) -> None:
    """Postgres itself refuses a chunk that the diagram does not know."""
    ledger.register(archive_db, make_images(2))
    with pytest.raises(psycopg.errors.CheckViolation):
        archive_db.execute(f"update chunks set {change}".encode())


def test_a_vector_must_have_unit_length(archive_db: Connection) -> None:
    """A vector of another length is refused by the table, whoever writes it."""
    ledger.register(archive_db, make_images(1))
    with pytest.raises(psycopg.errors.CheckViolation):
        archive_db.execute(
            "insert into vectors_tiny (image_id, revision, checksum, code, v)"
            " select id, 1, decode(repeat('00', 32), 'hex'), repeat('0', 16)::bit(16),"
            " array_fill(0.5, array[16])::halfvec from images"
        )


def test_the_reasons_in_the_database_are_those_of_the_code(connection: Connection) -> None:
    """One fixed list: the enum and the table say the same."""
    rows = connection.execute("select code, transient, meaning from reasons order by code").fetchall()
    assert rows == sorted((str(r), r.transient, r.meaning) for r in Reason)
