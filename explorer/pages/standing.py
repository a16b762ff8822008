"""What people say of an image, in words, and what they can say next."""

from dataclasses import dataclass

from explorer.records import ImageRecord


@dataclass(frozen=True, slots=True)
class Choice:
    """A button: what it says, the state that it gives the image in a set, and the key that presses it."""

    words: str
    state: str
    set: str | None
    key: str
    id: str


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


def choices(image: ImageRecord) -> list[Choice]:
    """The buttons that change something."""
    if image.unwanted:
        return [Choice("Fine", "fine", None, "f", "fine"), Choice("Undo", "undo", None, "z", "undo")]
    undo = [Choice("Undo", "undo", None, "z", "undo")] if last_word(image) else []
    return [Choice("Unwanted", "unwanted", None, "u", "unwanted"), *undo]
