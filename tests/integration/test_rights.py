"""The three roles on a real server: each does its work with its own login, and is refused whatever goes beyond it."""

import itertools
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import InsufficientPrivilege

from lookalike import analyses, archive, audit, books, clusters, deletion, index, ledger, removal, search
from lookalike.audit import Wish
from lookalike.database import Connection, connect
from lookalike.errors import ServiceError
from lookalike.images import Removal
from lookalike.ledger import RetryPolicy
from lookalike.migrate import migrate, migrations_folder
from lookalike.rights import settle_rights
from lookalike.servers import Postgres
from tests.factories import TINY, make_images, make_vectors
from tests.servers import Lookalike

IMAGES = 24
_numbers = itertools.count()


def make_login(server_url: str, database_url: str, *grants: str) -> Iterator[str]:
    """Makes a login with these grants ("{}" is its name); yields the address it has in the database; drops it."""
    name, password = f"login_{next(_numbers)}", secrets.token_urlsafe(8)
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(password))
        )
        for grant in grants:
            admin.execute(sql.SQL(grant).format(sql.Identifier(name)))
        yield make_conninfo(database_url, user=name, password=password)
        with psycopg.connect(make_conninfo(server_url, dbname=conninfo_to_dict(database_url)["dbname"])) as c:
            c.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture
def app_url(server_url: str, database_url: str) -> Iterator[str]:
    yield from make_login(server_url, database_url, "grant lookalike_app to {}")


@pytest.fixture
def analyst_url(server_url: str, database_url: str) -> Iterator[str]:
    yield from make_login(server_url, database_url, "grant analyst to {}")


@pytest.fixture
def app(app_url: str) -> Iterator[Connection]:
    """A connection as the programs have it, in an archive that they have made and filled themselves."""
    with connect(app_url, application_name="app") as connection:
        archive.add_encoder(connection, TINY, chunk_size=8)
        ledger.register(connection, make_images(IMAGES), chunk_size=8)
        embed(connection)
        yield connection


def embed(connection: Connection) -> None:
    """Does all that is pending of the encoder."""
    for claim in ledger.lease(connection, "tiny", "backfill", 10, 60):
        chunk = ledger.start(connection, claim, "w", 60)
        assert chunk is not None
        ledger.finish(connection, chunk, make_vectors(chunk.images, connection), [], RetryPolicy(1, 1))


def not_refused(connection: Connection, statements: Sequence[str]) -> list[str]:
    """Those of these statements that are not refused for lack of rights."""
    passed = []
    for statement in statements:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(statement.encode())
            passed.append(statement)
        except InsufficientPrivilege:
            pass
    return passed


def test_everything_belongs_to_the_owner(connection: Connection) -> None:
    """Schema, tables, views, functions and types, but for what runs when somebody logs in."""
    assert strangers(connection) == ["greet_analyst"]


def strangers(connection: Connection) -> list[str]:
    """What in the schema does not belong to lookalike_owner."""
    rows = connection.execute(
        "select relname::text from pg_class where relnamespace = 'lookalike'::regnamespace"
        " and relowner <> 'lookalike_owner'::regrole"
        " union all select proname::text from pg_proc where pronamespace = 'lookalike'::regnamespace"
        " and proowner <> 'lookalike_owner'::regrole"
        " union all select nspname::text from pg_namespace where nspname = 'lookalike'"
        " and nspowner <> 'lookalike_owner'::regrole"
    ).fetchall()
    return [str(name) for (name,) in rows]


def test_programs_do_all_their_work(app: Connection) -> None:
    """As lookalike_app: an encoder, images, vectors, searches, deletions, clusters, an audit with repair."""
    assert books.count_books(app, "tiny") == books.Books(IMAGES, IMAGES, 0, 0, 0)
    assert len(search.similar(app, "image/00003", 5)) == 5
    deletion.remove(app, Removal(key="image/00001"))
    wish = clusters.Wish(clusters=2, sample=IMAGES)
    for _ in range(2):  # the second takes the place of the first, whose partition goes
        begun = clusters.begin(app, clusters.plan(app, "tiny", wish))
        for claim in ledger.lease(app, "tiny", "analysis", 10, 60):
            chunk = ledger.start(app, claim, "w", 60)
            assert chunk is not None
            found = clusters.find(app, begun, chunk.images, lambda _: [])
            store = partial(clusters.store, analysis=begun, images=chunk.images, found=found)
            ledger.finish_analysis(app, chunk, lambda connection, _, store=store: store(connection))
        with app.transaction():
            assert clusters.settle(app, begun)
        wish = clusters.Wish(clusters=3, sample=IMAGES)
    assert len(clusters.list_clusters(app, "tiny")) == 3
    assert analyses.list_standing(app, "tiny") != []
    app.execute("delete from vectors_tiny where image_id = 5")
    assert audit.audit(app, "tiny", Wish(repairs=True)).balanced
    embed(app)
    assert audit.audit(app, "tiny").findings == []
    assert index.check(app, "tiny", queries=5).recall_10 == 1


