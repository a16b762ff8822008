"""Colour and shape in the database: stored once with the vectors, found by colour, through the indexes at scale."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lookalike import archive, ledger, search
from lookalike.database import Connection, connect
from lookalike.errors import ConfigurationError
from lookalike.images import Image
from lookalike.ledger import RetryPolicy
from lookalike.vectors import Appearance
from tests.factories import TINY, make_images, make_vectors
from tests.servers import Lookalike
from workers.appearance import _lab

RED = Appearance(1.5, "#a08070", ("#f0e8d8", "#c83c32"), (0.75, 0.25), bytes(144))
BLUE = Appearance(0.5, "#2040a0", ("#2040a0",), (1.0,), bytes(144))
COLUMNS = "aspect_ratio, average_colour, palette, palette_shares, appearance_revision"


def embed(connection: Connection, encoder: str, *appearances: Appearance | None) -> None:
    """Finishes the next chunk of an encoder; its images look like this, in their order."""
    (claim,) = ledger.lease(connection, encoder, "backfill", 1, 60)
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    made = replace(make_vectors(chunk.images, connection, encoder), appearances=appearances)
    ledger.finish(connection, chunk, made, [], RetryPolicy(1, 1))


def stored(connection: Connection) -> list[tuple[object, ...]]:
    return connection.execute(f"select {COLUMNS} from images order by key".encode()).fetchall()


def test_the_appearance_is_stored_with_the_vectors(connection: Connection) -> None:
    """Each image has its own, in the same transaction; an image whose appearance is unknown has none."""
    archive.add_encoder(connection, TINY, chunk_size=3)
    ledger.register(connection, make_images(3), chunk_size=3)
    embed(connection, "tiny", RED, None, BLUE)

    assert stored(connection) == [
        (1.5, "#a08070", ["#f0e8d8", "#c83c32"], [0.75, 0.25], 1),
        (None, None, None, None, None),
        (0.5, "#2040a0", ["#2040a0"], [1.0], 1),
    ]


def test_a_second_encoder_writes_nothing_again(connection: Connection) -> None:
    """The row of an image stays as the first worker wrote it, untouched."""
    archive.add_encoder(connection, TINY, chunk_size=2)
    ledger.register(connection, make_images(2), chunk_size=2)
    embed(connection, "tiny", RED, None)
    before = connection.execute("select key, ctid from images order by key").fetchall()
    archive.add_encoder(connection, replace(TINY, name="second"), chunk_size=2)
    embed(connection, "second", BLUE, BLUE)
    after = connection.execute("select key, ctid from images order by key").fetchall()

    assert before[0] == after[0]
    assert [row[1] for row in stored(connection)] == ["#a08070", "#2040a0"]


def test_later_content_brings_a_new_appearance(connection: Connection) -> None:
    """What was computed from earlier content is not written over a later revision, and is replaced by the new one."""
    archive.add_encoder(connection, TINY, chunk_size=1)
    ledger.register(connection, make_images(1, content="one"), chunk_size=1)
    embed(connection, "tiny", RED)
    ledger.register(connection, make_images(1, content="two"), chunk_size=1)
    (claim,) = ledger.lease(connection, "tiny", "backfill", 1, 60)
    chunk = ledger.start(connection, claim, "w", 60)
    assert chunk is not None
    ledger.register(connection, make_images(1, content="three"), chunk_size=1)
    late = replace(make_vectors(chunk.images, connection), appearances=[BLUE])
    ledger.finish(connection, chunk, late, [], RetryPolicy(1, 1))

    assert [(row[1], row[4]) for row in stored(connection)] == [("#a08070", 1)]

    embed(connection, "tiny", replace(BLUE, aspect_ratio=2.0))
    assert [(row[0], row[1], row[4]) for row in stored(connection)] == [(2.0, "#2040a0", 3)]


def test_registrations_and_workers_do_not_deadlock(connection: Connection, database_url: str) -> None:
    """A worker that waits for a registration holds nothing that this still needs, though ids run against keys."""
    archive.add_encoder(connection, TINY, chunk_size=2)
    for key in ("b", "a"):
        ledger.register(connection, [Image(key, "file:///x")], chunk_size=2)
    connection.execute("update chunks set state = 'done', done_at = now() where lo = 2")
    connection.execute("update chunks set hi = 2 where lo = 1")
    with connect(database_url, application_name="worker") as worker:
        thread = threading.Thread(target=embed, args=(worker, "tiny", RED, BLUE))
        with connection.transaction():
            connection.execute("update images set title = 'first' where key = 'a'")
            thread.start()
            wait_for_lock(connection, "worker")
            connection.execute("update images set title = 'second' where key = 'b'")
        thread.join(30)

    assert [row[1] for row in stored(connection)] == ["#2040a0", "#a08070"]
    assert connection.execute("select count(*) from images where title is not null").fetchone() == (2,)


def wait_for_lock(connection: Connection, name: str) -> None:
    """Returns when the connection of this name waits for a lock."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        waiting = connection.execute(
            "select count(*) from pg_stat_activity where application_name = %s and wait_event_type = 'Lock'",
            [name],
        ).fetchone()
        if waiting == (1,):
            return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


