"""Folders and tables as sources: what becomes an image, what is refused, and what stops the whole."""

import gzip
import io
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import SourceError
from lookalike.images import Announcement, Image, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import open_source
from orchestrator.sources.records import announce, key_of_url, service_base, without_secrets
from orchestrator.sources.tables import read_table

SETTINGS = Settings(tries=2, retry_seconds=0.01, connect_timeout=2, fetch_timeout=5)
PHOTOS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "photos"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables on the web are downloaded before they are read: not into the checkout."""
    monkeypatch.chdir(tmp_path_factory.mktemp("home"))


def read(spec: object) -> list[Announcement]:
    return list(open_source(str(spec), SETTINGS))


def keys(spec: object) -> list[str]:
    return [each.key for each in read(spec) if isinstance(each, Image)]


def table(
    text: str | bytes, base: Path | str = Path("/data/set"), json_lines: bool | None = None
) -> list[Announcement]:
    content = text if isinstance(text, bytes) else text.encode()
    stream = io.BufferedReader(io.BytesIO(content))
    return list(read_table(cast(io.BufferedReader, stream), "t", base, json_lines=json_lines))


def refusals(announcements: list[Announcement]) -> list[tuple[str, Reason]]:
    return [(each.where, each.reason) for each in announcements if isinstance(each, Refused)]


def images(announcements: list[Announcement]) -> list[Image]:
    return [each for each in announcements if isinstance(each, Image)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in (
        "b.JPG",
        "a/2.tif",
        "a.jp2",
        "a/1.webp",
        ".hidden.jpg",
        ".git/x.jpg",
        "notes.txt",
        "jpg",
        "ü #%.png",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return folder


# ---------------------------------------------------------------------------------------------------- folders


def test_folder_is_sorted_and_recursive(photos: Path) -> None:
    """A folder gives its images in the order of their paths; hidden and other files are passed over."""
    assert keys(photos) == [
        "photos/a.jp2",
        "photos/a/1.webp",
        "photos/a/2.tif",
        "photos/b.JPG",
        "photos/ü #%.png",
    ]


def test_folder_says_where_and_which_content(photos: Path) -> None:
    """The address is a percent-encoded file URI, the content is size and time of change."""
    image = images(read(photos))[-1]
    assert image.url == (photos / "ü #%.png").as_uri()
    assert image.content == f"5-{(photos / 'ü #%.png').stat().st_mtime_ns}"
    assert image.protocol == "file"


def test_folder_keys_do_not_depend_on_the_way_it_is_named(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folder gives the same keys as `.`, with a slash, and by a path with dots."""
    monkeypatch.chdir(photos)
    assert keys(".") == keys(f"{photos}/") == keys(photos / "a" / "..") == keys(photos)


