"""All classes of an image, as the network tells them: computed when somebody asks, and kept in memory for a while.

Stored are the five best. The rest needs the picture again, and the network.
"""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from explorer.pictures import Pictures
from explorer.problems import BusyError, describe
from explorer.records import ImageRecord
from lookalike.encoders import class_names, find_encoder
from lookalike.errors import EncoderError, ImageError
from lookalike.search import KnownImage

KEPT = 512


class UnavailableError(Exception):
    """The classes of the image cannot be told now."""


class Classes:
    """The probabilities of the classes of the images that were looked at last."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._kept: OrderedDict[tuple[str, str, str], NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def tell(self, image: KnownImage, record: ImageRecord, encoder: str) -> NDArray[np.float32]:
        """The probabilities (classes,). Raises UnavailableError, which says why in words for a page."""
        if not find_encoder(encoder).classifies:
            raise UnavailableError(f"{encoder} compares pictures without naming what they show.")
        asked = (encoder, image.key, f"{image.url} {record.changed_at}")
        with self._lock:
            if asked in self._kept:
                self._kept.move_to_end(asked)
                return self._kept[asked]
        told = self._compute(image, encoder)
        with self._lock:
            self._kept[asked] = told
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return told

    def _compute(self, image: KnownImage, encoder: str) -> NDArray[np.float32]:
        try:
            return self._pictures.classify(image, encoder)
        except ImageError as error:
            reason = error.reason.replace("_", " ")
            raise UnavailableError(f"The picture cannot be had now ({reason}).") from None
        except BusyError:
            raise UnavailableError(
                "The network is busy with other pictures: look again in a moment."
            ) from None
        except EncoderError as error:
            raise UnavailableError(f"Nothing is told: {describe(error).detail}.") from None


def from_labels(record: ImageRecord, encoder: str) -> NDArray[np.float32] | None:
    """The stored labels as probabilities (classes,), NaN where none is stored; None without labels."""
    numbers = {name: number for number, name in reversed(list(enumerate(class_names(encoder))))}
    known = [(numbers[one.label], one.probability) for one in record.labels if one.label in numbers]
    if not known:
        return None
    probabilities = np.full(len(class_names(encoder)), np.nan, np.float32)
    for number, probability in known:
        probabilities[number] = probability
    return probabilities
