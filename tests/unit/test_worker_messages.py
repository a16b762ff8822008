"""What a worker makes of messages: its own, those of other versions, and those of somebody else."""

import logging
from uuid import UUID

import pytest

from lookalike.contract import CONTRACT
from workers.messages import Message, read_message

LEASE = "0b2c9f0e-6a52-4a53-9f1d-0d0a3a3f6a11"


def test_a_message_of_our_contract_is_read() -> None:
    """Chunk, lease and contract, as the orchestrator sends them."""
    assert read_message([7, LEASE, CONTRACT]) == Message(chunk=7, lease=UUID(LEASE), contract=CONTRACT)


@pytest.mark.parametrize(
    ("words", "upgrade"),
    [
        ([7, LEASE, CONTRACT + 1], "this worker"),
        ([7, LEASE, CONTRACT + 1, {"new": "words"}], "this worker"),
        ([7, LEASE, CONTRACT - 1], "the orchestrator"),
        ([7, LEASE], "the orchestrator"),
    ],
)
def test_a_message_of_another_version_says_which_side_to_upgrade(
    words: list[object], upgrade: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left alone, so that the sweep gives its chunk to somebody else, and the log says what to do."""
    assert read_message(words) is None
    assert f"keeps contract {CONTRACT}: upgrade {upgrade};" in caplog.text


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["7; drop table chunks", LEASE, CONTRACT],
        [7, "no lease", CONTRACT],
        [7, LEASE, "1"],
        [7, LEASE, CONTRACT, "more"],
        [[7], {"lease": LEASE}, CONTRACT],
    ],
)
def test_a_message_that_is_not_ours_is_dropped(words: list[object], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is not exactly a message of ours changes nothing."""
    with caplog.at_level(logging.WARNING):
        assert read_message(words) is None
    assert caplog.records
