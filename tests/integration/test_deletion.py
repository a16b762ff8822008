"""Deletions: out of every search at once, remembered against late announcements, and safe beside work under way."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lookalike import archive, books, deletion, duplicates, ledger, search, unwanted
from lookalike.audit import audit
from lookalike.database import Connection, connect
from lookalike.errors import UnknownImageError
from lookalike.images import Image, Removal
from lookalike.ledger import Failure, Registered, RetryPolicy
from lookalike.reasons import Reason
from orchestrator.intake import take_in
from orchestrator.progress import Intake
from tests.factories import TINY, make_images, make_vectors
from tests.servers import wait_until

POLICY = RetryPolicy(3, 0.01)
EARLY, NOON, LATE = (f"2026-11-25T{hour}:00:00+00:00" for hour in ("08", "12", "18"))


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """Six images in three works, embedded, and one more that failed."""
    archive.add_encoder(connection, TINY, chunk_size=4)
    ledger.register(connection, make_images(6))
    finish_all(connection)
    ledger.register(connection, [Image("broken", "file:///broken", work="image-0")])
    claim = ledger.lease(connection, "tiny", "backfill", 10, 60)[0]
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    failure = Failure(chunk.images[0], Reason.NOT_FOUND)
    ledger.finish(connection, chunk, make_vectors([], connection), [failure], POLICY)
    return connection


def started(connection: Connection, lane: ledger.Lane = "backfill") -> list[ledger.Chunk]:
    chunks = [ledger.start(connection, c, "w", 60) for c in ledger.lease(connection, "tiny", lane, 100, 60)]
    return [chunk for chunk in chunks if chunk is not None]


def finish_all(connection: Connection) -> None:
    for lane in ledger.LANES[:3]:
        for chunk in started(connection, lane):
            ledger.finish(connection, chunk, make_vectors(chunk.images, connection), [], POLICY)


def keys(connection: Connection) -> list[str]:
    return [str(key) for (key,) in connection.execute("select key from images order by key")]


def test_a_deleted_image_is_found_no_more(archived: Connection) -> None:
    """Its row and vector are gone, no search shows it, and the books balance with one image less."""
    assert search.similar(archived, "image/00000", 10)[0].image != ""

    assert deletion.remove(archived, Removal(key="image/00001")) == 1

    assert "image/00001" not in [n.image for n in search.similar(archived, "image/00000", 10)]
    with pytest.raises(UnknownImageError):
        search.similar(archived, "image/00001")
    assert books.count_books(archived, "tiny") == books.Books(6, 5, 1, 0, 0)
    assert audit(archived, "tiny").balanced


def test_a_work_is_deleted_but_for_what_stays(archived: Connection) -> None:
    """A removal of a work takes all of its images, failed ones too, and leaves those that are kept."""
    assert deletion.remove(archived, Removal(work="image-0", kept=frozenset({"image/00001"}))) == 2

    assert keys(archived) == [f"image/0000{n}" for n in range(1, 6)]
    assert books.count_books(archived, "tiny") == books.Books(5, 5, 0, 0, 0)


STREAM = "https://iiif.museum.example/changes"


@pytest.mark.parametrize(
    ("source", "work", "by", "gone"),
    [
        (STREAM, "https://elsewhere.example/m1", STREAM, True),
        ("https://IIIF.museum.example/top", "w1", STREAM, True),
        ("https://iiif.museum.example/top (0a1b2c3d)", "w1", STREAM, True),
        ("top.json", "https://user@iiif.museum.example/m1", STREAM, True),
        (None, "https://iiif.museum.example/m1", STREAM, True),
        ("https://archive.example/top", "https://archive.example/m1", STREAM, False),
        (
            "https://iiif.museum.example.evil/top",
            "https://iiif.museum.example@evil.example/m1",
            STREAM,
            False,
        ),
        ("https://iiif.museum.example:8443/top", "w1", STREAM, False),
        ("https://archive.example/?https://iiif.museum.example/", "w1", STREAM, False),
        (None, "w1", STREAM, False),
        ("top.json", "w1", "changes.json", False),
        ("changes.json", "w1", "changes.json", True),
    ],
)
def test_a_stream_deletes_only_what_is_its_own(
    archived: Connection, source: str | None, work: str, by: str, gone: bool
) -> None:
    """That is what it announced first, and what its host has: the manifest, or the source that announced it."""
    ledger.register(archived, [Image("m1", "http://h/m1", work=work)], source=source)
    removal = Removal(work=work, own_only=True)
    assert deletion.remove(archived, removal, by) == int(gone)
    assert deletion.count_foreign(archived, removal, by) == int(not gone)
    assert ("m1" in keys(archived)) is not gone
    assert deletion.remove(archived, Removal(work=work), by) == int(not gone), "its own host says so"


def test_a_foreign_deletion_is_refused_by_name(archived: Connection) -> None:
    """Who says that somebody else's images are gone is counted, with how many stay."""
    work = "https://archive.example/m1"
    ledger.register(archived, [Image("m1", "http://h/m1", work=work)], source="https://archive.example/top")
    intake = Intake()
    take_in(
        archived, STREAM, [Removal(work=work, own_only=True), Removal(work="none", own_only=True)], 4, intake
    )
    assert (intake.deleted, intake.refused) == (0, {"foreign_deletion": 1})
    assert [(each.where, each.detail[:14]) for each in intake.examples] == [(work, "1 images stay:")]


