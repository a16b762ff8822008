"""Refusals of sources as Prometheus must see them: from 0 on, so that a rule sees the first one.

It keeps names of sources and nothing of the archive.
"""

from lookalike.reasons import Reason

# Those that a rule of infra/monitoring counts.
WATCHED = (str(Reason.UNKNOWN_EVENT), str(Reason.FOREIGN_DELETION))


class Refusals:
    """Remembers which sources were seen: a series that is born with 1 has never grown."""

    def __init__(self) -> None:
        self._known: set[str] | None = None

    def see(self, names: set[str]) -> set[str]:
        """Which of these sources have come since the last look; none at the first."""
        new = names - self._known if self._known is not None else set[str]()
        self._known = (self._known or set()) | names
        return new


def with_zeros(refused: dict[str, int], is_new: bool) -> dict[str, int]:
    """Refusals by reason; the watched ones are 0 before the first, and where that came with a source that `is_new`."""
    zeros = dict.fromkeys(WATCHED, 0)
    return {**zeros, **refused, **zeros} if is_new else {**zeros, **refused}
