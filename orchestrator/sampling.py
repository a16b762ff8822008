"""Reads sources to count what they hold and to keep a few images of them. It registers nothing."""

import random
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

from lookalike.images import AwaitedManifest, Image, Notice, Refused, Removal
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import read_source


@dataclass
class Sample:
    """Some images of one or more sources, and what these announced.

    `announced` counts images, `refused` records by reason, `removals` images said to be gone. `seconds` is the time
    it took to read all of this. An image that is announced twice counts twice.
    """

    images: list[Image] = field(default_factory=list)
    announced: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    removals: int = 0
    seconds: float = 0.0

    @property
    def seconds_per_image(self) -> float:
        """Time to read an image; refused records are part of it."""
        return self.seconds / max(1, self.announced)


def sample_evenly(
    specs: Sequence[str], settings: Settings, size: int, on_read: Callable[[Sample], None] = lambda _: None
) -> Sample:
    """Reads the sources to their ends and keeps `size` images, each with the same chance (Vitter's algorithm R).

    The same sources give the same sample. Raises SourceError.
    """
    sample = Sample()
    chance = random.Random(0)  # noqa: S311 - no secret, and to be repeatable
    since = time.perf_counter()
    for image in _images(_notices(specs, settings), sample, on_read):
        if len(sample.images) < size:
            sample.images.append(image)
        elif (place := chance.randrange(sample.announced)) < size:
            sample.images[place] = image
    sample.seconds = time.perf_counter() - since
    return sample


def sample_first(
    specs: Sequence[str], settings: Settings, size: int, on_read: Callable[[Sample], None] = lambda _: None
) -> Sample:
    """Reads no more than it needs: the first images of each source, `size` in all. Raises SourceError."""
    sample = Sample()
    since = time.perf_counter()
    for number, spec in enumerate(specs):
        wanted = (size - len(sample.images)) // (len(specs) - number)
        with closing(_images(_notices([spec], settings), sample, on_read)) as images:
            sample.images += islice(images, wanted)
    sample.seconds = time.perf_counter() - since
    return sample


def _notices(specs: Sequence[str], settings: Settings) -> Iterator[Notice]:
    for spec in specs:
        yield from read_source(spec, settings)


def _images(
    notices: Iterable[Notice], sample: Sample, on_read: Callable[[Sample], None]
) -> Generator[Image, None, None]:
    """The images among the notices; counts all in the sample."""
    for notice in notices:
        if isinstance(notice, Image):
            sample.announced += 1
            if sample.announced % 1000 == 0:
                on_read(sample)
            yield notice
        elif isinstance(notice, Refused):
            sample.refused[str(notice.reason)] += 1
        elif isinstance(notice, AwaitedManifest):
            sample.refused[str(Reason.UNREACHABLE)] += 1
        elif isinstance(notice, Removal):
            sample.removals += 1
