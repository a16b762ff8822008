"""Draws, from a seed, what befalls a run: how the web server misbehaves for each image, and which faults strike when.

The outcome of every image is known beforehand, whatever the faults do: done, or failed with one reason.
"""

from dataclasses import dataclass
from random import Random

DONE = "done"
# Answers that pass: the image is tried again. After LOOKALIKE_TRIES of them it has failed, for this reason.
PASSING = {
    "reset": "unreachable",
    "error": "server_error",
    "short": "incomplete",
    "html": "html_page",
    "endless": "timeout",
}
# Answers that are final at once.
FINAL = {
    "missing": "not_found",
    "refused": "forbidden",
    "loop": "rejected",
    "flood": "too_large",
    "cut": "truncated",
    "understated": "truncated",
    "empty": "empty",
}
# Shares of all images; answers that are slow, or ask for patience, bring the picture in the end. What waits for a time
# limit is rare, for a chunk lasts as long as its slowest image.
SHARE_RECOVERING, SHARE_FAILING, SHARE_SLOW, SHARE_BUSY = 0.12, 0.06, 0.03, 0.02
RARE = {"endless": 0.2}
MOST_BAD_ANSWERS = 2


@dataclass(frozen=True)
class Fate:
    """What the server answers for an image, request by request (the last for ever), and what must become of it."""

    key: str
    answers: tuple[str, ...]
    outcome: str

    @property
    def host(self) -> str:
        """By which name the server is asked: a busy host refuses all for a while, and is then asked less often."""
        return "localhost" if "busy" in self.answers else "127.0.0.1"


@dataclass(frozen=True)
class Blow:
    """One fault, or two at once, struck when this share of all images is settled."""

    kinds: tuple[str, ...]
    after: float


@dataclass(frozen=True)
class Plan:
    """All of a run that is left to chance."""

    seed: int
    fates: tuple[Fate, ...]
    blows: tuple[Blow, ...]


def draw_plan(seed: int, images: int, kinds: tuple[str, ...], singles: int, pairs: int) -> Plan:
    """A plan of so many blows with one fault, each of another kind as long as there are any, and with two at once."""
    random = Random(seed)
    fates = tuple(_draw_fate(random, number) for number in range(images))
    blows = [(kind,) for kind in random.sample(kinds, min(singles, len(kinds)))]
    blows += [tuple(random.sample(kinds, 2)) for _ in range(pairs)]
    random.shuffle(blows)
    # None in the last quarter: its images are all that is left to recover with.
    step = 0.75 / len(blows)
    times = [step * (number + random.uniform(0.2, 0.8)) for number in range(len(blows))]
    return Plan(seed, fates, tuple(Blow(kind, time) for kind, time in zip(blows, times, strict=True)))


def _draw_fate(random: Random, number: int) -> Fate:
    key = f"{number:05}.jpg"
    share = random.random()
    if share < SHARE_FAILING:
        kinds = PASSING | FINAL
        kind = _choose(random, tuple(kinds))
        return Fate(key, (kind,), kinds[kind])
    share -= SHARE_FAILING
    if share < SHARE_RECOVERING:
        bad = [_choose(random, tuple(PASSING)) for _ in range(random.randint(1, MOST_BAD_ANSWERS))]
        return Fate(key, (*bad, "good"), DONE)
    share -= SHARE_RECOVERING
    if share < SHARE_SLOW:
        return Fate(key, ("slow",), DONE)
    return Fate(key, ("busy",) if share - SHARE_SLOW < SHARE_BUSY else ("good",), DONE)


def _choose(random: Random, kinds: tuple[str, ...]) -> str:
    return random.choices(kinds, [RARE.get(kind, 1) for kind in kinds])[0]