def test_folder_survives_loops_of_links(photos: Path, tmp_path: Path) -> None:
    """Links to the folder, to its parent and to themselves end; a folder elsewhere is entered once."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c.jpg").write_bytes(b"1")
    (elsewhere / "back").symlink_to(photos)
    targets = {"x": photos, "y": tmp_path, "z": elsewhere, "zz": elsewhere, "self": Path("self")}
    for name, target in targets.items():
        (photos / name).symlink_to(target)
    assert keys(photos)[-2:] == ["photos/z/c.jpg", "photos/ü #%.png"]
    assert len(keys(photos)) == 6


def test_folder_reports_a_dangling_link_and_a_pipe(photos: Path) -> None:
    """A link to nothing and a thing that is no file are refused with their reasons."""
    (photos / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.jpg")
    assert refusals(read(photos)) == [
        (str(photos / "gone.jpg"), Reason.NOT_FOUND),
        (str(photos / "pipe.jpg"), Reason.NO_IMAGE),
    ]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS knows UTF-8 names only")
def test_folder_refuses_names_that_are_not_utf8(photos: Path) -> None:
    """A name that Postgres could not store is refused, and written with escapes."""
    Path(os.fsdecode(os.fsencode(photos) + b"/\xff.jpg")).write_bytes(b"1")
    (refused,) = [each for each in read(photos) if isinstance(each, Refused)]
    assert (refused.where, refused.reason) == (f"{photos}/\\udcff.jpg", Reason.BAD_RECORD)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_reports_what_it_may_not_read(photos: Path) -> None:
    """A folder below without permission is one refusal, and the rest is announced."""
    (photos / "a").chmod(0)
    assert refusals(read(photos)) == [(f"{photos}/a/", Reason.FORBIDDEN)]
    (photos / "a").chmod(0o700)


def test_one_image_file_is_a_source(photos: Path) -> None:
    """A single file has the key that its folder would give it."""
    assert keys(photos / "a" / "1.webp") == ["a/1.webp"]


@pytest.mark.skipif(not PHOTOS.exists(), reason="no shared photographs")
def test_real_photographs() -> None:
    """A real folder of photographs is announced in full and without a refusal."""
    found = read(PHOTOS)
    assert len(found) == len(images(found)) == 227
    assert [each.key for each in images(found)] == sorted(each.key for each in images(found))


@pytest.mark.parametrize(
    ("spec", "advice"),
    [
        ("no/such/folder", "no such file or folder"),
        ("{photos}/notes.txt", "is no source: give a folder"),
        ("s3://", "write s3://bucket"),
        ("http://[bad/x.csv", "is not an address"),
        ("a\0b", "no such file or folder"),
    ],
)
def test_unusable_sources_say_what_to_do(spec: str, advice: str, photos: Path) -> None:
    """A source that is none raises SourceError with advice."""
    with pytest.raises(SourceError, match=advice):
        read(spec.format(photos=photos))


# ----------------------------------------------------------------------------------------------------- tables


def test_csv_reads_all_columns() -> None:
    """Names of columns are read in any case and order, unknown ones are ignored, a BOM is accepted."""
    text = (
        "\ufeffTitle,KEY,Path,License,work,shelf,ETag,access\r\n"
        '"A ""quoted"" title, long\nin two lines",k1,sub/ä b.jpg,cc-by,w1,x,e1,open\r\n'
    )
    assert table(text) == [
        Image(
            "k1", "file:///data/set/sub/%C3%A4%20b.jpg", "file", "w1", 'A "quoted" title, long in two lines', "cc-by",
            "open", "e1",
        )
    ]  # fmt: skip


def test_jsonl_reads_all_columns() -> None:
    """JSON lines know the same columns; numbers are text, nulls are nothing."""
    row = {
        "Key": 7,
        "url": "https://h.org/a%2Fb.tif",
        "work": None,
        "licence": "pdm",
        "version": 2,
        "title": ["x"],
    }
    assert table(json.dumps(row) + "\n") == [
        Image("7", "https://h.org/a%2Fb.tif", licence="pdm", content="2"),
    ]


@pytest.mark.parametrize(
    ("address", "key", "url"),
    [
        ("a/b.jpg", "set/a/b.jpg", "file:///data/set/a/b.jpg"),
        ("./a//../b.jpg", "set/b.jpg", "file:///data/set/b.jpg"),
        ("/data/set/b.jpg", "set/b.jpg", "file:///data/set/b.jpg"),
        ("file:///data/set/b%20c.jpg", "set/b c.jpg", "file:///data/set/b%20c.jpg"),
        ("../other/b.jpg", "/data/other/b.jpg", "file:///data/other/b.jpg"),
        ("s3://bucket/a b/ü.jpg", "bucket/a b/ü.jpg", "s3://bucket/a b/ü.jpg"),
        ("HTTPS://u:pw@Host.org:8/A.jpg?x=1", "host.org:8/A.jpg?x=1", "HTTPS://u:pw@Host.org:8/A.jpg?x=1"),
    ],
)
def test_missing_keys_are_made_from_the_address(address: str, key: str, url: str) -> None:
    """Without a key the address makes one; a file has the same key as by its folder."""
    assert table(f"url\n{address}\n") == [Image(key, url)]


def test_folder_and_table_give_one_file_one_key(photos: Path) -> None:
    """A table beside the images announces them by the keys that the folder gives them."""
    (photos / "list.csv").write_text("path\na/1.webp\nb.JPG\n")
    assert keys(photos / "list.csv") == ["photos/a/1.webp", "photos/b.JPG"]
    assert set(keys(photos / "list.csv")) < set(keys(photos))


def test_iiif_services_in_tables() -> None:
    """`/info.json` or the column protocol say that an address is a IIIF service."""
    text = "url,protocol\nhttps://h.org/i/1%2F2/info.json,\nhttps://h.org/i/3/,IIIF\nhttps://h.org/info.json,file\n"
    assert table(text) == [
        Image("h.org/i/1%2F2", "https://h.org/i/1%2F2", "iiif"),
        Image("h.org/i/3", "https://h.org/i/3", "iiif"),
        Image("h.org/info.json", "https://h.org/info.json"),
    ]


def test_wellcome_services_have_the_catalogue_s_keys() -> None:
    """Wellcome's identifiers are the keys, whichever of its services gives them; no other host gets short keys."""
    assert key_of_url("https://iiif.wellcomecollection.org/image/b12345678_0001.jp2") == "b12345678_0001.jp2"
    assert key_of_url("https://iiif.wellcomecollection.org/thumbs/V0021056EL") == "V0021056EL"
    assert key_of_url("https://iiif.example.org/image/V0021056EL") == "iiif.example.org/image/V0021056EL"
    assert service_base("https://h.org/a b/%252F?x=/y/info.json/") == "https://h.org/a b/%252F?x=/y"


