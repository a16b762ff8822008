"""Manifests whose hosts fail while a collection, a catalogue or a snapshot is read: none is lost or forgotten."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lookalike import archive, awaited, books, ledger
from lookalike.database import Connection
from lookalike.errors import SourceError
from lookalike.images import AwaitedManifest, Image, Removal
from lookalike.settings import Settings
from orchestrator import progress
from orchestrator.events.manifests import read_due
from orchestrator.intake import read_in, take_in
from orchestrator.progress import Intake
from orchestrator.sources import source_name
from tests.catalogue_records import location, manifest, serve_list, snapshot, work
from tests.conftest import embedded_settings
from tests.factories import TINY
from tests.servers import ROOT, Lookalike, wait_until
from tests.sites import Site, serving

Json = Any
BUSY = (503, {}, b"")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        yield site


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    quick = {"connect_timeout": 2, "fetch_timeout": 5, "tries": 2, "retry_seconds": 0.01}
    return embedded_settings(tmp_path).model_copy(update=quick)


@pytest.fixture
def archive_db(connection: Connection) -> Connection:
    archive.add_encoder(connection, TINY, chunk_size=4)
    return connection


def read(connection: Connection, spec: str, settings: Settings) -> Intake:
    intake = Intake()
    read_in(connection, spec, settings, intake)
    return intake


def make_due(connection: Connection) -> None:
    connection.execute("update awaited_manifests set not_before = now()")


def images(connection: Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "select substring(key from '[^/]+$'), work, source, as_of from images order by 1"
    ).fetchall()


def addresses(connection: Connection) -> list[str]:
    rows = connection.execute("select address from awaited_manifests order by address").fetchall()
    return [str(row[0]).rpartition("/")[2] for row in rows]


def sources(site: Site, kind: str) -> str:
    """Books b1 and b2 as a source of a kind."""
    site.pages |= {f"/presentation/v3/{name}": manifest(name, 2) for name in ("b1", "b2")}
    if kind == "collection":
        items = [{"id": f"SITE/presentation/v3/{name}", "type": "Manifest"} for name in ("b1", "b2")]
        site.pages["/top"] = {"id": "SITE/top", "type": "Collection", "items": items}
        return f"{site.url}/top"
    records = [work(f"w{name}", location(name, "iiif-presentation")) for name in ("b1", "b2")]
    if kind == "catalogue":
        serve_list(site, "/catalogue/v2/works", records)
        return f"{site.url}/catalogue/v2/works"
    site.files["/works.json.gz"] = snapshot(site, records)
    return f"{site.url}/works.json.gz"


@pytest.mark.parametrize("kind", ["collection", "catalogue", "snapshot"])
def test_a_manifest_that_fails_for_the_moment(
    archive_db: Connection, site: Site, settings: Settings, kind: str
) -> None:
    """The source is read to its end, nothing is complete before the manifest was read, and its images become what they
    would have been."""
    spec = sources(site, kind)
    there = site.pages["/presentation/v3/b1"]
    site.pages["/presentation/v3/b1"] = BUSY
    intake = read(archive_db, spec, settings)
    assert (intake.registered.new, intake.awaited, intake.refused.total()) == (2, 1, 0)
    assert progress.has_ended(archive_db, source_name(spec))
    assert addresses(archive_db) == ["b1"]
    archive_db.execute("update chunks set state = 'done', done_at = now()")
    archive_db.execute("delete from images")
    assert not books.count_books(archive_db, "tiny").complete
    assert read_due(settings, archive_db) == 0
    site.pages["/presentation/v3/b1"] = there
    make_due(archive_db)
    assert read_due(settings, archive_db) == 1
    assert addresses(archive_db) == []
    title = "wb1" if kind != "collection" else f"{site.url}/presentation/v3/b1"
    assert images(archive_db) == [(f"b1_{n}.jp2", title, source_name(spec), None) for n in (1, 2)]
    assert archive_db.execute("select outside from images").fetchall() == [(False,)] * 2
    assert read(archive_db, spec, settings).registered == ledger.Registered(new=2, unchanged=2)


def test_a_manifest_that_never_comes(archive_db: Connection, site: Site, settings: Settings) -> None:
    """After pauses that double it is a failure with a name, which says how its host failed; the rest is complete."""
    spec = sources(site, "collection")
    site.pages["/presentation/v3/b1"] = BUSY
    read(archive_db, spec, settings)
    (first,) = archive_db.execute("select reason, detail, tries from awaited_manifests").fetchall()
    assert first[0] == "unreachable"
    assert "503" in str(first[1])
    pauses = []
    for _ in range(3):
        make_due(archive_db)
        read_due(settings, archive_db)
        (row,) = archive_db.execute(
            "select round(extract(epoch from not_before - now())) from awaited_manifests"
        ).fetchall()
        pauses.append(row[0])
    assert pauses == [5, 10, 20]
    assert books.count_books(archive_db, "tiny").awaited == 1
    archive_db.execute("update awaited_manifests set promised_at = now() - interval '25 hours'")
    make_due(archive_db)
    read_due(settings, archive_db)
    (missing,) = awaited.list_missing(archive_db)
    assert (missing.reason, missing.tries) == ("unreachable", 4)
    assert books.count_books(archive_db, "tiny").awaited == 0


def test_a_manifest_of_a_catalogue_takes_nothing_away(
    archive_db: Connection, site: Site, settings: Settings
) -> None:
    """It is a part of its work: the images of the other part stay."""
    site.pages |= {f"/presentation/v3/{name}": manifest(name, 1) for name in ("b1", "b2")}
    parts = [location(name, "iiif-presentation") for name in ("b1", "b2")]
    serve_list(site, "/catalogue/v2/works", [work("w", *parts)])
    there, site.pages["/presentation/v3/b2"] = site.pages["/presentation/v3/b2"], BUSY
    read(archive_db, f"{site.url}/catalogue/v2/works", settings)
    site.pages["/presentation/v3/b2"] = there
    assert read_due(settings, archive_db) == 1
    assert [row[:2] for row in images(archive_db)] == [("b1_1.jp2", "w"), ("b2_1.jp2", "w")]


def test_an_event_and_a_catalogue_name_one_manifest(
    archive_db: Connection, site: Site, settings: Settings
) -> None:
    """What the catalogue says is added, the event's version counts, and only pages of this manifest are gone."""
    address, as_of = f"{site.url}/presentation/v3/b1", "2026-01-01T00:00:00+00:00"
    pages = [f"b1_{n}.jp2" for n in (1, 3)]
    ledger.register(
        archive_db, [Image(key, f"http://h/{key}", work="w", as_of=None) for key in [*pages, "b9_1.jp2"]]
    )
    event = AwaitedManifest(address, "b1", "v1", as_of)
    named = AwaitedManifest(
        address, address, None, None, whole=False, described={"work": "w", "title": "A book"}, source="top"
    )
    for order in ([event, named], [named, event]):
        archive_db.execute("delete from awaited_manifests")
        awaited.await_manifests(archive_db, order[:1])
        awaited.await_manifests(archive_db, order[1:])
        (row,) = archive_db.execute(
            "select identifier, version, as_of is not null, outside, whole, described from awaited_manifests"
        ).fetchall()
        assert row == ("b1", "v1", True, False, True, {"work": "w", "title": "A book"})
    served = json.dumps(manifest("b1", 2)).replace("SITE/image", "https://iiif.wellcomecollection.org/image")
    site.pages["/presentation/v3/b1"] = json.loads(served)
    assert read_due(settings, archive_db) == 1
    kept = {key for key, *_ in images(archive_db)}
    assert kept == {"b1_1.jp2", "b1_2.jp2", "b9_1.jp2"}