@pytest.mark.parametrize("order", [1, -1])
def test_deletions_are_forgotten_in_one_order(archived: Connection, database_url: str, order: int) -> None:
    """Two sessions that bring back the same images in opposite orders wait for each other, and never in a circle."""
    names = [f"gone-{number:02}" for number in range(20)]
    for name in names:
        deletion.remove(archived, Removal(key=name, as_of=EARLY))
    back = [Image(name, f"http://h/{name}", as_of=LATE) for name in names[::order]]
    with ThreadPoolExecutor() as pool, connect(database_url, application_name="holds the first") as first:
        with first.transaction():
            first.execute("select from deleted_images where key = %s for update", [names[0]])
            waiting = pool.submit(register_once, database_url, back)
            waits = "select exists (select from pg_locks where not granted)"
            wait_until(lambda: archived.execute(waits).fetchone() == (True,), 10, "it to wait for the first")
            free = (
                "select count(*) from (select from deleted_images where key <> %s for update skip locked) f"
            )
            assert archived.execute(free, [names[0]]).fetchone() == (len(names) - 1,), "it holds a later one"
            first.execute("delete from deleted_images where key = any(%s)", [names])
        assert waiting.result(10).new == len(names)


def test_two_sessions_forget_the_same_deletions_at_once(archived: Connection, database_url: str) -> None:
    """Again and again, in opposite orders: nobody is ended as a victim of a deadlock."""
    names = [f"gone-{number:03}" for number in range(100)]
    for turn in range(5):
        later = f"2026-11-26T{turn:02}:00:00+00:00"
        archived.execute(
            "insert into deleted_images (key, as_of) select unnest(%s::text[]), %s on conflict do nothing",
            [names, EARLY],
        )
        images = [Image(name, f"http://h/{name}/{turn}", as_of=later) for name in names]
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda each: register_once(database_url, each), [images, images[::-1]]))
        assert sum(each.new for each in done) == (len(names) if turn == 0 else 0)
        assert archived.execute("select count(*) from deleted_images").fetchone() == (0,)


def register_once(database_url: str, images: list[Image]) -> Registered:
    with connect(database_url, application_name="registers") as connection:
        return ledger.register(connection, images)


def test_what_cataloguing_knows_of_an_image_goes_with_it(archived: Connection) -> None:
    """Marked pairs, groups of near-duplicates, unwanted examples: all let go of it, and of nothing else."""
    for other in (1, 2, 3):
        duplicates.mark(archived, "image/00000", f"image/0000{other}", True, "me")
    duplicates.mark(archived, "image/00002", "image/00003", True, "me")
    unwanted.learn(archived, "charts", ["image/00000", "image/00004"], by="me", encoder="tiny")

    assert deletion.remove(archived, Removal(key="image/00000")) == 1

    rows = archived.execute('select array_agg(image order by image) from duplicates group by "group"')
    assert rows.fetchall() == [(["image/00002", "image/00003"],)]
    found = archived.execute("select image from unwanted where example").fetchall()
    assert found == [("image/00004",)]


