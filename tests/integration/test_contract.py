"""Programs and databases of versions that do not fit: each side refuses clearly, and nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from lookalike import archive, ledger
from lookalike.contract import CONTRACT, check_contract
from lookalike.database import Connection
from lookalike.errors import ContractError
from lookalike.queue import Broker, make_app
from lookalike.services import Endpoints
from orchestrator.dispatch import Dispatcher
from tests.conftest import embedded_settings
from tests.factories import TINY, make_images
from tests.servers import Lookalike, wait_until
from workers.embedder import start_embedder
from workers.messages import read_message

LATER = CONTRACT + 1


@pytest.fixture
def lookalike(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Lookalike]:
    system = Lookalike(tmp_path, database_url, broker_url, LOOKALIKE_LEASE_SECONDS="3")
    yield system
    system.stop()


def set_contract(connection: Connection, version: int) -> None:
    connection.execute("update contract set version = %s", [version])


def test_the_database_keeps_the_contract_of_the_code(connection: Connection) -> None:
    """The number in the migrations is the number in the code."""
    check_contract(connection)


@pytest.mark.parametrize(
    ("spoil", "advice"),
    [
        (sql.SQL("update contract set version = {}").format(LATER), "upgrade lookalike on this machine"),
        (sql.SQL("drop table contract"), "run `lookalike migrate`"),
        (sql.SQL("delete from contract"), "run `lookalike migrate`"),
    ],
)
def test_a_database_of_another_version_is_refused(
    connection: Connection, spoil: sql.Composable, advice: str
) -> None:
    """It is said which contract each side keeps, and which side to upgrade."""
    connection.execute(spoil)
    with pytest.raises(ContractError, match=f"keeps contract {CONTRACT}.*{advice}"):
        check_contract(connection)


def test_a_command_refuses_a_later_database(connection: Connection, lookalike: Lookalike) -> None:
    """It ends with exit code 1 and the advice."""
    set_contract(connection, LATER)
    done = lookalike.run("failures", check=False)
    assert (done.returncode, "upgrade lookalike on this machine" in done.stderr) == (1, True)


def test_a_database_that_lacks_migrations_is_refused(
    connection: Connection, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of this version does not start on a schema of an earlier one, and says what to run."""
    connection.execute("delete from public.schema_migrations where version = '0013'")
    monkeypatch.setattr("workers.embedder.load_encoder", lambda name, settings: None)
    with pytest.raises(ContractError, match="the database lacks 1 migrations: run `lookalike migrate` first"):
        start_embedder(embedded_settings(tmp_path), Endpoints(database_url, "redis://unused"))


@pytest.mark.slow
def test_running_programs_leave_when_the_contract_is_raised(
    connection: Connection, lookalike: Lookalike, tmp_path: Path
) -> None:
    """Worker and orchestrator that run notice it within seconds, say so, and end with a code that is not 0."""
    worker = lookalike.start("worker")
    orchestrator = lookalike.start("orchestrate")

    def both_work() -> bool:
        beats = connection.execute("select count(*) from workers").fetchone()
        return beats == (1,) and orchestrator.poll() is None

    wait_until(both_work, 60, "the first heartbeat")
    set_contract(connection, LATER)
    for process in (worker, orchestrator):
        wait_until(lambda process=process: process.poll() is not None, 30, "the end of the process")
    assert (worker.returncode, orchestrator.returncode) == (76, 1)
    for log in ("worker-0.log", "orchestrate-1.log"):
        assert "upgrade lookalike on this machine" in (tmp_path / log).read_text()


def test_a_message_that_a_worker_left_alone_comes_again(
    connection: Connection, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk whose message a worker of another version refused stays queued, and is published again by the sweep."""
    archive.add_encoder(connection, TINY, chunk_size=1)
    ledger.register(connection, make_images(1), chunk_size=1)
    broker = Broker(broker_url)
    broker.was_wiped()
    settings = embedded_settings(tmp_path).model_copy(update={"encoder": "tiny"})
    dispatcher = Dispatcher(settings, connection, make_app(broker_url, "tiny"), broker)
    monkeypatch.setattr("lookalike.queue.CONTRACT", LATER)
    assert dispatcher.step() == 1
    words = take_message(broker_url)
    assert read_message(words) is None
    assert states(connection) == ["queued"]

    monkeypatch.undo()
    connection.execute("update chunks set lease_until = lease_until - interval '60 seconds'")
    dispatcher.sweep()
    assert dispatcher.step() == 1
    again = read_message(take_message(broker_url))
    assert again is not None
    assert ledger.start(connection, ledger.Lease(again.chunk, again.lease), "w", 60) is not None
    broker.close()


def take_message(broker_url: str) -> list[object]:
    """The arguments of the next message, as a worker gets them."""
    with make_app(broker_url, "tiny").connection_for_read() as opened:
        queue = opened.SimpleQueue("tiny.backfill")
        message = queue.get(timeout=5)
        message.ack()
        queue.close()
        words: list[object] = message.payload[0]
        return words


def states(connection: Connection) -> list[str]:
    return [str(state) for (state,) in connection.execute("select state from chunks").fetchall()]
