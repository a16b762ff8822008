"""What several messages say together: of each image only the latest counts, in whatever order they arrived."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lookalike.images import AwaitedManifest, Image, Refused, Removal
from orchestrator.events.messages import Restored, Statement


@dataclass
class Batch:
    """What is to be done. No image is in both `images` and `removals`, so that their order does not matter."""

    images: list[Image] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    awaited: list[AwaitedManifest] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def combine(statements: Iterable[Statement]) -> Batch:
    """Sums statements up. Of those of one key the latest (`as_of`, of equal ones the one that came later) counts.

    A removal of an object does not take away the image of another one that has got its key meanwhile.
    """
    batch, latest, awaited = Batch(), dict[str, Image | Removal](), dict[str, AwaitedManifest]()
    said = list(statements)
    batch.refused = [each for each in said if isinstance(each, Refused)]
    for each in sorted((each for each in said if not isinstance(each, Refused)), key=_moment):
        if isinstance(each, AwaitedManifest):
            before = awaited.get(each.address)
            version = each.version or (before.version if before else None)
            awaited[each.address] = replace(each, version=version)
        elif isinstance(each, Removal):
            present = latest.get(each.key or "")
            if not (isinstance(present, Image) and each.url not in (None, present.url)):
                latest[each.key or ""] = each
        else:
            image = each.image if isinstance(each, Restored) else each
            latest[image.key] = image
            if isinstance(each, Restored):
                batch.restored.append(image.key)
    batch.images = [each for each in latest.values() if isinstance(each, Image)]
    batch.removals = [each for each in latest.values() if isinstance(each, Removal)]
    batch.awaited = list(awaited.values())
    return batch


def _moment(statement: Image | Removal | Restored | AwaitedManifest) -> str:
    """All times of messages are in UTC and of one form, so their text sorts as they do."""
    return (statement.image if isinstance(statement, Restored) else statement).as_of or ""
