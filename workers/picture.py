"""Embeds one picture from outside the archive, for reverse image search."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookalike.errors import ImageError
from lookalike.reasons import Reason
from lookalike.settings import Settings
from workers.decode import decode
from workers.fetch import Fetcher
from workers.network import load_encoder


def embed_picture(address: str, encoder_name: str, settings: Settings) -> NDArray[np.float32]:
    """Returns the vector (d,) of the picture at a path or URL. Raises ImageError with the reason."""
    url = address if "://" in address else Path(address).expanduser().absolute().as_uri()
    fetcher = Fetcher(settings)
    try:
        data = fetcher.fetch(url, "file", 0).data
    finally:
        fetcher.close()
    encoder = load_encoder(encoder_name, settings)
    crop = encoder.preprocessing.crop
    pixels = np.empty((1, crop, crop, 3), np.uint8)
    decode(data, encoder.preprocessing, pixels[0], settings.max_pixels)
    vector: NDArray[np.float32] = encoder.encode(pixels).vectors[0]
    if not np.isfinite(vector).all():
        raise ImageError(Reason.INVALID_VECTOR, address)
    return vector
