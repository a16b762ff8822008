"""Whatever order registration, leases, crashes, lost messages and retries come in, the books balance."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from lookalike import archive, books, ledger, sweeping
from lookalike.database import Connection
from lookalike.errors import LostLeaseError
from lookalike.ledger import Chunk, Failure, Lease, Postponement, RetryPolicy
from lookalike.reasons import Reason
from tests.factories import TINY, make_images, make_vectors

POLICY = RetryPolicy(tries=2, seconds=0.001)
FATES = st.sampled_from(["vector", Reason.NOT_FOUND, Reason.TIMEOUT, "postponed"])


class LedgerMachine(RuleBasedStateMachine):
    """Drives the real ledger on a real Postgres; what it knows of a chunk is what a worker would know."""

    connection: Connection
    leases = Bundle("leases")
    chunks = Bundle("chunks")

    @initialize()
    def empty(self) -> None:
        self.connection.execute("truncate images, chunks, failures, vectors_tiny restart identity cascade")
        self.contents = 0

    @rule(prefix=st.sampled_from("ab"), count=st.integers(1, 9), chunk_size=st.integers(1, 5))
    def register(self, prefix: str, count: int, chunk_size: int) -> None:
        """Announces some images, new or not."""
        ledger.register(self.connection, make_images(count, prefix), chunk_size=chunk_size)

    @rule(prefix=st.sampled_from("ab"), count=st.integers(1, 4))
    def change(self, prefix: str, count: int) -> None:
        """Announces images with new content, as events do."""
        self.contents += 1
        ledger.register(
            self.connection, make_images(count, prefix, str(self.contents)), "events", chunk_size=1
        )

    @rule(target=leases, lane=st.sampled_from(ledger.LANES))
    def lease(self, lane: ledger.Lane) -> Lease | None:
        """Claims a chunk of a lane, if one is due."""
        self.connection.execute("update chunks set not_before = now() where state = 'pending'")
        claims = ledger.lease(self.connection, "tiny", lane, window=50, seconds=60, batch=1)
        return claims[0] if claims else None

    @rule(target=chunks, claim=leases)
    def start(self, claim: Lease | None) -> Chunk | None:
        """Delivers a message, perhaps for the second time."""
        return ledger.start(self.connection, claim, "w", 60) if claim else None

    @rule(chunk=chunks, data=st.data())
    def finish(self, chunk: Chunk | None, data: st.DataObject) -> None:
        """A worker finishes a chunk, perhaps one that it has lost."""
        if chunk is None:
            return
        fates = [data.draw(FATES) for _ in chunk.images]
        done = [image for image, fate in zip(chunk.images, fates, strict=True) if fate == "vector"]
        failures = [
            Failure(image, fate)
            for image, fate in zip(chunk.images, fates, strict=True)
            if isinstance(fate, Reason)
        ]
        later = [image for image, fate in zip(chunk.images, fates, strict=True) if fate == "postponed"]
        postponed = [Postponement([image], 0.001, True) for image in later]
        try:
            vectors = make_vectors(done, self.connection)
            ledger.finish(self.connection, chunk, vectors, failures, POLICY, postponed)
        except LostLeaseError:
            state = self.connection.execute(
                "select lease from chunks where id = %s", [chunk.lease.chunk]
            ).fetchone()
            assert state != (chunk.lease.lease,)

    @rule(chunk=consumes(chunks))
    def give_back(self, chunk: Chunk | None) -> None:
        """A worker stops."""
        if chunk is not None:
            ledger.give_back(self.connection, chunk.lease)

    @rule()
    def crash(self) -> None:
        """All workers fall silent."""
        self.connection.execute("update chunks set lease_until = '-infinity' where lease is not null")
        sweeping.sweep(self.connection)

    @rule()
    def wipe_broker(self) -> None:
        """All messages are lost."""
        sweeping.give_back_queued(self.connection, None, None, 3600)

    @rule()
    def retry(self) -> None:
        """Somebody has all failures tried again."""
        books.retry(self.connection, "tiny", chunk_size=3)

    @invariant()
    def books_balance(self) -> None:
        """Nothing is lost, nothing is counted twice, and no vector belongs to nobody."""
        counted = books.count_books(self.connection, "tiny")
        assert counted.balanced, counted
        assert [f.count for f in books.audit(self.connection, "tiny")][:4] == [0, 0, 0, 0]
        failed_and_done = self.connection.execute(
            "select count(*) from failures f join vectors_tiny v using (image_id, revision)"
        ).fetchone()
        assert failed_and_done == (0,)

    def teardown(self) -> None:
        """From any state, workers that do their job bring everything to an end."""
        self.crash()
        for _ in range(1000):
            claims = [c for lane in ledger.LANES if (c := self.lease(lane))]
            if not claims:
                break
            for claim in claims:
                chunk = ledger.start(self.connection, claim, "w", 60)
                assert chunk is not None
                ledger.finish(self.connection, chunk, make_vectors(chunk.images, self.connection), [], POLICY)
        assert books.count_books(self.connection, "tiny").complete


@pytest.fixture
def machine(connection: Connection) -> type[LedgerMachine]:
    archive.add_encoder(connection, TINY, chunk_size=4)

    class Connected(LedgerMachine):
        pass

    Connected.connection = connection
    return Connected


def test_the_books_balance_after_any_history(machine: type[LedgerMachine]) -> None:
    """Random histories of the whole ledger: each step leaves balanced books, and each history can be completed."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