def test_bad_csv_rows_are_refused_one_by_one() -> None:
    """Each damaged row is one refusal with its line, and the rows around it are read."""
    rows = [
        b"k0,a.jpg,t",
        b"k1,,t",  # no address
        b"k2,a.jpg",  # too few columns
        b"k3,a.jpg,t,u",  # too many: an unquoted comma
        b"k4,a\0.jpg,t",
        b"k5,\xff.jpg,t",
        b"k6,ftp://h/a.jpg,t",
        b"k7,http:///a.jpg,t",
        b"k" * 1025 + b",a.jpg,t",
        b'k9,a.jpg,"t"u',  # stray quotation mark
        b"k" * 200_000 + b",a.jpg,t",
        b"x" * 2_200_000,
        b"",
        b" , ,",
        b"k13,a.jpg,\xff title",
    ]
    found = table(b"key,url,title\n" + b"\n".join(rows))
    expected = [
        (f"t, line {n + 2}", Reason.BAD_ADDRESS if n in (6, 7) else Reason.BAD_RECORD) for n in range(1, 12)
    ]
    assert refusals(found) == expected
    assert [(each.key, each.title) for each in images(found)] == [("k0", "t"), ("k13", "title")]


def test_an_open_quotation_mark_swallows_no_line_in_silence() -> None:
    """Lines lost to a stray quotation mark are named in the refusal, and reading goes on after them."""
    rows = [f'{n},{n}.jpg,"fine"' for n in range(10)]
    rows[3] = '3,3.jpg,"open'
    found = table("key,url,title\n" + "\n".join(rows))
    (refused,) = [each for each in found if isinstance(each, Refused)]
    assert (refused.where, refused.detail.split(":")[0]) == ("t, line 5", "not CSV (up to line 6)")
    assert [each.key for each in images(found)] == list("012") + list("56789")


def test_bad_json_lines_are_refused_one_by_one() -> None:
    """Broken JSON, other JSON, half characters and missing fields are refusals; blank lines are nothing."""
    lines = [
        b'{"url": "a.jpg"}',
        b'{"url": "b.jpg"',
        b"[1]",
        b"[" * 100_000,
        b"",
        b'{"key": "k"}',
        b'{"key": {}, "url": "c.jpg"}',
        b'{"key": "\\ud800", "url": "c.jpg"}',
        b'{"key": "\\u0000", "url": "c.jpg"}',
        b'{"url": "\xff.jpg"}',
        b'{"url": 9' + b"9" * 5000 + b"}",
        b'{"url": "c.jpg", "protocol": "gopher"}',
        b'{"url": "z.jpg", "title": "a\\u0000b\\udfffc", "deleted": true}',
    ]
    found = table(b"\n".join(lines))
    assert [where for where, _ in refusals(found)] == [
        f"t, line {n}" for n in (2, 3, 4, 6, 7, 8, 9, 10, 11, 12)
    ]
    assert [(each.key, each.title) for each in images(found)] == [("set/a.jpg", None), ("set/z.jpg", "a b c")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_knows_three_delimiters(delimiter: str) -> None:
    """Commas, semicolons (as Excel writes in Europe) and tabs part the columns."""
    assert table(
        f"key{delimiter}url\nk{delimiter}https://h/a,b.jpg" if delimiter != "," else "key,url\nk,https://h/a"
    ) == [Image("k", "https://h/a" if delimiter == "," else "https://h/a,b.jpg")]


@pytest.mark.parametrize("name", ["t.csv", "t.CSV.gz", "t.jsonl", "t.ndjson.gz", "t.jsonl.gz"])
def test_tables_by_name(name: str, tmp_path: Path) -> None:
    """The end of the name says what a table is; gzip is noticed with and without its name."""
    text = b"url\na.jpg\n" if "csv" in name.lower() else b'{"url": "a.jpg"}\n'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert keys(tmp_path / name) == [f"{tmp_path.name}/a.jpg"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\xef\xbb\xbf", gzip.compress(b"")],
    ids=["zero bytes", "blank lines", "a byte order mark", "gzipped"],
)
def test_empty_tables_announce_nothing(content: bytes) -> None:
    """An empty table is no error."""
    assert table(content) == []


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"a,b\n1,2\n", "first line must name the columns"),
        ("url\na.jpg".encode("utf-16"), "UTF-16"),
        (b"x" * 2_000_000, "first one is longer"),
        (gzip.compress(b"url\n" + os.urandom(9999).hex().encode())[:-900], "breaks off after line"),
        (b"\x1f\x8bnonsense", "breaks off after line 0"),
    ],
)
def test_unreadable_tables_say_what_to_do(content: bytes, advice: str) -> None:
    """A table without columns, in UTF-16, or cut short raises SourceError."""
    with pytest.raises(SourceError, match=advice):
        table(content)