def test_what_a_stranger_names_changes_no_event(archive_db: Connection) -> None:
    """A stream that names an awaited manifest neither makes it its own nor says whence it moved."""
    event = AwaitedManifest("http://h/b1", "b1", "v1", "2026-01-01T00:00:00+00:00")
    later = AwaitedManifest(
        "http://h/b1", "x", None, "2026-02-01T00:00:00+00:00", True, moved_from="http://m/b2", source="evil"
    )
    awaited.await_manifests(archive_db, [event])
    awaited.await_manifests(archive_db, [later])
    (row,) = archive_db.execute(
        "select version, outside, moved_from, source from awaited_manifests"
    ).fetchall()
    assert row == ("v1", False, None, None)


def test_a_collection_within_is_awaited_and_read_in_parts(
    archive_db: Connection, site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images are registered batch by batch, and what fails in it is awaited in its turn."""
    monkeypatch.setattr("orchestrator.events.manifests.BATCH", 3)
    names = [f"b{number}" for number in range(4)]
    site.pages = {f"/presentation/v3/{name}": manifest(name, 2) for name in names}
    members = [{"id": f"SITE/presentation/v3/{name}", "type": "Manifest"} for name in names]
    inner = {"id": "SITE/in", "type": "Collection", "items": members[:2], "next": "p2"}
    site.pages |= {
        "/top": {"id": "SITE/top", "type": "Collection", "items": ["SITE/in"]},
        "/in": inner,
        "/p2": BUSY,
    }
    read(archive_db, f"{site.url}/top", settings)
    assert addresses(archive_db) == ["in"]
    assert len(images(archive_db)) == 4
    site.pages["/p2"] = {"type": "CollectionPage", "items": members[2:]}
    there, site.pages["/presentation/v3/b3"] = site.pages["/presentation/v3/b3"], BUSY
    assert read_due(settings, archive_db) == 1
    assert addresses(archive_db) == ["b3"]
    assert len(images(archive_db)) == 6
    site.pages["/presentation/v3/b3"] = there
    make_due(archive_db)
    assert read_due(settings, archive_db) == 1
    assert {row[2] for row in images(archive_db)} == {f"{site.url}/top"}
    assert len(images(archive_db)) == 8


def test_an_outage_ends_the_source_and_loses_nothing(
    archive_db: Connection, site: Site, settings: Settings
) -> None:
    """When everything fails the source breaks off instead of awaiting all of it, and goes on where it was."""
    names = [f"b{number:02}" for number in range(30)]
    site.pages = {f"/presentation/v3/{name}": BUSY for name in names}
    members = [{"id": f"SITE/presentation/v3/{name}", "type": "Manifest"} for name in names]
    site.pages["/top"] = {"id": "SITE/top", "type": "Collection", "items": members}
    with pytest.raises(SourceError, match="20 documents in a row"):
        read(archive_db, f"{site.url}/top", settings)
    assert addresses(archive_db) == names[:19]
    (row,) = progress.list_sources(archive_db)
    assert row["ended_at"] is None
    assert "20 documents in a row" in row["error"]
    site.pages |= {f"/presentation/v3/{name}": manifest(name, 1) for name in names}
    site.asked.clear()
    assert read(archive_db, f"{site.url}/top", settings).registered.new == 11
    assert f"/presentation/v3/{names[0]}" not in site.asked
    assert read_due(settings, archive_db) == 19
    assert len(images(archive_db)) == 30


def test_a_reader_that_is_killed_is_followed_by_another(
    archive_db: Connection, site: Site, settings: Settings, database_url: str
) -> None:
    """A process that dies over a manifest has kept it for a few minutes, and not a moment longer than it lives."""
    sources(site, "collection")
    awaited.await_manifests(
        archive_db, [AwaitedManifest(f"{site.url}/presentation/v3/b1", "b1", None, None, whole=False)]
    )
    code = (
        "import sys, time; from lookalike import awaited; from lookalike.database import connect\n"
        "c = connect(sys.argv[1], application_name='killed'); assert awaited.claim_due(c, 2, 24)\n"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, database_url], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert read_due(settings, archive_db) == 0
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: read_due(settings, archive_db) == 1, 10, "its turn")
    assert len(images(archive_db)) == 2


@pytest.mark.slow
def test_commands_say_what_is_awaited(
    archive_db: Connection, site: Site, settings: Settings, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    """`add` says it, `status` and `audit` call nothing complete, `failures` names it, `add --dry-run` calls it
    unreachable."""
    spec = sources(site, "collection")
    site.pages["/presentation/v3/b1"] = BUSY
    quick = {"LOOKALIKE_TRIES": "1", "LOOKALIKE_ENCODER": "efficientnet-lite0"}
    command = Lookalike(tmp_path, database_url, broker_url, **quick)
    dry = json.loads(command.run("add", "--dry-run", "--json", spec).stdout)
    assert [each["reason"] for each in dry["refused"]] == ["unreachable"]
    assert "1 manifests awaited" in command.run("add", spec).stdout
    archive_db.execute("update chunks set state = 'done', done_at = now()")
    archive_db.execute("delete from images")
    status = json.loads(command.run("status", "--json").stdout)
    assert status["manifests"] == {"awaited": 1, "failed": 0}
    assert [(one["awaited"], one["complete"]) for one in status["encoders"].values()] == [(1, False)] * 2
    listed = json.loads(command.run("failures", "--json", "--encoder", "tiny").stdout)
    assert listed["manifests"] == []
    assert [(one["address"], one["reason"]) for one in listed["awaited"]] == [
        (f"{site.url}/presentation/v3/b1", "unreachable")
    ]
    audited = json.loads(command.run("audit", "--json").stdout)
    assert audited["balanced"]
    assert audited["manifests"] == {"awaited": 1, "failed": 0}
    assert [one["complete"] for one in audited["encoders"].values()] == [False, False]
    assert "manifests awaited" in command.run("audit").stdout


def test_a_manifest_that_fails_for_ever_does_not_wait_for_ever(
    archive_db: Connection, site: Site, settings: Settings
) -> None:
    """A source that is read again does not begin its waiting anew: it is looked at once more, and stays a failure."""
    spec = sources(site, "collection")
    site.pages["/presentation/v3/b1"] = BUSY
    read(archive_db, spec, settings)
    archive_db.execute("update awaited_manifests set promised_at = now() - interval '25 hours'")
    for _ in range(2):
        read(archive_db, spec, settings)
        assert books.count_books(archive_db, "tiny").awaited == 1
        assert read_due(settings, archive_db) == 0
        assert [each.reason for each in awaited.list_missing(archive_db)] == ["unreachable"]
        assert books.count_books(archive_db, "tiny").awaited == 0


@pytest.mark.parametrize("kind", ["Manifest", "Collection"])
def test_a_manifest_that_comes_back_empty_takes_nothing_away(
    archive_db: Connection, site: Site, settings: Settings, kind: str
) -> None:
    """A host that comes back by halves does not empty its works: a stream takes no such manifest for all there is."""
    address = f"{site.url}/presentation/v3/b1"
    ledger.register(archive_db, [Image("b1_1.jp2", "http://h/b1_1.jp2", work=address, source="stream")])
    promised = AwaitedManifest(address, address, None, "2026-01-01T00:00:00+00:00", source="stream")
    awaited.await_manifests(archive_db, [promised])
    site.pages["/presentation/v3/b1"] = {"id": "SITE/presentation/v3/b1", "type": kind, "items": []}
    assert read_due(settings, archive_db) == 0
    assert [key for key, *_ in images(archive_db)] == ["b1_1.jp2"]
    assert addresses(archive_db) == ["b1"]


@pytest.mark.parametrize(
    ("said", "left"), [("2026-01-02", []), ("2025-12-31", ["b1"])], ids=["later", "before"]
)
def test_what_a_stream_has_ended_is_not_waited_for(
    archive_db: Connection, said: str, left: list[str]
) -> None:
    """A manifest that its stream says later to be gone, or that was read since, keeps nothing from being complete."""
    address = "http://h/b1"
    promised = AwaitedManifest(address, address, None, "2026-01-01T00:00:00+00:00")
    take_in(archive_db, "stream", [promised], 4, Intake())
    gone = Removal(work=address, as_of=f"{said}T00:00:00+00:00", own_only=True)
    take_in(archive_db, "another", [gone], 4, Intake())
    assert addresses(archive_db) == ["b1"]
    take_in(archive_db, "stream", [gone], 4, Intake())
    assert addresses(archive_db) == left


@pytest.mark.parametrize("name", ["".join(map(str, range(900))), "a\0b"], ids=["too long", "not text"])
def test_an_address_that_cannot_be_kept_ends_no_source(
    archive_db: Connection, site: Site, settings: Settings, name: str
) -> None:
    """A member whose host fails and whose address no table takes is a refusal; what follows it is read."""
    spec = sources(site, "collection")
    site.pages[f"/{name}".replace("\0", "%00")] = BUSY
    site.pages["/top"]["items"].insert(0, {"id": f"SITE/{name}", "type": "Manifest"})
    intake = read(archive_db, spec, settings)
    assert (intake.registered.new, intake.refused, intake.awaited) == (4, {"bad_address": 1}, 0)
    assert "503" in intake.examples[0].detail
