"""What analysts and cataloguers work with: filters by what the catalogue says, vectors of works, comments on all."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import psycopg
import pytest

from lookalike import archive, ledger
from lookalike.database import Connection
from lookalike.images import Image
from lookalike.ledger import RetryPolicy
from tests.factories import TINY, make_vectors

IMAGES = 60


@pytest.fixture
def archived(connection: Connection) -> Connection:
    """60 images of two sources, one digitised each day from 2024-01-01, three to a work; the first ten are red."""
    archive.add_encoder(connection, TINY, chunk_size=IMAGES)
    register(
        connection,
        [
            Image(
                f"image/{number:02}",
                f"file:///{number}",
                work=f"work-{number // 3}",
                source="east" if number % 2 else "west",
                digitised=str(np.datetime64("2024-01-01") + number),
            )
            for number in range(IMAGES)
        ],
    )
    connection.execute(
        "update images set palette = case when id <= 10 then array['#c83c32', '#ffffff'] else array['#ffffff'] end,"
        " palette_shares = case when id <= 10 then array[0.3, 0.7]::real[] else array[1]::real[] end"
    )
    return connection


def register(connection: Connection, images: Sequence[Image]) -> ledger.Registered:
    registered = ledger.register(connection, images, chunk_size=IMAGES)
    for claim in ledger.lease(connection, "tiny", "backfill", 10, 60):
        chunk = ledger.start(connection, claim, "w", 60)
        assert chunk is not None
        ledger.finish(connection, chunk, make_vectors(chunk.images, connection), [], RetryPolicy(1, 1))
    return registered


def found(connection: Connection, filters: str) -> set[int]:
    """The numbers of all images that a search with filters returns."""
    rows = connection.execute(f"select image from similar('image/00', 1000, {filters})".encode()).fetchall()
    return {int(row[0].partition("/")[2]) for row in rows}


@pytest.mark.parametrize("exact_rows", [1000, 2], ids=["exact among few", "index scan among many"])
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ("source => 'east'", set(range(1, 60, 2))),
        ("since => '2024-02-01'", set(range(31, 60))),
        ("before => '2024-01-04'", {1, 2}),
        ("since => '2024-01-05', before => '2024-01-08', source => 'west'", {4, 6}),
        ("colour => '#c83c32'", set(range(1, 10))),
        ("colour => 'c83c32', source => 'east'", {1, 3, 5, 7, 9}),
        ("source => 'nowhere'", set()),
        ("exclude_same_work => true, before => '2024-01-06'", {3, 4}),
    ],
)
def test_filters_by_what_the_catalogue_says(
    archived: Connection, exact_rows: int, filters: str, expected: set[int]
) -> None:
    """Each filter leaves exactly the images that it says, alone and with others, on both roads."""
    archived.execute("select set_config('lookalike.exact_rows', %s, false)", [str(exact_rows)])
    assert found(archived, filters) == expected


def test_the_colour_filter_looks_into_few_cells(archived: Connection) -> None:
    """Only cells with colours near enough are read, and all that a by_colour search counts for a fifth or more."""
    row = archived.execute(
        "select cardinality(cells_near('#804020')),"
        " (select array_agg(cell order by cell) from colour_cells c where cell_weight(lab('#804020'), c) >= 0.2)"
        " = (select array_agg(cell order by cell) from unnest(cells_near('#804020')) as cell)"
    ).fetchone()
    assert row == (row and row[0], True)
    assert row is not None
    assert 0 < row[0] < 400


def test_a_colour_that_is_none_is_refused(archived: Connection) -> None:
    """The error says how colours are written."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is no colour"):
        found(archived, "colour => 'red'")


def test_the_source_that_came_first_and_the_day_are_kept(archived: Connection) -> None:
    """A second source announces an image without taking it over; a day that it does not know stays as it was."""
    image = Image("image/00", "file:///0", source="north")
    assert register(archived, [image]) == ledger.Registered(unchanged=1)
    query = "select source, digitised::text from images where key = 'image/00'"
    assert archived.execute(query).fetchone() == ("west", "2024-01-01")

    assert register(archived, [replace(image, digitised="2020-05-05")]) == ledger.Registered(changed=1)
    assert archived.execute(query).fetchone() == ("west", "2020-05-05")


def test_an_image_without_a_day_gets_that_of_its_registration(archived: Connection) -> None:
    """So that `since` and `before` leave no image out for lack of a date."""
    register(archived, [Image("new", "file:///new")])
    assert archived.execute(
        "select digitised = current_date, source from images where key = 'new'"
    ).fetchone() == (True, None)


def test_the_vector_of_a_work_is_the_mean_of_its_images(archived: Connection) -> None:
    """It has unit length, points where the mean points, and finds the images of the work; an unknown work says so."""
    rows = archived.execute(
        "select v::vector::real[] from vectors_tiny join images on id = image_id where work = 'work-4'"
    ).fetchall()
    mean = np.array([row[0] for row in rows]).mean(axis=0)
    got = archived.execute("select work_vector('work-4')").fetchone()
    assert got is not None
    assert got[0] == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=1e-3)
    nearest = archived.execute("select work from nearest(work_vector('work-4'), 3)").fetchall()
    assert ("work-4",) in nearest
    with pytest.raises(psycopg.errors.NoDataFound, match="'nothing'"):
        archived.execute("select work_vector('nothing')")


def test_neighbours_of_many_pass_over_images_without_a_vector(archived: Connection) -> None:
    """is_embedded keeps a query over many images from ending at the first that waits to be embedded."""
    ledger.register(archived, [Image("waiting", "file:///waiting")])
    rows = archived.execute(
        "select i.key, s.image from images i, similar(i.key, 1) s where is_embedded(i.key) order by 1"
    ).fetchall()
    assert len(rows) == IMAGES
    with pytest.raises(psycopg.errors.NoDataFound, match="no vector"):
        archived.execute("select i.key, s.image from images i, similar(i.key, 1) s")


def test_everything_in_the_schema_says_what_it_is(archived: Connection) -> None:
    """Each table, view, column, function and type in the schema has a comment."""
    silent = archived.execute(
        """
        select c.relname || coalesce('.' || a.attname, '') from pg_class c
        left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'lookalike'::regnamespace and c.relkind in ('r', 'v', 'p', 'c', 'm')
          and not c.relispartition
          and (obj_description(c.oid) is null and c.relkind <> 'c' or col_description(c.oid, a.attnum) is null)
        union all
        select 'function ' || proname from pg_proc
        where pronamespace = 'lookalike'::regnamespace and obj_description(oid) is null
        union all
        select 'type ' || typname from pg_type t
        where typnamespace = 'lookalike'::regnamespace and obj_description(oid) is null
          and typtype = 'c' and (select relkind from pg_class where oid = typrelid) = 'c'
        order by 1
        """
    ).fetchall()
    assert [row[0] for row in silent] == []