def test_an_index_takes_the_owner(app: Connection, app_url: str, server_url: str) -> None:
    """A login that is only a program's is told what it lacks; one that may become the owner builds and drops."""
    login = conninfo_to_dict(app_url)["user"]
    with pytest.raises(ServiceError, match=f'grant lookalike_owner to "{login}" with inherit false'):
        index.build(lambda: connect(app_url, application_name="build"), "tiny", 2**26, 0, lambda _: None)
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"grant lookalike_owner to {login} with inherit false, set true".encode())
    assert (
        index.build(lambda: connect(app_url, application_name="build"), "tiny", 2**26, 0, lambda _: None) == 8
    )
    assert all(one.valid for one in index.list_partitions(app, "tiny"))
    assert index.drop(app, "tiny") == 8
    assert app.execute("select current_user = session_user").fetchone() == (True,)


def test_an_encoder_is_removed_by_the_owner(app: Connection, app_url: str, server_url: str) -> None:
    """A login that is only a program's is refused before anything has gone; one that may become the owner removes."""
    archive.add_encoder(app, replace(TINY, name="next"), chunk_size=8)
    archive.activate(app, "next")
    with pytest.raises(ServiceError, match="may not change tables of vectors: use the login of an owner"):
        removal.remove(app, "tiny", stop_work=True)
    assert removal.list_leaving(app) == []
    with psycopg.connect(server_url, autocommit=True) as admin:
        login = conninfo_to_dict(app_url)["user"]
        admin.execute(f"grant lookalike_owner to {login} with inherit false, set true".encode())
    removal.remove(app, "tiny", stop_work=True)
    assert books.encoder_names(app) == ["next"]
    assert app.execute("select to_regclass('vectors_tiny'), current_user = session_user").fetchone() == (
        None,
        True,
    )


def test_programs_cannot_overstep(app: Connection) -> None:
    """lookalike_app changes rows, and neither the schema, nor what migrations wrote, nor anybody's rights."""
    assert not not_refused(
        app,
        [
            "create table lookalike.mine ()",
            "create function lookalike.similar() returns int language sql return 1",
            "create table public.mine ()",
            "alter table images add mine int",
            "alter table vectors_tiny drop constraint vectors_tiny_v_check",
            "drop table images",
            "drop table vectors_tiny",
            "truncate images cascade",
            "create trigger mine before insert on images execute function suppress_redundant_updates_trigger()",
            "alter function add_encoder security invoker",
            "create index on vectors_tiny (revision)",
            "update reasons set transient = true",
            "update contract set version = 2",
            "delete from public.schema_migrations",
            "grant lookalike_owner to current_user",
            "set role lookalike_owner",
            "set role analyst",
            "create role mine",
            "alter role analyst set statement_timeout = 0",
            "select make_encoder('mine', 4, 'halved')",
            "set session_replication_role = replica",
            "copy images to '/tmp/x'",
            "copy images to program 'true'",
            "select pg_read_file('/etc/passwd')",
            "select rolpassword from pg_authid",
        ],
    )


def test_programs_cannot_hand_out_rights(app: Connection) -> None:
    """What lookalike_app may, it may not pass on."""
    app.execute("grant select on chunks to public")
    assert app.execute("select has_table_privilege('analyst', 'chunks', 'select')").fetchone() == (False,)


