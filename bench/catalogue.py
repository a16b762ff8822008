"""A catalogue of some millions of images without vectors: titles whose words are as frequent as those of a language,
palettes, works, near-duplicates, a clustering, unwanted images. Made once for each home, and kept there.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from psycopg import sql

from lookalike import services
from lookalike.database import Connection, connect
from lookalike.migrate import migrate
from lookalike.settings import Settings

ROWS = 4_000_000
VOCABULARY = 30_000
BLOCK = 20_000
COLUMNS = (
    "key, url, work, title, licence, access, source, aspect_ratio, average_colour, palette, palette_shares,"
    " miniature, appearance_revision"
)
LICENCES = ("cc-by", "cc-0", "pdm", "cc-by-nc", "in-copyright")
# What stands beside the images: of so many a share, by their ids. One image of a hundred is a near-duplicate.
BESIDE = """
select add_encoder('catalogue', 16, 'halved');
insert into labels select 'catalogue', id, rank, 'class ' || (id * 7 + rank) % 1000, 0.5 / rank
from images, generate_series(1, 5) rank where id % 20 = 0;
insert into failures (encoder, image_id, revision, reason, attempts, failed_at)
select 'catalogue', id, 1, case when id % 5000 = 0 then 'corrupt' else 'not_found' end, 1,
    now() - make_interval(secs => id)
from images where id % 100 = 0;
update images set work = 'work-big' where id > 0.95 * (select max(id) from images) and id % 2 = 0;
insert into unwanted_sets (name, encoder, threshold) values ('cards', 'catalogue', 0.2);
insert into unwanted_images (set_id, image_id, distance, state)
select s.id, i.id, (i.id * 7919 % 1000) / 1000.0, (array['candidate', 'accepted', 'fine', 'candidate'])[1 + i.id % 4]
from images i, unwanted_sets s where i.id % 100 < 2;
insert into duplicate_pairs (encoder, a, b, distance, likeness)
select 'catalogue', id, id + 1, (id * 7919 % 5000) / 100000.0, 0.95 from images where id % 100 = 1;
insert into duplicate_groups (encoder, size, representative_id)
select 'catalogue', 2 + (id / 100 % 1000 = 0)::integer, id from images where id % 100 = 1;
insert into duplicate_members (encoder, image_id, group_id, nearest)
select 'catalogue', g.representative_id + n, g.id, 0.01 from duplicate_groups g, generate_series(0, 1) n;
insert into analyses (id, kind, encoder, scope, settings, standing, settled_at) overriding system value
values (1, 'clusters', 'catalogue', 'images kmeans', '{}', true, now());
insert into clusterings (analysis, encoder, of, method, seed, sampled, shown)
values (1, 'catalogue', 'images', 'kmeans', 0, 1000, true);
insert into cluster_identities (encoder, of, method)
select 'catalogue', 'images', 'kmeans' from generate_series(1, 1000);
insert into cluster_centres (analysis, number, centre, cluster, size)
select 1, id - 1, '[1,0]', id, 4000 from cluster_identities;
select make_members('images', 1);
insert into clustered_images select 1, id, id * 7919 % 1000, (id * 104729 % 10000) / 10000.0 from images;
insert into decisions (kind, subject, verdict, decided_by)
select 'unwanted', array['catalogue/' || n], 'fine', 'somebody' from generate_series(1, 50000) n;
"""


@contextmanager
def open_catalogue(settings: Settings, rows: int = ROWS) -> Iterator[Connection]:
    """A connection to the catalogue of so many images; makes it where it is not there yet."""
    server = services.up(settings).database_url
    name = f"catalogue_{rows}"
    url = server.replace("/lookalike?", f"/{name}?")
    with connect(server, application_name="bench") as admin:
        if not admin.execute("select from pg_database where datname = %s", [f"{name}"]).rowcount:
            making = sql.Identifier(f"{name}_making")
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(making))
            admin.execute(sql.SQL("create database {}").format(making))
            unfinished = server.replace("/lookalike?", f"/{name}_making?")
            migrate(unfinished)
            with connect(unfinished, application_name="bench") as connection:
                _fill(connection, rows)
            admin.execute(sql.SQL("alter database {} rename to {}").format(making, sql.Identifier(name)))
    with connect(url, application_name="bench") as connection:
        yield connection


def words() -> list[str]:
    """The vocabulary, the most frequent word first: word n is in about one title of 0.13 n."""
    consonants, vowels = "bdfghklmnprstvwz", "aeiou"
    syllables = ["".join(pair) for pair in itertools.product(consonants, vowels)]
    order = np.random.default_rng(3).permutation(len(syllables) ** 3)[:VOCABULARY]
    count = len(syllables)
    return [syllables[n % count] + syllables[n // count % count] + syllables[n // count**2] for n in order]


def _fill(connection: Connection, rows: int) -> None:
    """Loads first and indexes after."""
    connection.execute("set synchronous_commit = off")
    connection.execute("set maintenance_work_mem = '1GB'")
    indexes = connection.execute(
        "select indexname, indexdef from pg_indexes x where schemaname = 'lookalike' and tablename = 'images'"
        " and not exists (select from pg_constraint where conname = x.indexname)"
    ).fetchall()
    for index, _ in indexes:
        connection.execute(sql.SQL("drop index {}").format(sql.Identifier(str(index))))
    vocabulary = np.array(words(), object)
    chances = 1 / (np.arange(VOCABULARY) + 3.0)
    edges = np.cumsum(chances / chances.sum())
    random = np.random.default_rng(4)
    with connection.cursor().copy(f"copy images ({COLUMNS}) from stdin".encode()) as copy:
        for first in range(0, rows, BLOCK):
            copy.write(_block(random, vocabulary, edges, first, min(BLOCK, rows - first)))
    for _, definition in indexes:
        connection.execute(str(definition).encode())
    connection.execute("analyze images")
    connection.execute(BESIDE.encode())
    connection.execute("vacuum (freeze, analyze)")


def _block(
    random: np.random.Generator,
    vocabulary: "np.ndarray[tuple[int], np.dtype[np.object_]]",
    edges: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    first: int,
    count: int,
) -> str:
    """Some rows as COPY takes them. Twenty images a work; titles of eight words; five colours each."""
    title = vocabulary[np.searchsorted(edges, random.random((count, 8)) * edges[-1])]
    colours = random.integers(0, 2**24, (count, 6))
    shares = np.sort(random.dirichlet(np.ones(5), count))[:, ::-1]
    lines = []
    for row in range(count):
        number = first + row
        key = f"catalogue/{number * 2654435761 % 2**32:010}"
        average, *palette = (f"#{colour:06x}" for colour in colours[row].tolist())
        parts = ",".join(f"{share:.4f}" for share in shares[row].tolist())
        lines.append(
            f"{key}\thttps://example.org/{key}.jpg\twork-{number // 20}\t{' '.join(title[row])}"
            f"\t{LICENCES[number % 5]}\topen\tcatalogue.csv\t1.33\t{average}\t{{{','.join(palette)}}}"
            f"\t{{{parts}}}\t\\\\x{'5a' * 144}\t1\n"
        )
    return "".join(lines)
