"""Says what one picture is, now and without storing it: its vector for reverse image search, and all its classes."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders import Preprocessing
from lookalike.errors import EncoderError, ImageError
from lookalike.images import Protocol
from lookalike.reasons import Reason
from lookalike.settings import Settings
from workers.decode import decode
from workers.fetch import Fetcher
from workers.network import load_encoder
from workers.pipeline import MARGIN


def embed_picture(address: str, encoder_name: str, settings: Settings) -> NDArray[np.float32]:
    """Returns the vector (d,) of the picture at a path or URL. Raises ImageError with the reason."""
    url = address if "://" in address else Path(address).expanduser().absolute().as_uri()
    encoder = load_encoder(encoder_name, settings)
    vector: NDArray[np.float32] = encoder.encode(
        _pixels(url, "file", encoder.preprocessing, settings)
    ).vectors[0]
    if not np.isfinite(vector).all():
        raise ImageError(Reason.INVALID_VECTOR, address)
    return vector


def classify_picture(
    url: str, protocol: Protocol, encoder_name: str, settings: Settings
) -> NDArray[np.float32]:
    """Returns the probabilities (classes,) of an image. Raises ImageError; EncoderError without a classifier."""
    encoder = load_encoder(encoder_name, settings)
    classes = encoder.encode(_pixels(url, protocol, encoder.preprocessing, settings)).classes
    if classes is None:
        raise EncoderError(f"{encoder_name} has no classifier")
    best: NDArray[np.float32] = classes[0]
    return best


def _pixels(
    url: str, protocol: Protocol, preprocessing: Preprocessing, settings: Settings
) -> NDArray[np.uint8]:
    """The picture as a batch of one, uint8 (1, crop, crop, 3)."""
    fetcher = Fetcher(settings)
    try:
        data = fetcher.fetch(url, protocol, math.ceil(preprocessing.resize * MARGIN)).data
    finally:
        fetcher.close()
    pixels = np.empty((1, preprocessing.crop, preprocessing.crop, 3), np.uint8)
    decode(data, preprocessing, pixels[0], settings.max_pixels)
    return pixels