def test_functions_that_act_as_the_owner_take_no_bait(app: Connection, app_url: str) -> None:
    """Names that hold SQL stay names, and objects of a temporary schema are not taken for those of lookalike."""
    name = "x\"; drop table images; --'"
    app.execute("select add_encoder(%s, 4, 'halved')", [name])
    assert app.execute("select vectors from encoders where name = %s", [name]).fetchone() == (
        "vectors_x_drop_table_images_",
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        app.execute("select make_members('images; drop table images', 1)")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        app.execute("select drop_members('', 1)")
    app.execute(
        "create function pg_temp.format(text, variadic text[]) returns text language sql"
        " as $$ select 'drop table lookalike.images cascade' $$"
    )
    app.execute("set search_path = pg_temp, lookalike, public")
    app.execute("select lookalike.add_encoder('other', 4, 'halved')")
    assert app.execute("select count(*) from lookalike.images").fetchone() == (IMAGES,)


def test_an_analyst_reads_results(app: Connection, analyst_url: str) -> None:
    """An analyst sees images, vectors, searches, failures, books and audits; search_path and a timeout come with the
    login, and what is set for the login itself counts more."""
    audit.audit(app, "tiny")
    with psycopg.connect(analyst_url, autocommit=True) as analyst:
        assert analyst.execute("show search_path").fetchone() == ("lookalike, public",)
        assert analyst.execute("show statement_timeout").fetchone() == ("1min",)
        assert len(analyst.execute("select * from similar('image/00003', 5)").fetchall()) == 5
        assert analyst.execute("select registered, done from books('tiny')").fetchone() == (IMAGES, IMAGES)
        for readable in (
            "images",
            "vectors_tiny",
            "failed_images",
            "audits",
            "duplicates",
            "cluster_members",
        ):
            analyst.execute(f"select * from {readable}".encode())
        analyst.execute("select name, new, read_at from sources")
        analyst.execute("select encoder, lane, state, lo, hi from unfinished_chunks")
        analyst.execute("create temporary table mine (key text)")
    with psycopg.connect(f"{analyst_url} options='-c statement_timeout=5s'") as analyst:
        assert analyst.execute("show statement_timeout").fetchone() == ("5s",)


def test_an_analyst_cannot_overstep(app: Connection, analyst_url: str) -> None:
    """Nothing is written, and how the work is organised stays hidden: leases, workers, positions of sources."""
    with closing(connect(analyst_url, application_name="analyst")) as analyst:
        assert not not_refused(
            analyst,
            [
                "select * from chunks",
                "select lease from unfinished_chunks",
                "select worker from unfinished_chunks",
                "select * from workers",
                "select position from sources",
                "select * from public.schema_migrations",
                "insert into images (key, url) values ('x', 'file:///x')",
                "update images set url = 'file:///x'",
                "delete from vectors_tiny",
                "delete from failures",
                "update encoders set active = false",
                "truncate images cascade",
                "create table lookalike.mine ()",
                "create table public.mine ()",
                "select add_encoder('mine', 4, 'halved')",
                "select make_members('images', 99)",
                "select drop_members('images', 1)",
                "set role lookalike_app",
                "set role lookalike_owner",
                "select * from images for update",
                "copy images to program 'true'",
            ],
        )


@pytest.mark.usefixtures("template_database")  # whose migrations have made the roles, which take a superuser
def test_an_owner_that_is_no_superuser_migrates(server_url: str, bare_database_url: str) -> None:
    """A login in lookalike_owner, owner of the database, builds the schema and migrates it again; it is handed over."""
    with psycopg.connect(bare_database_url, autocommit=True) as admin:
        admin.execute("create extension vector")
        dbname = sql.Identifier(conninfo_to_dict(bare_database_url)["dbname"] or "")
        admin.execute(sql.SQL("alter database {} owner to lookalike_owner").format(dbname))
    for url in make_login(server_url, bare_database_url, "grant lookalike_owner to {}"):
        advice: list[str] = []
        assert migrate(url, advise=advice.append) == [
            f.name for f in sorted(migrations_folder().glob("*.sql"))
        ]
        assert advice == []
        assert migrate(url, advise=advice.append) == []
        with psycopg.connect(bare_database_url, autocommit=True) as admin:
            assert strangers(admin) == ["greet_analyst"]


def test_a_login_that_may_not_settle_rights_is_told_whom_to_ask(server_url: str, database_url: str) -> None:
    """A migration without the right to hand objects over goes through, and gives the statement that is missing."""
    for url in make_login(server_url, database_url, "grant lookalike_app to {}"):
        with connect(url, application_name="test") as connection:
            advice = settle_rights(connection)
        assert advice is not None
        assert f'grant lookalike_owner to "{conninfo_to_dict(url)["user"]}"' in advice


def test_who_may_not_build_an_index_is_told_whom_to_ask(
    app_url: str, connection: Connection, broker_url: str, tmp_path: Path
) -> None:
    """`migrate` fails where an index is missing that its login may not make, and says what to ask for first."""
    connection.execute("drop index images_title_words")
    done = Lookalike(tmp_path, app_url, broker_url).run("migrate", check=False)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert f'grant lookalike_owner to "{conninfo_to_dict(app_url)["user"]}"' in said
    assert "must be owner of table images" in said


def test_compose_gives_each_program_its_login(server_url: str, database_url: str, tmp_path: Path) -> None:
    """The script that Postgres runs in docker-compose.yml makes three logins, twice over without harm: only the
    orchestrator can become the owner."""
    address = conninfo_to_dict(database_url)
    password = "a 'password' with \"quotes\" and \\"
    environment = {
        "PATH": f"{Postgres(Path()).program().parent}:{os.environ['PATH']}",
        **{f"PG{name.upper()}": str(address[name]) for name in ("host", "port", "password", "sslmode")},
        "POSTGRES_USER": str(address["user"]),
        "POSTGRES_DB": str(address["dbname"]),
        "PROGRAMS_PASSWORD_FILE": str(tmp_path / "programs_password"),
    }
    (tmp_path / "programs_password").write_text(password)
    script = Path(__file__).parents[2] / "infra" / "postgres" / "logins.sh"
    try:
        for _ in range(2):
            subprocess.run(["/bin/sh", script], env=environment, check=True)
        for login, may in (("worker", False), ("explorer", False), ("orchestrator", True)):
            url = make_conninfo(database_url, user=login, password=password)
            with connect(url, application_name="test") as connection:
                connection.execute("insert into images (key, url) values (current_user, 'file:///x')")
                assert not_refused(connection, ["create table lookalike.mine ()"]) == []
                assert bool(not_refused(connection, ["set local role lookalike_owner"])) == may
    finally:
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute("drop role if exists orchestrator, worker, explorer")
