"""What a broker's message says to a worker. Whatever is not exactly that changes nothing, and is counted."""

import logging
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from lookalike.contract import CONTRACT
from lookalike.envelope import refusals

log = logging.getLogger(__name__)


class Message(BaseModel):
    """All that a message may hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chunk: Annotated[StrictInt, Field(ge=1, lt=2**63)]
    lease: UUID
    contract: StrictInt = 0


def read_message(words: Sequence[object]) -> Message | None:
    """The message in the arguments of a task: chunk, lease, contract. None when it is not for us.

    The contract is the third in every version, so that each can tell the others' messages.
    """
    if len(words) > 2 and isinstance(words[2], int) and words[2] > CONTRACT:
        _say(words[2])
        return None
    try:
        message = Message.model_validate(
            dict(zip(list(Message.model_fields)[: len(words)], words, strict=True))
        )
    except ValueError:  # pydantic's, or of too many words
        refusals.add("chunk, lease or contract")
        return None
    if message.contract != CONTRACT:
        _say(message.contract)
        return None
    return message


def _say(contract: int) -> None:
    """Why a message of another version is left alone: what it says may mean something else there."""
    older = "this worker" if contract > CONTRACT else "the orchestrator"
    log.error(
        "a message of contract %d was left alone, this worker keeps contract %d: upgrade %s;"
        " the chunk is given to a worker again",
        *(contract, CONTRACT, older),
    )
