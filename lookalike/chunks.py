"""Chunks and what becomes of their images: the words of the ledger, and its rules for what is tried again, and when.

Nothing here asks the database; lookalike.ledger does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import random
from typing import Literal
from uuid import UUID

from lookalike.images import Protocol
from lookalike.reasons import Reason

Lane = Literal["events", "backfill", "suspect", "analysis"]
# The order is the order in which workers serve them.
LANES: tuple[Lane, ...] = ("events", "suspect", "backfill", "analysis")
# The longest pause that a host may ask for before an image of it is tried again, in seconds.
LONGEST_PAUSE = 3600


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on a chunk; it is all that a message carries."""

    chunk: int
    lease: UUID


@dataclass(frozen=True, slots=True)
class ChunkImage:
    """An image as the worker needs it; `outside`: its address is not the operator's own, see Image."""

    id: int
    key: str
    url: str
    protocol: Protocol
    revision: int
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """A started chunk with its images: those that still need a vector, or, for an analysis, all that have one.

    `waited` says for how many seconds their host has refused all requests.
    """

    lease: Lease
    encoder: str
    lane: Lane
    attempts: int
    images: list[ChunkImage]
    analysis: int | None = None
    waited: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One image of a chunk that has no vector; `retry_after` in seconds where the host named them.

    `passing`: it may pass although its reason is final, as when a host refuses everything for a while.
    """

    image: ChunkImage
    reason: Reason
    detail: str = ""
    retry_after: float | None = None
    passing: bool = False

    @property
    def transient(self) -> bool:
        """Whether another try may help."""
        return self.reason.transient or self.passing


@dataclass(frozen=True, slots=True)
class Postponement:
    """Images of a chunk that come back after so many seconds, since their host could not be asked: no attempt is spent.

    `paused`: it refuses all requests. Otherwise they wait for their turn.
    """

    images: list[ChunkImage]
    seconds: float
    paused: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a transient failure is tried, and the pause in seconds before the second try (then doubling).

    `patience`: for how many seconds a host may refuse all requests before its images fail.
    """

    tries: int
    seconds: float
    patience: float = 168 * 3600


def may_repeat(chunk: Chunk, failure: Failure, policy: RetryPolicy) -> bool:
    """Whether an image that failed is to be tried again after this chunk."""
    return failure.transient and chunk.attempts + 1 < policy.tries


def pause_before(chunk: Chunk, failures: Sequence[Failure], policy: RetryPolicy) -> float:
    """Seconds until images of a chunk are tried again: 2^n x (0.5 .. 1.5) pauses, or as long as a host asked."""
    pause: float = policy.seconds * 2**chunk.attempts * (0.5 + random())
    asked = max((f.retry_after or 0 for f in failures), default=0)
    return max(pause, min(asked, LONGEST_PAUSE))


def divide(
    chunk: Chunk, postponed: Sequence[Postponement], policy: RetryPolicy
) -> tuple[list[Postponement], list[Failure]]:
    """Those that may wait on, and those whose host has been refusing for longer than anybody's patience."""
    if chunk.waited is None or chunk.waited <= policy.patience:
        return list(postponed), []
    failed = [
        Failure(image, Reason.THROTTLED, f"{one.detail}, for {chunk.waited / 3600:.0f} hours")
        for one in postponed
        if one.paused
        for image in one.images
    ]
    return [one for one in postponed if not one.paused], failed
