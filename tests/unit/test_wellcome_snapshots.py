"""Snapshots of Wellcome's catalogue as sources: larger than memory, downloaded, stopped, killed, damaged."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.errors import SourceError
from lookalike.images import Checkpoint, Position
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import open_source, read_source
from tests.catalogue_records import (
    catalogue_settings,
    checkpoints,
    image,
    keys,
    lines,
    location,
    manifest,
    refusals,
    snapshot,
    work,
)
from tests.sites import Site, serving

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "wellcome"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        yield site


@pytest.fixture
def settings(site: Site, tmp_path: Path) -> Settings:
    """Settings whose snapshots lie on the site of the test, and whose downloads in its folder."""
    return catalogue_settings(site, tmp_path / "home")


# ------------------------------------------------------------------------------------------------------- snapshots


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data")
def test_the_shared_snapshots(settings: Settings, site: Site) -> None:
    """Wellcome's own test documents in the snapshot's shape: every image, every open digital location."""
    found = list(open_source(str(SHARED / "images.json.gz"), settings))
    assert (len(keys(found)), refusals(found)) == (54, [])
    records = [
        json.loads(line) for line in gzip.decompress((SHARED / "works.json.gz").read_bytes()).splitlines()
    ]
    places = [
        place
        for record in records
        for item in record.get("items", [])
        for place in item["locations"]
        if place["type"] == "DigitalLocation" and place["locationType"]["id"] == "iiif-image"
    ]
    statuses = [{each["status"]["id"] for each in place["accessConditions"]} for place in places]
    opened = [place["url"] for place, status in zip(places, statuses, strict=True) if status <= {"open"}]
    works = gzip.compress(
        "".join(
            json.dumps(record) + "\n"
            for record in records
            if "iiif-presentation" not in json.dumps(record.get("items"))
        ).encode()
    )
    site.files["/works.json.gz"] = works
    found = list(open_source(f"{site.url}/works.json.gz", settings))
    assert len(set(keys(found))) == len({url for url in opened if "VT6" not in url})
    assert {detail for _, reason, detail in refusals(found)} == {
        "restricted", "closed", "open-with-advisory", "licensed-resources"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["works.json.gz", "x.json", "x.jsonl", "x.jsonl.gz", "x.ndjson", "x.JSON"])
def test_snapshots_are_known_by_their_content(tmp_path: Path, name: str) -> None:
    """A file of the catalogue's records is a snapshot whatever its name; tables and manifests stay what they are."""
    site = Site(url="https://h.org")

    def written(text: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return str(path)

    records = [{"id": "g", "type": "Genre", "label": "x"}, work("none"), image("a"), work("w", location("b"))]
    assert keys(list(open_source(written(lines(site, records)), Settings()))) == ["a", "b"]
    assert keys(list(open_source(written(lines(site, [image("a")]).strip()), Settings()))) == ["a"]
    if ".jsonl" in name or "nd" in name:
        table = b'{"url": "https://h.org/image/t.jpg", "title": "x", "type": "Work"}\n'
        assert keys(list(open_source(written(table), Settings()))) == ["t.jpg"]
    else:
        for indent in (None, 1):
            text = json.dumps(manifest("b", 1), indent=indent).replace("SITE", "https://h.org").encode()
            assert keys(list(open_source(written(text), Settings()))) == ["b_1.jp2"]
        collection = {
            "@context": "x",
            "type": "Collection",
            "items": [],
            "title": "x",
            "id": "https://h.org/c",
        }
        assert list(open_source(written(json.dumps(collection).encode()), Settings())) == []
        with pytest.raises(SourceError, match="neither a IIIF manifest"):
            list(open_source(written(b'{"type": "Dataset"}'), Settings()))


def test_a_stopped_snapshot_goes_on(tmp_path: Path, settings: Settings, site: Site) -> None:
    """From each Checkpoint on, exactly what came after it, with the line numbers of the file; a changed file anew."""
    records = [image("a"), "junk", image("b", location("b", status="closed")), work("w"), image("c")]
    path = tmp_path / "images.json.gz"
    path.write_bytes(snapshot(site, records) + snapshot(site, [image("d"), 5]))
    everything = list(read_source(str(path), settings))
    assert keys(everything) == ["a", "c", "d"]
    assert [each[0] for each in refusals(everything)] == [
        "images.json.gz, line 2",
        "image b",
        "images.json.gz, line 7",
    ]
    stops = [number for number, each in enumerate(everything) if isinstance(each, Checkpoint)]
    assert len(stops) == 4
    for stop, position in zip(stops, checkpoints(everything), strict=True):
        assert list(read_source(str(path), settings, position)) == everything[stop + 1 :]
    os.utime(path, (1, 1))
    assert keys(list(read_source(str(path), settings, checkpoints(everything)[-1]))) == ["a", "c", "d"]


def test_long_and_broken_snapshots(tmp_path: Path, settings: Settings, site: Site) -> None:
    """A record longer than 16 MiB is refused and passed; a file that is cut off says after which line."""
    long = image("long", title="x" * (33 * 2**20))
    path = tmp_path / "images.json.gz"
    path.write_bytes(gzip.compress(lines(site, [image("a"), long, image("b")]), 1))
    assert keys(list(read_source(str(path), settings))) == ["a", "b"]
    path.write_bytes(
        gzip.compress(lines(site, [work("first", notes="x" * 2**20), image("a"), long, image("b")]), 1)
    )
    found = list(read_source(str(path), settings))
    assert keys(found) == ["a", "b"]
    assert refusals(found)[0][:2] == ("images.json.gz, line 3", Reason.BAD_RECORD)
    assert keys(list(read_source(str(path), settings, checkpoints(found)[0]))) == ["b"]
    noise = random.Random(1)
    records = [image(f"i{n}", title=str(noise.random())) for n in range(20_000)]
    path.write_bytes(snapshot(site, records)[:-200_000])
    with pytest.raises(SourceError, match=r"breaks off after line \d{4,5} \(Compressed file ended"):
        list(read_source(str(path), settings))


# ------------------------------------------------------------------------------------------------------- downloads


def stored(settings: Settings) -> list[Path]:
    """The downloads that are kept, without their locks."""
    return sorted(path for path in (settings.home / "downloads").glob("*") if path.suffix != ".lock")


def test_a_broken_download_goes_on(settings: Settings, site: Site) -> None:
    """A connection that breaks again and again gets the rest of the file, never a byte twice; then it is removed."""
    noise = random.Random(1)
    body = snapshot(site, [image(f"i{n}", note=noise.randbytes(400).hex()) for n in range(1000)])
    site.files["/images.json.gz"] = body
    site.cut = len(body) // 5
    assert len(keys(list(open_source(f"{site.url}/images.json.gz", settings)))) == 1000
    starts = [int(each.get("Range", "bytes=0-")[6:-1]) for each in site.headers]
    assert len(starts) >= 5
    assert starts == sorted(set(starts))
    assert stored(settings) == []


def test_a_download_that_fails_is_kept(settings: Settings, site: Site) -> None:
    """When the host gives no more, what came is kept for the next time, unless the file is another by then."""
    body = snapshot(site, [image(f"i{n}", note=os.urandom(400).hex()) for n in range(1000)])
    site.files["/images.json.gz"] = body
    spec = f"{site.url}/images.json.gz"
    site.cut = 65536
    once = settings.model_copy(update={"tries": 1})
    with pytest.raises(SourceError, match="it goes on from there"):
        list(open_source(spec, once))
    assert stored(settings)[0].stat().st_size == 65536
    site.cut = None
    assert len(keys(list(open_source(spec, settings)))) == 1000
    assert site.headers[-1]["Range"] == "bytes=65536-"
    site.cut = 65536
    with pytest.raises(SourceError):
        list(open_source(spec, once))
    site.cut = None
    site.files["/images.json.gz"] = snapshot(site, [image("new")])
    assert keys(list(open_source(spec, settings))) == ["new"]


def test_hosts_that_do_not_heed_if_range(settings: Settings, site: Site) -> None:
    """A part of another file, or of another place, is not joined to ours; a range past the end begins anew."""
    spec = f"{site.url}/images.json.gz"
    old, new = (
        snapshot(site, [image(f"{word}{n}", note=os.urandom(400).hex()) for n in range(1000)])
        for word in "on"
    )
    given = site.file
    for answer in (
        (206, {"ETag": '"other"', "Content-Range": f"bytes 65536-{len(new) - 1}/{len(new)}"}, new[65536:]),
        (206, {"Content-Range": "bytes 1-2/3"}, b"xx"),
        (416, {}, b""),
    ):
        site.files["/images.json.gz"] = old
        site.cut = 65536
        with pytest.raises(SourceError):
            list(open_source(spec, settings.model_copy(update={"tries": 1})))
        site.cut = None
        site.files["/images.json.gz"] = new
        site.file = lambda path, asked, answer=answer: answer if "Range" in asked else given(path, asked)  # type: ignore[method-assign, misc]
        assert keys(list(open_source(spec, settings))) == [f"n{n}" for n in range(1000)]
        site.file = given  # type: ignore[method-assign]


def test_a_stopped_read_keeps_its_download(settings: Settings, site: Site) -> None:
    """A read that stops goes on in the file on disk, though there is a newer one; begun anew, it takes the newer."""
    site.files["/images.json.gz"] = snapshot(site, [image("a"), image("b")])
    spec = f"{site.url}/images.json.gz"
    reading = read_source(spec, settings)
    assert keys([next(reading)]) == ["a"]
    checkpoint = next(reading)
    assert isinstance(checkpoint, Checkpoint)
    with pytest.raises(SourceError, match="being read by another process"):
        next(read_source(spec, settings))
    reading.close()  # type: ignore[attr-defined]
    site.files["/images.json.gz"] = snapshot(site, [image("c")])
    site.asked.clear()
    reading = read_source(spec, settings, checkpoint.position)
    assert keys([next(reading)]) == ["b"]
    assert site.asked == []
    reading.close()  # type: ignore[attr-defined]
    assert keys(list(read_source(spec, settings))) == ["c"]
    assert keys(list(read_source(spec, settings, checkpoint.position))) == ["c"]


def test_an_unchanged_download_is_not_repeated(settings: Settings, site: Site) -> None:
    """A file that is whole on disk is asked for once more, and answered that it has not changed."""
    site.files["/images.json.gz"] = snapshot(site, [image("a")])
    spec = f"{site.url}/images.json.gz"
    reading = read_source(spec, settings)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert keys(list(read_source(spec, settings))) == ["a"]
    assert "If-None-Match" in site.headers[-1]


def test_a_damaged_download_is_thrown_away(settings: Settings, site: Site) -> None:
    """A file that cannot be unpacked is not kept: the next time it is downloaded anew."""
    spec = f"{site.url}/images.json.gz"
    whole = snapshot(site, [image(f"i{n}", note=os.urandom(200).hex()) for n in range(2000)])
    site.files["/images.json.gz"] = whole[:-5000]
    with pytest.raises(SourceError, match="breaks off after line"):
        list(open_source(spec, settings))
    assert stored(settings) == []


def test_a_manifest_that_is_gzipped(settings: Settings, site: Site) -> None:
    """A `.json.gz` on the web that is no snapshot is read as a IIIF document."""
    site.files["/m.json.gz"] = gzip.compress(json.dumps(manifest("b", 2)).replace("SITE", site.url).encode())
    assert keys(list(open_source(f"{site.url}/m.json.gz", settings))) == ["b_1.jp2", "b_2.jp2"]


# ------------------------------------------------------------------------------------------------- size and violence

READER = """
import json, resource, sys
from lookalike.images import Checkpoint
from lookalike.settings import Settings
from orchestrator.sources import read_source
position = json.loads(sys.argv[3])
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = 0
for notice in read_source(sys.argv[1], Settings(_env_file=None, home=sys.argv[2]), position):
    count += 1
    if isinstance(notice, Checkpoint):
        print(json.dumps(notice.position), flush=True)
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024, file=sys.stderr)
"""


def reader(spec: str, home: Path, position: Position | None = None) -> "subprocess.Popen[str]":
    """A process that reads a source and prints each position, at its end the number of notices and its MB of memory."""
    return subprocess.Popen(
        [sys.executable, "-c", READER, spec, str(home), json.dumps(position)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def large_snapshot(path: Path, records: int, size: int) -> None:
    """Writes so many works of so many bytes, the first and every hundredth with an image."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        for number in range(records):
            found = (
                [location(f"i{number}", url=f"https://h.org/image/i{number}")] if number % 100 == 0 else []
            )
            file.write(json.dumps(work(f"w{number}", *found, notes="x" * size)).encode() + b"\n")
    path.write_bytes(buffer.getvalue())


def test_memory_does_not_grow_with_a_snapshot(tmp_path: Path) -> None:
    """200 MB of works, unpacked, are read in less than 40 MB."""
    large_snapshot(tmp_path / "works.json.gz", 20_000, 10_000)
    _, errors = reader(str(tmp_path / "works.json.gz"), tmp_path).communicate(timeout=120)
    count, megabytes = (int(word) for word in errors.split()[-2:])
    assert count == 2 * 200
    assert megabytes < 40


def test_killed_and_resumed(tmp_path: Path, site: Site) -> None:
    """Reading a snapshot from the web, killed with -9 midway, ends with every image exactly once."""
    large_snapshot(tmp_path / "works.json.gz", 20_000, 1000)
    site.files["/works.json.gz"] = (tmp_path / "works.json.gz").read_bytes()
    spec = f"{site.url}/works.json.gz"
    process = reader(spec, tmp_path / "home")
    assert process.stdout is not None
    position = [json.loads(process.stdout.readline()) for _ in range(50)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    settings = Settings(_env_file=None, home=tmp_path / "home")
    rest = keys(list(read_source(spec, settings, position)))
    assert rest == [f"i{number}" for number in range(5000, 20_000, 100)]
    assert site.asked == ["/works.json.gz"]
    assert stored(settings) == []


def test_killed_while_downloading(tmp_path: Path, site: Site) -> None:
    """A process that is killed while it downloads leaves a part, which the next one completes."""
    body = snapshot(site, [image(f"i{n}", note=os.urandom(500).hex()) for n in range(4000)])
    site.files["/images.json.gz"] = body
    given = site.file

    def slow(path: str, asked: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        status, headers, found = given(path, asked)
        return status, {**headers, "Content-Length": str(len(found))}, found[: len(found) // 2]

    site.file = slow  # type: ignore[method-assign]
    process = reader(f"{site.url}/images.json.gz", tmp_path / "home")
    settings = catalogue_settings(site, tmp_path / "home")
    until = time.monotonic() + 60
    while not [path for path in stored(settings) if not path.suffix and path.stat().st_size > 10_000]:
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    site.file = given  # type: ignore[method-assign]
    assert len(keys(list(open_source(f"{site.url}/images.json.gz", settings)))) == 4000
    assert int(site.headers[-1]["Range"][6:-1]) > 10_000
