"""Passwords and TLS by address, programs with no more rights than they need, and no secret in anything they say."""

import json
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import psycopg
import pytest
import redis

from cli import main as cli
from lookalike.database import connect
from lookalike.errors import ServiceError
from lookalike.queue import Broker, make_app
from lookalike.services import Endpoints
from tests.conftest import new_database
from tests.pictures import jpeg, photographs
from tests.servers import Lookalike, http_server, wait_until
from tests.tls import make_certificate, tls_proxy

# Characters that an address has to quote, and that a shell, SQL or a regular expression would stumble over.
PASSWORD = "pass/word%?@:'\" " + secrets.token_hex(6)
SECRET = "SIGNATURE" + secrets.token_hex(8)


@dataclass(frozen=True)
class Secured:
    """Addresses with TLS and passwords, and all the secrets that are in them."""

    certificate: Path
    owner_url: str
    app_url: str
    broker_url: str
    secrets: tuple[str, ...]


@pytest.fixture(scope="module")
def secured(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """An empty database of an owner that is no superuser, with a login for programs; TLS in front of both servers."""
    certificate = make_certificate(tmp_path_factory.mktemp("tls"))
    postgres, valkey = urlsplit(endpoints.database_url), urlsplit(endpoints.broker_url)
    words = quote(PASSWORD, safe="")
    for bare_url in new_database(endpoints.database_url, "template0"):
        name = urlsplit(bare_url).path[1:]
        with psycopg.connect(bare_url, autocommit=True) as admin:
            prepare(admin, name)
        with (
            tls_proxy(postgres.port or 0, certificate, postgres=True) as port,
            tls_proxy(valkey.port or 0, certificate, postgres=False) as broker_port,
        ):
            place = f"localhost:{port}/{name}?sslmode=verify-full&sslrootcert={certificate}"
            yield Secured(
                certificate,
                f"postgresql://migrator:{words}@{place}",
                f"postgresql://program:{words}@{place}",
                f"rediss://:{valkey.password}@localhost:{broker_port}/0"
                f"?ssl_cert_reqs=required&ssl_ca_certs={certificate}",
                (PASSWORD, words, str(valkey.password), SECRET),
            )
        with psycopg.connect(bare_url, autocommit=True) as admin:
            admin.execute("drop owned by migrator, program cascade")
    with psycopg.connect(endpoints.database_url, autocommit=True) as admin:
        admin.execute("drop role migrator, program")


def prepare(admin: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    """What an administrator does once; docs/access.md has it."""
    for role in ("lookalike_owner", "lookalike_app", "analyst"):
        if admin.execute("select to_regrole(%s)", [role]).fetchone() == (None,):
            admin.execute(f"create role {role} nologin".encode())
    password = psycopg.sql.Literal(PASSWORD)
    for login, role in (("migrator", "lookalike_owner"), ("program", "lookalike_app")):
        statement = psycopg.sql.SQL("create role {} login password {} in role {}")
        admin.execute(
            statement.format(*map(psycopg.sql.Identifier, [login]), password, psycopg.sql.Identifier(role))
        )
    admin.execute(f"alter database {name} owner to lookalike_owner".encode())
    admin.execute("create extension vector")


def test_the_main_job_as_program_over_tls(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Migrated as owner, run as program, both servers over verified TLS, with passwords that stand beside the addresses
    as in containers: images are embedded, a failure is listed, and neither output nor logs hold a secret."""
    with redis.Redis.from_url(secured.broker_url) as client:
        client.flushall()
    for number, picture in enumerate(photographs()[:6]):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(picture, 90))
    rows = [{"key": f"k{n}", "url": str(tmp_path / f"{n}.jpg")} for n in range(6)]
    rows.append({"key": "signed", "url": f"https://127.0.0.1:1/x.jpg?X-Amz-Signature={SECRET}"})
    (tmp_path / "images.jsonl").write_text("\n".join(map(json.dumps, rows)))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_URL", secured.broker_url)
    monkeypatch.setenv("DATABASE_URL", secured.owner_url)
    assert run_in_process(["migrate"], monkeypatch) == 0
    database_url, database_password = taken_out(secured.app_url)
    broker_url, broker_password = taken_out(secured.broker_url)
    beside = {"DATABASE_PASSWORD": database_password, "BROKER_PASSWORD": broker_password}
    done = Lookalike(tmp_path, database_url, broker_url, LOOKALIKE_TRIES="1", **beside).run(
        "run", "images.jsonl", "--json"
    )
    counted = json.loads(done.stdout)
    assert {name: counted[name] for name in ("done", "failed", "open", "complete", "failures")} == {
        "done": 6, "failed": 1, "open": 0, "complete": True, "failures": {"unreachable": 1},
    }  # fmt: skip
    monkeypatch.setenv("DATABASE_URL", secured.app_url)
    for words in (["audit"], ["failures"], ["failures", "--json"], ["services", "status", "--json"]):
        assert run_in_process(words, monkeypatch) == 0
    said = capfd.readouterr()
    text = said.out + said.err + done.stdout + done.stderr + (tmp_path / "worker.log").read_text()
    assert [secret for secret in secured.secrets if secret in text] == []


def taken_out(url: str) -> tuple[str, str]:
    """An address without its password, and that."""
    parts = urlsplit(url)
    assert parts.password is not None
    return url.replace(f":{parts.password}@", "@", 1).replace("//@", "//", 1), unquote(parts.password)


def test_a_server_that_cannot_prove_who_it_is_is_refused(secured: Secured, tmp_path: Path) -> None:
    """A certificate of another authority ends the connection before a password is sent, at both servers."""
    other = make_certificate(tmp_path / "other")
    wrong = secured.app_url.replace(str(secured.certificate), str(other))
    with pytest.raises(ServiceError, match="certificate verify failed") as caught:
        connect(wrong, application_name="test")
    assert PASSWORD not in str(caught.value)
    broker = Broker(secured.broker_url.replace(str(secured.certificate), str(other)))
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        broker.was_wiped()
    app = make_app(secured.broker_url.replace(str(secured.certificate), str(other)), "tiny")
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"), app.connection_for_write() as opened:
        opened.ensure_connection(max_retries=1, timeout=2)


# Addresses that do not work, each with a password in it.
BAD_DATABASES = {
    "wrong password": "postgresql://lookalike:{secret}@{place}",
    "unreachable": "postgresql://me:{secret}@127.0.0.1:1/x",
    "no such host": "postgresql://me:{secret}@nowhere.invalid/x",
    "no port": "postgresql://me:{secret}@127.0.0.1:port/x",
    "no address": "postgres//me:{secret}@host",
    "unquoted": "postgresql://me:a/{secret}@b@127.0.0.1:1/x",
    "unknown option": "postgresql://me:{secret}@127.0.0.1:1/x?password={secret}&what=1",
    "key=value": "host=127.0.0.1 port=1 user=me password='{secret} x' dbname=x",
    "broken key=value": "host=127.0.0.1 password='{secret}",
}
BAD_BROKERS = {
    "wrong password": "redis://:{secret}@{place}/0",
    "unreachable": "redis://me:{secret}@127.0.0.1:1/0",
    "no port": "redis://:{secret}@127.0.0.1:port/0",
    "unknown scheme": "amqq://me:{secret}@127.0.0.1/",
    "no address": ":{secret}@127.0.0.1",
}


def run_in_process(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The command, without a process of its own; returns its exit code."""
    monkeypatch.setattr("sys.argv", ["lookalike", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("fault", BAD_DATABASES)
def test_a_database_that_does_not_work_tells_no_password(
    fault: str,
    endpoints: Endpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is wrong with DATABASE_URL: a line says so, the exit code is 1, and the password is nowhere."""
    place = endpoints.database_url.partition("@")[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", BAD_DATABASES[fault].format(secret=SECRET, place=place))
    monkeypatch.setenv("BROKER_URL", endpoints.broker_url)
    with caplog.at_level(logging.DEBUG):
        for words in (["status", "--json"], ["migrate"], ["audit"], ["services", "status", "--json"]):
            code = run_in_process(words, monkeypatch)
            assert code == (0 if words[0] == "services" else 1)
    said = capfd.readouterr()
    assert "lookalike:" in said.err
    assert SECRET not in said.out + said.err + caplog.text


@pytest.mark.parametrize("fault", BAD_BROKERS)
def test_a_broker_that_does_not_work_tells_no_password(
    fault: str,
    database_url: str,
    endpoints: Endpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is wrong with BROKER_URL: the command says so, and the password is in no output and no log."""
    place = endpoints.broker_url.partition("@")[2].partition("/")[0]
    url = BAD_BROKERS[fault].format(secret=SECRET, place=place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", url)
    with caplog.at_level(logging.DEBUG):
        assert run_in_process(["services", "status", "--json"], monkeypatch) == 0
    said = capfd.readouterr()
    assert '"running": false' in said.out
    assert SECRET not in said.out + said.err + caplog.text


@pytest.mark.parametrize(
    "source",
    [
        f"http://me:{SECRET}@{{place}}/manifest",
        f"http://{{place}}/manifest?X-Amz-Signature={SECRET}",
        f"http://{{place}}/images.csv?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}",
        "s3://nowhere/prefix",
    ],
    ids=["password", "signed manifest", "signed table", "keys of AWS"],
)
def test_a_source_that_does_not_work_tells_no_secret(
    source: str,
    database_url: str,
    endpoints: Endpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A signed address, one with a password, and AWS keys: neither `add` nor `status` says them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", endpoints.broker_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with caplog.at_level(logging.INFO), http_server({}) as address:
        place = address.removeprefix("http://")
        assert run_in_process(["add", source.format(place=place)], monkeypatch) == 1
        assert run_in_process(["status", "--json"], monkeypatch) == 0
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err + caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["DATABASE_URL", "BROKER_URL"])
def test_programs_that_wait_for_a_server_tell_no_password(
    wrong: str, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    """Worker and orchestrator that cannot log in say so, and never the password."""
    urls = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    place = urls[wrong].partition("@")[2]
    user = "lookalike" if wrong == "DATABASE_URL" else ""
    urls[wrong] = f"{urls[wrong].partition('://')[0]}://{user}:{SECRET}@{place}"
    system = Lookalike(tmp_path, urls["DATABASE_URL"], urls["BROKER_URL"])
    try:
        system.start("worker")
        system.start("orchestrate")
        for log in ("worker-0.log", "orchestrate-1.log"):
            wait_until(lambda log=log: "assword" in (tmp_path / log).read_text(), 120, log)
    finally:
        system.stop()
    assert SECRET not in system.logs()