@pytest.mark.parametrize(
    "content",
    [b"url\n/d/a.jpg\n", b'\n {"url": "/d/a.jpg"}\n', gzip.compress(b'\xef\xbb\xbf{"url": "/d/a.jpg"}')],
    ids=["csv", "jsonl", "gzip"],
)
def test_standard_input(content: bytes) -> None:
    """`-` reads standard input, whose first bytes say what it is."""
    code = (
        "from orchestrator.sources import open_source; from lookalike.settings import Settings\n"
        "print([image.key for image in open_source('-', Settings())])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "['/d/a.jpg']"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_tables_over_http(server: str, tmp_path: Path) -> None:
    """A table at a URL is streamed; its relative addresses are relative to it, and it may not name local files."""
    text = "url\nsub/a.jpg\nfile:///etc/passwd\nhttps://h.org/b.jpg\n"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    found = read(f"{server}/t.csv.gz?token=secret")
    assert [each.url for each in images(found)] == [f"{server}/sub/a.jpg", "https://h.org/b.jpg"]
    assert refusals(found) == [(f"{server}/t.csv.gz?token=..., line 3", Reason.BAD_ADDRESS)]


def test_a_missing_table_over_http_hides_the_secret(server: str) -> None:
    """A table that is not there raises SourceError, which shows neither password nor token."""
    address = server.replace("http://", "http://user:password@")
    with pytest.raises(SourceError, match="answered 404 Not Found; check the address") as raised:
        read(f"{address}/none.csv?token=hush&page=3")
    assert "password" not in str(raised.value)
    assert "hush" not in str(raised.value)
    assert "page=3" in str(raised.value)


def test_an_unreachable_host_is_named() -> None:
    """A host that does not answer raises SourceError with the cause."""
    with pytest.raises(SourceError, match=r"cannot be reached: .*refused"):
        read("http://127.0.0.1:1/t.csv")


def test_sources_stream_in_flat_memory(tmp_path: Path) -> None:
    """The first line is announced before the second is written, and memory stays below the file's size."""
    line = json.dumps({"url": "https://h.org/a.jpg", "title": "t" * 300}).encode() + b"\n"
    read_end, write_end = os.pipe()
    os.write(write_end, line)
    with os.fdopen(read_end, "rb") as pipe:
        assert len(list(islice(read_table(pipe, "t", Path("/")), 1))) == 1
        os.close(write_end)
    (tmp_path / "t.jsonl").write_bytes(line * 10_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_source(str(tmp_path / "t.jsonl"), SETTINGS)) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------------------------------------- records


@given(st.text(), st.text(), st.text())
def test_any_text_becomes_storable_or_refused(key: str, url: str, title: str) -> None:
    """Whatever a record holds, what becomes an image can be stored in Postgres."""
    found = announce("here", f"https://h.org/{url}", key=key, title=title, content=key)
    for text in (
        (found.key, found.url, found.title, found.content) if isinstance(found, Image) else (found.detail,)
    ):
        assert text is None or b"\0" not in text.encode()


@given(st.binary())
def test_any_bytes_are_read_as_a_table_without_a_crash(content: bytes) -> None:
    """Whatever the bytes below a header, each line is an image or a refusal."""
    for header in (b"key,url\n", b'{"url": "a.jpg"}\n'):
        assert all(isinstance(each, Image | Refused) for each in table(header + content))


@given(st.text(max_size=60))
def test_any_address_can_be_shown(text: str) -> None:
    """Showing an address never raises."""
    without_secrets(text).encode()
    without_secrets(f"http://u:p@{text}").encode()
