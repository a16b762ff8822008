"""What people say of an image, in words, and what they can say next."""

from dataclasses import dataclass

from explorer.records import Decision, ImageRecord


@dataclass(frozen=True, slots=True)
class Choice:
    """A button: what it says, the state that it gives the image, and the key that presses it. `decision` is the number
    of the one that it takes back, so that to press it twice takes back no other."""

    words: str
    state: str
    key: str
    id: str
    decision: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What holds of an image."""

    sentence: str


def last_word(image: ImageRecord) -> Said | None:
    """What was decided of the image last; None when nobody said anything."""
    decided = [one for one in image.standing if one.decided_at is not None]
    if not decided:
        return None
    last = max(decided, key=lambda one: one.decided_at.timestamp() if one.decided_at else 0.0)
    verdict = "Unwanted: searches leave it out" if image.unwanted else "Fine: it stays in searches"
    return Said(f"{verdict}. {last.decided_by} said so on {last.decided_at:%-d %B %Y at %H:%M}.")


def choices(image: ImageRecord, last: Decision | None) -> list[Choice]:
    """The buttons that change something; `last` is what can be taken back."""
    undo = [Choice("Undo", "undo", "z", "undo", last.id)] if last else []
    if image.unwanted:
        return [Choice("Fine", "fine", "f", "fine"), *undo]
    candidate = any(one.state == "candidate" for one in image.standing)
    fine = [Choice("Fine", "fine", "f", "fine")] if candidate else []
    return [Choice("Unwanted", "unwanted", "u", "unwanted"), *fine, *undo]