# Colours in SQL -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ("#ffffff", (100, 0, 0)),
        ("#000000", (0, 0, 0)),
        ("#ff0000", (53.24, 80.09, 67.20)),
        ("#0000ff", (32.30, 79.19, -107.86)),
        ("#010203", (0.51, -0.12, -0.47)),
    ],
)
def test_lab_is_cielab(connection: Connection, colour: str, expected: tuple[float, ...]) -> None:
    """L*a*b* under D65 of well-known colours, the darkest included, where the formula is a straight line."""
    row = connection.execute("select lab(%s)", [colour]).fetchone()

    assert row is not None
    assert row[0] == pytest.approx(expected, abs=0.03)


def test_lab_is_the_same_in_the_worker(connection: Connection) -> None:
    """The worker's table has the values of SQL, but for its rounding and the weight of lightness."""
    numbers = list(range(0, 32768, 331))
    names = [f"#{(n >> 10) * 8 + 4:02x}{(n >> 5 & 31) * 8 + 4:02x}{(n & 31) * 8 + 4:02x}" for n in numbers]
    rows = connection.execute(
        "select lab(c) from unnest(%s::text[]) with ordinality u (c, n) order by n", [names]
    )
    expected = np.array([row[0] for row in rows]) * (0.7, 1, 1)

    assert np.abs(_lab()[numbers] - expected).max() <= 0.51


def test_cells_hold_their_colours(connection: Connection) -> None:
    """No colour lies outside of the ball that stands for its cell: the search by colour relies on it."""
    row = connection.execute(
        "select count(*) from generate_series(0, 16777215, 2111) n,"
        " lateral (select '#' || lpad(to_hex(n), 6, '0')) t (c), lateral (select lab(c)) u (p)"
        " join colour_cells s on true where s.cell = colour_cell(c)"
        " and sqrt((s.l - p[1]) ^ 2 + (s.a - p[2]) ^ 2 + (s.b - p[3]) ^ 2) > s.radius"
    ).fetchone()

    assert row == (0,)


def fill(connection: Connection, count: int) -> None:
    """Images whose palettes are mostly paper and ink, some with an accent of a random colour."""
    random = np.random.default_rng(0)
    paper = random.normal((235, 225, 200), 12, (count, 3))
    ink = random.normal((60, 50, 45), 15, (count, 3))
    accents = random.integers(0, 256, (count, 2, 3))
    shares = random.dirichlet((5, 1, 1, 1), count)
    with connection.cursor().copy("copy images (key, url, palette, palette_shares) from stdin") as copy:
        for number in range(count):
            colours = np.array([paper[number], ink[number], *accents[number]]).clip(0, 255).astype(int)
            order = np.argsort(-shares[number])[: 2 + number % 3]
            names = ["#{:02x}{:02x}{:02x}".format(*colours[one]) for one in order]
            portions = shares[number][order] / shares[number][order].sum()
            copy.write_row((f"image/{number:05}", "file:///x", names, [float(x) for x in portions]))
    connection.execute("analyze images")


def expected(connection: Connection, colour: str, k: int) -> list[tuple[str, float]]:
    """The answer by comparing everything, in SQL that leaves nothing to an index."""
    rows = connection.execute(
        "select key, 1 - colour_share(palette, palette_shares, %s) as distance from images"
        " where palette is not null order by 2, 1 limit %s",
        [colour, k],
    )
    return [(str(key), float(str(distance))) for key, distance in rows if float(str(distance)) <= 0.98]


QUERIES = ("#c83c32", "#f0e8d8", "#2040a0", "#20a040", "#3c3228", "#ff00ff", "#808080", "#ffff00")


