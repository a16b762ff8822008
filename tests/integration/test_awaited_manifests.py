"""Bags whose manifests appear later, change, lose pages or never come, on a real ledger and a real web server."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lookalike import archive, awaited, ledger
from lookalike.awaited import AwaitedManifest
from lookalike.database import Connection
from lookalike.images import Image
from lookalike.settings import Settings
from orchestrator.events.manifests import SOURCE, read_due
from tests.conftest import embedded_settings
from tests.factories import TINY
from tests.servers import Lookalike, http_server

Json = dict[str, Any]
BEGIN = datetime.now(UTC) - timedelta(hours=1)


class Web:
    """A server of manifests, by identifier."""

    def __init__(self, files: dict[str, bytes], address: str) -> None:
        self._files = files
        self.address = address

    def url(self, identifier: str) -> str:
        return f"{self.address}/{identifier}"

    def publish(self, identifier: str, pages: int, first: int = 1, hidden: int = 0) -> None:
        """A manifest of so many pages that are seen, then some that are not."""
        canvases = [self._canvas(identifier, number, True) for number in range(first, first + pages)]
        canvases += [self._canvas(identifier, first + pages + number, False) for number in range(hidden)]
        manifest = {"id": self.url(identifier), "type": "Manifest", "items": canvases}
        self._files[f"/{identifier}"] = json.dumps(manifest).encode()

    def publish_text(self, identifier: str, text: str) -> None:
        self._files[f"/{identifier}"] = text.encode()

    def publish_collection(self, identifier: str, members: list[str]) -> None:
        items = [{"id": self.url(member), "type": "Manifest"} for member in members]
        collection = {"id": self.url(identifier), "type": "Collection", "items": items}
        self._files[f"/{identifier}"] = json.dumps(collection).encode()

    def _canvas(self, identifier: str, number: int, seen: bool) -> Json:
        name = f"{identifier}_{number:04}.jp2"
        service = {"id": f"https://iiif.wellcomecollection.org/image/{name}", "type": "ImageService3"}
        body = {"id": f"{service['id']}/full/max/0/default.jpg", "type": "Image", "service": [service]}
        painting = {"type": "Annotation", "motivation": "painting", "body": body}
        page = [{"type": "AnnotationPage", "items": [painting]}] if seen else []
        return {"id": f"https://h.org/canvases/{name}", "type": "Canvas", "items": page}


@pytest.fixture
def web() -> Iterator[Web]:
    files: dict[str, bytes] = {}
    with http_server(files) as address:
        yield Web(files, address)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return embedded_settings(tmp_path).model_copy(update={"connect_timeout": 2, "fetch_timeout": 5})


@pytest.fixture
def archive_db(connection: Connection) -> Connection:
    archive.add_encoder(connection, TINY, chunk_size=4)
    return connection


def promise(
    connection: Connection, web: Web, version: str | None = "v1", minutes: int = 0, name: str = "b1"
) -> None:
    as_of = (BEGIN + timedelta(minutes=minutes)).isoformat()
    awaited.await_manifests(connection, [AwaitedManifest(web.url(name), name, version, as_of)])


def make_due(connection: Connection) -> None:
    connection.execute("update awaited_manifests set not_before = now()")


def images(connection: Connection) -> list[tuple[object, ...]]:
    return connection.execute("select key, work, content, source from images order by key").fetchall()


def keys(connection: Connection) -> list[object]:
    return [row[0] for row in images(connection)]


def row(connection: Connection) -> tuple[object, ...] | None:
    return connection.execute(
        "select tries, reason, failed_at is not null, round(extract(epoch from not_before - now()))"
        " from awaited_manifests"
    ).fetchone()


def test_manifest_that_appears_later(archive_db: Connection, web: Web, settings: Settings) -> None:
    """A manifest that is not there is asked for after growing pauses; when it comes, its images go ahead of others."""
    promise(archive_db, web)
    assert read_due(settings, archive_db) == 0
    assert row(archive_db) == (1, "missing_manifest", False, 5)
    assert read_due(settings, archive_db) == 0, "it is not due yet"
    for tries, pause in [(2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 300), (8, 300)]:
        make_due(archive_db)
        read_due(settings, archive_db)
        assert row(archive_db) == (tries, "missing_manifest", False, pause)
    web.publish("b1", 2)
    make_due(archive_db)
    assert read_due(settings, archive_db) == 1
    assert row(archive_db) is None
    work = web.url("b1")
    assert images(archive_db) == [(f"b1_000{n}.jp2", work, "v1", SOURCE) for n in (1, 2)]
    assert archive_db.execute("select distinct lane from chunks").fetchall() == [("events",)]


def test_manifest_that_never_appears(archive_db: Connection, web: Web, settings: Settings) -> None:
    """After the hours of the setting it is a failure with a name; `retry`, or a later event, begins anew."""
    promise(archive_db, web)
    archive_db.execute("update awaited_manifests set promised_at = now() - interval '25 hours'")
    read_due(settings, archive_db)
    (missing,) = awaited.list_missing(archive_db)
    assert (missing.address, missing.reason, missing.tries) == (web.url("b1"), "missing_manifest", 1)
    assert "404" in missing.detail
    make_due(archive_db)
    assert read_due(settings, archive_db) == 0
    assert awaited.count_awaited(archive_db) == {"awaited": 0, "failed": 1}
    assert awaited.retry(archive_db) == 1
    assert awaited.count_awaited(archive_db) == {"awaited": 1, "failed": 0}
    web.publish("b1", 1)
    assert read_due(settings, archive_db) == 1


def test_failures_and_retry_of_the_command(
    archive_db: Connection, web: Web, settings: Settings, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    """The command shows manifests that are awaited and that failed, and has them read again."""
    promise(archive_db, web)
    command = Lookalike(tmp_path, database_url, broker_url)
    assert json.loads(command.run("status", "--json").stdout)["manifests"] == {"awaited": 1, "failed": 0}
    archive_db.execute("update awaited_manifests set promised_at = now() - interval '25 hours'")
    read_due(settings, archive_db)
    (shown,) = json.loads(command.run("failures", "--encoder", "tiny", "--json").stdout)["manifests"]
    assert (shown["address"], shown["reason"]) == (web.url("b1"), "missing_manifest")
    assert web.url("b1") in command.run("failures").stdout
    assert json.loads(command.run("retry", "--manifests", "--json").stdout) == {"retried_manifests": 1}
    assert awaited.count_awaited(archive_db) == {"awaited": 1, "failed": 0}


@pytest.mark.parametrize("text", ["<html>soon</html>", "{}", '{"type": "Canvas"}'])
def test_manifest_that_cannot_be_understood(
    archive_db: Connection, web: Web, settings: Settings, text: str
) -> None:
    """It may be repaired, and is read again; in the end its failure says what it was."""
    web.publish_text("b1", text)
    promise(archive_db, web)
    read_due(settings, archive_db)
    assert row(archive_db) == (1, "unreadable_manifest", False, 5)
    archive_db.execute(
        "update awaited_manifests set promised_at = now() - interval '25 hours', not_before = now()"
    )
    read_due(settings, archive_db)
    (missing,) = awaited.list_missing(archive_db)
    assert missing.reason == "unreadable_manifest"


def test_new_version(archive_db: Connection, web: Web, settings: Settings) -> None:
    """A new version of a bag queues its images again, adds its new pages, and takes away those that are gone."""
    web.publish("b1", 3)
    promise(archive_db, web, "v1")
    read_due(settings, archive_db)
    web.publish("b1", 3, first=2)
    promise(archive_db, web, "v2", minutes=1)
    read_due(settings, archive_db)
    assert [(key, content) for key, _, content, _ in images(archive_db)] == [
        (f"b1_000{n}.jp2", "v2") for n in (2, 3, 4)
    ]
    assert archive_db.execute("select key, revision from images order by key").fetchall() == [
        ("b1_0002.jp2", 2),
        ("b1_0003.jp2", 2),
        ("b1_0004.jp2", 1),
    ]


def test_late_twin_of_an_old_event(archive_db: Connection, web: Web, settings: Settings) -> None:
    """The event of an earlier version that comes last changes nothing."""
    web.publish("b1", 2)
    promise(archive_db, web, "v2", minutes=1)
    read_due(settings, archive_db)
    promise(archive_db, web, "v1")
    read_due(settings, archive_db)
    assert {content for _, _, content, _ in images(archive_db)} == {"v2"}
    assert row(archive_db) is None


def test_workflow_does_not_embed_again(archive_db: Connection, web: Web, settings: Settings) -> None:
    """An event that knows no version brings new pages and leaves the others as they are."""
    web.publish("b1", 1)
    promise(archive_db, web, "v1")
    read_due(settings, archive_db)
    web.publish("b1", 2)
    promise(archive_db, web, None, minutes=1)
    read_due(settings, archive_db)
    assert archive_db.execute("select key, revision, content from images order by key").fetchall() == [
        ("b1_0001.jp2", 1, "v1"),
        ("b1_0002.jp2", 1, None),
    ]


@pytest.mark.parametrize("hidden", [0, 2], ids=["only METS left", "access closed"])
@pytest.mark.parametrize("work", [None, "w1"], ids=["own work", "a catalogue's work"])
def test_manifest_without_images(
    archive_db: Connection, web: Web, settings: Settings, hidden: int, work: str | None
) -> None:
    """A manifest that shows nothing any more takes its images away, and leaves others of the work alone."""
    other = Image("V0021056EL", "https://iiif.wellcomecollection.org/image/V0021056EL", "iiif", work=work)
    pages = [
        Image(f"b1_000{n}.jp2", f"https://iiif.wellcomecollection.org/image/b1_000{n}.jp2", "iiif", work=work)
        for n in (1, 2)
    ]
    ledger.register(archive_db, [other, *(pages if work else [])])
    web.publish("b1", 2)
    promise(archive_db, web, "v1")
    read_due(settings, archive_db)
    assert len(keys(archive_db)) == 3
    web.publish("b1", 0, hidden=hidden)
    promise(archive_db, web, "v2", minutes=1)
    assert read_due(settings, archive_db) == 1
    assert keys(archive_db) == ["V0021056EL"]


def test_work_of_a_catalogue_stays(archive_db: Connection, web: Web, settings: Settings) -> None:
    """Images that a catalogue has filed under its work stay there, and their new neighbours join them."""
    ledger.register(
        archive_db,
        [
            Image(
                f"b1_000{n}.jp2",
                f"https://iiif.wellcomecollection.org/image/b1_000{n}.jp2",
                "iiif",
                work="w1",
            )
            for n in (1, 2, 3)
        ],
    )
    web.publish("b1", 3, first=2)
    promise(archive_db, web, "v1")
    read_due(settings, archive_db)
    assert [(key, work) for key, work, _, _ in images(archive_db)] == [
        (f"b1_000{n}.jp2", "w1") for n in (2, 3, 4)
    ]


def test_volume_that_is_not_there_yet(archive_db: Connection, web: Web, settings: Settings) -> None:
    """Of a work of several volumes the present ones are registered, and nothing counts as gone until all are there."""
    address = "https://iiif.wellcomecollection.org/image/b1_1_0001.jp2"
    ledger.register(archive_db, [Image("b1_1_0001.jp2", address, "iiif", work="w1")])
    web.publish("b1_1", 2)
    web.publish("b1_2", 1)
    web.publish_collection("b1", ["b1_1", "b1_2"])
    promise(archive_db, web, "v1")
    assert read_due(settings, archive_db) == 1
    assert len(keys(archive_db)) == 3
    web.publish("b1_1", 1)
    web.publish_collection("b1", ["b1_1", "b1_3"])
    promise(archive_db, web, "v2", minutes=1)
    assert read_due(settings, archive_db) == 0
    assert len(keys(archive_db)) == 3
    web.publish("b1_3", 1)
    make_due(archive_db)
    assert read_due(settings, archive_db) == 1
    assert keys(archive_db) == ["b1_1_0001.jp2", "b1_3_0001.jp2"]


def test_event_that_comes_while_reading(archive_db: Connection, web: Web) -> None:
    """What was read for an earlier event ends no waiting: the later one has it read again."""
    promise(archive_db, web, "v1")
    claimed = awaited.claim_due(archive_db, 60, 24)
    assert claimed is not None
    assert awaited.claim_due(archive_db, 60, 24) is None
    promise(archive_db, web, "v2", minutes=1)
    assert not awaited.settle(archive_db, claimed)
    again = awaited.claim_due(archive_db, 60, 24)
    assert again is not None
    assert (again.version, again.tries) == ("v2", 1)
    assert awaited.settle(archive_db, again)


def test_slow_manifests_do_not_hold_up_others(archive_db: Connection, web: Web, settings: Settings) -> None:
    """A host that is away costs one try, and the next manifest is read."""
    as_of = BEGIN.isoformat()
    away = AwaitedManifest("http://127.0.0.1:9/b0", "b0", "v1", as_of)
    awaited.await_manifests(archive_db, [away])
    web.publish("b1", 1)
    promise(archive_db, web)
    assert read_due(settings, archive_db) == 1
    assert archive_db.execute("select address, tries from awaited_manifests").fetchall() == [
        (away.address, 1)
    ]