@pytest.mark.parametrize(
    ("deleted_at", "announced_at", "back"),
    [(NOON, EARLY, False), (NOON, NOON, False), (NOON, LATE, True), (NOON, None, False)],
    ids=["a late twin", "the same moment", "uploaded again", "a source that cannot tell"],
)
def test_only_what_was_seen_later_comes_back(
    archived: Connection, deleted_at: str, announced_at: str | None, back: bool
) -> None:
    """A deletion outlives every announcement from before it; one from after it makes a new image, to be embedded."""
    deletion.remove(archived, Removal(key="image/00000", as_of=deleted_at))

    again = replace(make_images(1)[0], as_of=announced_at)
    counts = ledger.register(archived, [again], "events")

    assert counts == (Registered(new=1) if back else Registered(gone=1))
    assert ("image/00000" in keys(archived)) == back
    assert books.count_books(archived, "tiny").open == int(back)


def test_a_deletion_that_overtakes_its_announcement_holds(archived: Connection) -> None:
    """An image that is said to be gone before it was ever announced is remembered."""
    assert deletion.remove(archived, Removal(key="new", as_of=NOON)) == 0

    assert ledger.register(archived, [Image("new", "file:///n", as_of=EARLY)]) == Registered(gone=1)
    assert ledger.register(archived, [Image("new", "file:///n", as_of=LATE)]) == Registered(new=1)


def test_a_late_deletion_does_not_take_what_was_uploaded_since(archived: Connection) -> None:
    """Created, removed, created again, in the wrong order: the image of the last upload stays."""
    ledger.register(archived, [replace(make_images(1)[0], as_of=LATE)], "events")

    assert deletion.remove(archived, Removal(key="image/00000", as_of=NOON)) == 0
    assert "image/00000" in keys(archived)
    # Nothing is remembered either: the image is there.
    assert archived.execute("select count(*) from deleted_images").fetchone() == (0,)


def test_new_content_comes_back_where_a_source_cannot_tell_the_time(archived: Connection) -> None:
    """A table that names a new checksum announces a new image; the same checksum is the old one."""
    ledger.register(archived, [Image("a", "file:///a", content="1")])
    deletion.remove(archived, Removal(key="a"))

    assert ledger.register(archived, [Image("a", "file:///a", content="1")]) == Registered(gone=1)
    assert ledger.register(archived, [Image("a", "file:///a", content="2")]) == Registered(new=1)


def test_an_object_that_gave_way_to_another_may_go(archived: Connection) -> None:
    """Two objects may share a key (versions of a scan): the removal of the one is not that of the other."""
    ledger.register(archived, [Image("page", "s3://bucket/v2/page", as_of=NOON)], "events")

    assert deletion.remove(archived, Removal(key="page", url="s3://bucket/v1/page", as_of=LATE)) == 0
    assert "page" in keys(archived)

    deletion.remove(archived, Removal(key="next", url="s3://bucket/v1/next", as_of=LATE))
    late = Image("next", "s3://bucket/v2/next", as_of=NOON)
    assert ledger.register(archived, [late], "events") == Registered(new=1)


def test_what_was_deleted_by_hand_stays_so_until_it_is_restored(archived: Connection) -> None:
    """No source brings it back, whatever it says; `restore` does, with what was known of it."""
    deletion.remove(archived, Removal(key="image/00000"), by_hand=True)
    newer = replace(make_images(1, content="new")[0], as_of="2100-01-01T00:00:00Z")
    assert ledger.register(archived, [newer], "events") == Registered(gone=1)

    restored = deletion.restore(archived, ["image/00000", "never there"], 4)

    assert restored == deletion.Restored(1, 1)
    work = archived.execute("select work, url from images where key = 'image/00000'").fetchone()
    assert work == ("image-0", "http://localhost/image/00000.jpg")
    finish_all(archived)
    assert books.count_books(archived, "tiny").complete