def test_by_colour_is_the_exact_answer(connection: Connection) -> None:
    """In a small archive, the images and distances of a full comparison, nearest first, equal ones by key."""
    fill(connection, 1000)
    connection.execute(
        "update images set palette = '{#c83c32}', palette_shares = '{1}' where id in (7, 5, 9)"
    )
    for colour in QUERIES:
        found = search.by_colour(connection, colour, 30)
        wanted = expected(connection, colour, 30)
        assert [n.image for n in found] == [key for key, _ in wanted]
        assert [n.distance for n in found] == pytest.approx([distance for _, distance in wanted], abs=1e-5)
        assert [n.rank for n in found] == list(range(1, len(wanted) + 1))


def test_a_share_counts_by_its_area(connection: Connection) -> None:
    """Half a picture of the very colour has distance 0.5; the same in capitals and without #."""
    ledger.register(connection, make_images(2))
    connection.execute(
        "update images set palette = '{#ffffff,#c83c32}', palette_shares = '{0.5,0.5}' where key = 'image/00001'"
    )
    (found,) = search.by_colour(connection, "C83C32")

    assert (found.image, found.distance) == ("image/00001", pytest.approx(0.5, abs=1e-4))
    assert search.by_colour(connection, "#00ff00") == []


def test_by_colour_takes_limits(connection: Connection) -> None:
    """Not farther than max_distance, and only among the given ids."""
    fill(connection, 300)
    near = search.by_colour(connection, "#f0e8d8", 300, max_distance=0.4)
    few = search.by_colour(connection, "#f0e8d8", 10, within=[1, 2, 3])

    assert near
    assert max(n.distance for n in near) <= 0.4
    assert {n.image for n in few} <= {"image/00000", "image/00001", "image/00002"}
    assert search.by_colour(connection, "#f0e8d8", 10, within=[]) == []


def test_many_images_are_searched_through_the_indexes(connection: Connection) -> None:
    """Nearly the exact answer, at nearly its distances, without a scan of all images."""
    fill(connection, 6000)
    connection.execute("set lookalike.exact_colours = 100")
    before = scans(connection)
    hits = total = 0
    for colour in QUERIES:
        found = search.by_colour(connection, colour, 20)
        wanted = expected(connection, colour, 20)
        hits += len({n.image for n in found} & {key for key, _ in wanted})
        total += len(wanted)
        assert len(found) == len(wanted)
        assert found[-1].distance <= wanted[-1][1] + 0.05
    after = scans(connection)

    assert hits / total >= 0.9
    # The full comparisons are those of `expected`.
    assert after[0] - before[0] == len(QUERIES)
    assert after[1] > before[1]


def scans(connection: Connection) -> tuple[int, int]:
    """How often all images were read in full, and how often an index of colours was."""
    connection.execute("select pg_stat_force_next_flush()")
    time.sleep(0.05)
    row = connection.execute(
        "select (select seq_scan from pg_stat_user_tables where relname = 'images'),"
        " (select sum(idx_scan) from pg_stat_user_indexes where indexrelname like 'images_colour_%')"
    ).fetchone()
    assert row is not None
    return int(str(row[0])), int(str(row[1]))


@pytest.mark.parametrize("colour", ["red", "#12", "", "#c83c3g", "#c83c3200"])
def test_what_is_no_colour_is_refused(connection: Connection, colour: str) -> None:
    """The message says what to write."""
    with pytest.raises(ConfigurationError, match=r"is no colour\. .*'#c83c32' or 'c83c32'"):
        search.by_colour(connection, colour)


@pytest.mark.parametrize("k", [0, 1001])
def test_k_has_limits(connection: Connection, k: int) -> None:
    """1 to 1,000 images."""
    with pytest.raises(ConfigurationError, match=f"between 1 and 1000, not {k}"):
        search.by_colour(connection, "#c83c32", k)


def test_the_command(connection: Connection, make_lookalike: Callable[[], Lookalike]) -> None:
    """`lookalike colour` prints JSON or a table; a wrong colour is one line on standard error."""
    fill(connection, 50)
    lookalike = make_lookalike()
    printed = json.loads(lookalike.run("colour", "#f0e8d8", "-k", "3", "--json").stdout)
    found = search.by_colour(connection, "#f0e8d8", 3)

    assert printed["query"] == "#f0e8d8"
    assert [n["image"] for n in printed["neighbours"]] == [n.image for n in found]
    assert found[0].image in lookalike.run("colour", "f0e8d8").stdout
    wrong = lookalike.run("colour", "red", check=False)
    assert wrong.returncode == 1
    assert "'red' is no colour" in wrong.stderr


@pytest.fixture
def make_lookalike(tmp_path, database_url: str, broker_url: str) -> Callable[[], Lookalike]:
    return lambda: Lookalike(tmp_path, database_url, broker_url)
