"""Says what one picture is, now and without storing it: its vector for reverse image search, and all its classes."""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders import Preprocessing, find_encoder
from lookalike.errors import EncoderError, ImageError
from lookalike.images import Protocol
from lookalike.reasons import Reason
from lookalike.settings import Settings
from workers.decode import decode
from workers.fetch import Fetcher
from workers.network import Encoder, load_encoder
from workers.pipeline import MARGIN


def embed_picture(
    address: str, encoder_name: str, settings: Settings, *, outside: bool = False
) -> NDArray[np.float32]:
    """Returns the vector (d,) of the picture at a path or URL. Raises ImageError with the reason.

    An operator's word on the command line is his own; whoever passes on the word of others says that it comes from
    `outside`: it may name no file, and leads only where the guard allows.
    """
    url = address if "://" in address else Path(address).expanduser().absolute().as_uri()
    encoder = load_encoder(encoder_name, settings)
    return _embed(encoder, _fetch(url, "file", encoder.preprocessing, settings, outside), settings)


def embed_upload(upload: BinaryIO, encoder_name: str, settings: Settings, limit: int) -> NDArray[np.float32]:
    """Returns the vector (d,) of a picture that somebody sends, of which no more than `limit` bytes are read.

    Raises ImageError with the reason, TOO_LARGE among them.
    """
    return _embed(load_encoder(encoder_name, settings), read_picture(upload, limit), settings)


class PictureEncoder:
    """Embeds one picture after another with an encoder that is loaded once; whoever calls does so from one thread."""

    def __init__(self, encoder_name: str, settings: Settings) -> None:
        self._encoder = load_encoder(encoder_name, settings)
        self._settings = settings

    def embed(self, data: bytes) -> NDArray[np.float32]:
        """Returns the vector (d,) of a file. Raises ImageError with the reason."""
        return _embed(self._encoder, data, self._settings)

    def classify(self, data: bytes) -> NDArray[np.float32]:
        """Returns the probabilities (classes,) of a file. Raises ImageError; EncoderError without a classifier."""
        return _classify(self._encoder, data, self._settings)


def fetch_known(
    url: str, protocol: Protocol, encoder_name: str, settings: Settings, *, outside: bool
) -> bytes:
    """The file of an image of the archive. Raises ImageError."""
    return _fetch(url, protocol, find_encoder(encoder_name).preprocessing, settings, outside)


def fetch_picture(address: str, encoder_name: str, settings: Settings) -> bytes:
    """The file at an address that an outsider names: on the web, and only where the guard allows. Raises ImageError."""
    # The guard knows hosts. A bucket would be opened with our own credentials, for whoever names it.
    if address.partition("://")[0].lower() not in ("http", "https"):
        raise ImageError(Reason.FORBIDDEN_ADDRESS, "write the address of a picture on the web: https://…")
    return _fetch(address, "file", find_encoder(encoder_name).preprocessing, settings, outside=True)


def read_picture(upload: BinaryIO, limit: int) -> bytes:
    """What somebody sends. Raises ImageError(TOO_LARGE) when it is more than `limit` bytes."""
    data = upload.read(limit + 1)
    if len(data) > limit:
        raise ImageError(Reason.TOO_LARGE, f"more than {limit} bytes")
    return data


def classify_picture(
    url: str, protocol: Protocol, encoder_name: str, settings: Settings, *, outside: bool
) -> NDArray[np.float32]:
    """Returns the probabilities (classes,) of an image. Raises ImageError; EncoderError without a classifier."""
    encoder = load_encoder(encoder_name, settings)
    data = _fetch(url, protocol, encoder.preprocessing, settings, outside)
    return _classify(encoder, data, settings)


def _classify(encoder: Encoder, data: bytes, settings: Settings) -> NDArray[np.float32]:
    classes = encoder.encode(_pixels(data, encoder.preprocessing, settings)).classes
    if classes is None:
        raise EncoderError("the encoder has no classifier")
    best: NDArray[np.float32] = classes[0]
    return best


def _embed(encoder: Encoder, data: bytes, settings: Settings) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = encoder.encode(_pixels(data, encoder.preprocessing, settings)).vectors[0]
    if not np.isfinite(vector).all():
        raise ImageError(Reason.INVALID_VECTOR, "NaN, infinite or zero")
    return vector


def _fetch(
    url: str, protocol: Protocol, preprocessing: Preprocessing, settings: Settings, outside: bool
) -> bytes:
    fetcher = Fetcher(settings)
    try:
        side = math.ceil(preprocessing.resize * MARGIN)
        return fetcher.fetch(url, protocol, side, outside=outside).data
    finally:
        fetcher.close()


def _pixels(data: bytes, preprocessing: Preprocessing, settings: Settings) -> NDArray[np.uint8]:
    """The picture as a batch of one, uint8 (1, crop, crop, 3)."""
    pixels = np.empty((1, preprocessing.crop, preprocessing.crop, 3), np.uint8)
    decode(data, preprocessing, pixels[0], settings.max_pixels)
    return pixels