@pytest.mark.parametrize("outcome", ["vector", "failure", "retry"])
def test_a_chunk_under_way_does_not_bring_a_deleted_image_back(archived: Connection, outcome: str) -> None:
    """Deleted while a worker has it: whatever became of it is dropped, its neighbours are done."""
    ledger.register(archived, make_images(3, "late"))
    (chunk,) = started(archived)
    deletion.remove(archived, Removal(key="late/00001"))

    good = [i for i in chunk.images if outcome == "vector" or i.key != "late/00001"]
    reason = Reason.TIMEOUT if outcome == "retry" else Reason.CORRUPT
    bad = [Failure(i, reason) for i in chunk.images if i not in good]
    ledger.finish(archived, chunk, make_vectors(good, archived), bad, POLICY)
    archived.execute("update chunks set not_before = now()")
    finish_all(archived)

    assert books.count_books(archived, "tiny") == books.Books(9, 8, 1, 0, 0)
    assert audit(archived, "tiny").balanced


def test_a_deletion_waits_for_what_is_being_committed(archived: Connection, database_url: str) -> None:
    """A registration of the same key that has begun is waited for, and its image deleted."""
    with connect(database_url, application_name="test") as other:
        with archived.transaction():
            ledger.register(archived, [Image("racing", "file:///r", as_of=EARLY)])
            thread = threading.Thread(
                target=deletion.remove, args=(other, Removal(key="racing", as_of=NOON)), daemon=True
            )
            thread.start()
            thread.join(0.5)
            assert thread.is_alive()
        thread.join(10)
        assert not thread.is_alive()

    assert "racing" not in keys(archived)


def test_clusters_let_go_of_it(archived: Connection) -> None:
    """No cluster has it as a member or shows it, and a work without images is in none."""
    archived.execute(
        "insert into analyses (kind, encoder, settings, standing) values ('clusters', 'tiny', '{}', true)"
    )
    (number,) = archived.execute("select id from analyses").fetchone() or (0,)
    archived.execute(
        "insert into clusterings (analysis, encoder, of, method, seed, sampled)"
        " values (%s, 'tiny', 'images', 'kmeans', 1, 1)",
        [number],
    )
    archived.execute(
        "insert into cluster_centres (analysis, number, centre, exemplars) values (%s, 0, '[1]', %s)",
        [number, ["image/00001", "image/00000", "image/00002"]],
    )

    deletion.remove(archived, Removal(key="image/00000"))

    assert archived.execute("select exemplars from cluster_centres").fetchone() == (
        ["image/00001", "image/00002"],
    )


def test_an_older_announcement_changes_nothing(archived: Connection) -> None:
    """Events in the wrong order: the content of the later one stands, and is embedded once."""
    ledger.register(archived, [Image("a", "file:///a", content="2", as_of=LATE)], "events")

    counts = ledger.register(archived, [Image("a", "file:///a", content="1", as_of=EARLY)], "events")

    assert counts == Registered(unchanged=1)
    assert archived.execute("select content, revision from images where key = 'a'").fetchone() == ("2", 1)


def test_an_event_that_knows_the_content_has_it_embedded_again(archived: Connection) -> None:
    """An image whose content nobody knew is embedded again when an event names it; a listing only notes it."""
    image = replace(make_images(1)[0], content="etag")
    ledger.register(archived, [image], "backfill")
    assert books.count_books(archived, "tiny").open == 0

    second = replace(make_images(2)[1], content="etag")
    ledger.register(archived, [second], "events")
    assert books.count_books(archived, "tiny").open == 1


def test_the_old_vector_serves_until_the_new_one_is_there(archived: Connection) -> None:
    """An image with new content stays searchable while it is open."""
    ledger.register(archived, [replace(make_images(1)[0], content="1")])
    ledger.register(archived, [replace(make_images(1)[0], content="2")], "events")

    assert books.count_books(archived, "tiny").open == 1
    assert "image/00000" in [n.image for n in search.similar(archived, "image/00001", 10)]
    finish_all(archived)
    assert books.count_books(archived, "tiny").open == 0
