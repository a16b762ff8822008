"""Makes images, vectors and encoders for tests, without a network."""

import hashlib
from collections.abc import Sequence

import numpy as np

from lookalike import archive
from lookalike.database import Connection
from lookalike.encoders import EncoderSpec, Preprocessing
from lookalike.images import Image
from lookalike.ledger import ChunkImage
from lookalike.vectors import Vectors

# Small, so that tests of the ledger and of search are quick.
TINY = EncoderSpec(
    "tiny", 16, "none", "none", "halved", "none", Preprocessing(16, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)
)


def make_images(count: int, prefix: str = "image", content: str | None = None) -> list[Image]:
    """Images with keys `prefix/00000`, two to a work."""
    return [
        Image(
            f"{prefix}/{number:05}",
            f"http://localhost/{prefix}/{number:05}.jpg",
            work=f"{prefix}-{number // 2}",
            content=content,
        )
        for number in range(count)
    ]


def make_vectors(images: Sequence[ChunkImage], connection: Connection, encoder: str = "tiny") -> Vectors:
    """A random but repeatable unit vector for each image, by its key."""
    calibration = archive.load_calibration(connection, encoder)
    rows = [unit_vector(image.key, calibration.dimension) for image in images]
    vectors = np.array(rows, np.float32).reshape(len(rows), calibration.dimension)
    return Vectors(
        np.array([image.id for image in images], np.int64),
        np.array([image.revision for image in images], np.int32),
        np.array([checksum(image.key) for image in images], np.uint8).reshape(-1, 32),
        calibration.codes(vectors),
        vectors,
    )


def unit_vector(seed: str, dimension: int) -> np.ndarray:
    """A unit vector (dimension,), float32, that depends on the seed alone."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    vector = np.random.default_rng(number).standard_normal(dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


def checksum(text: str) -> np.ndarray:
    """A SHA-256 as uint8 (32,)."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
