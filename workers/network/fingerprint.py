"""Fingerprints of encoders: no other driver, library or file may change the vectors of an archive unseen."""

import base64
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lookalike.encoders import EncoderSpec
from lookalike.errors import FingerprintError

# Below this cosine, two vectors of the same picture are not from the same encoder.
SAME = 0.999


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """What an encoder is and what it says.

    digest: SHA-256 in hexadecimal of its name, weights and preprocessing. vectors: float16 (4, d), of unit
    length, those of the reference images.
    """

    digest: str
    vectors: NDArray[np.float16]

    def to_json(self) -> dict[str, Any]:
        """As JSON: the digest and each vector in base64, half precision, little endian."""
        rows = self.vectors.astype("<f2")
        return {"digest": self.digest, "vectors": [base64.b64encode(row.tobytes()).decode() for row in rows]}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Fingerprint":
        """The inverse of `to_json`. Raises FingerprintError for anything else."""
        try:
            rows = [np.frombuffer(base64.b64decode(text, validate=True), "<f2") for text in stored["vectors"]]
            return cls(str(stored["digest"]), np.stack(rows).astype(np.float16))
        except (KeyError, TypeError, ValueError) as error:
            raise FingerprintError(f"the stored fingerprint cannot be read: {error!r}") from None


class Fingerprinted(Protocol):
    """An encoder, as far as this module is concerned."""

    spec: EncoderSpec

    @property
    def fingerprint(self) -> Fingerprint: ...


def check_fingerprint(encoder: Fingerprinted, stored: Fingerprint) -> None:
    """Raises FingerprintError unless the encoder is the one that `stored` was taken of.

    It is when the digests are equal and each reference image has the same vector up to a cosine of 0.999.
    """
    name, own = encoder.spec.name, encoder.fingerprint
    if own.digest != stored.digest:
        raise FingerprintError(
            f"{name}: other weights or preprocessing than those the archive was made with "
            f"({own.digest[:12]}, not {stored.digest[:12]}); give the changed encoder a name of its own"
        )
    ours, theirs = own.vectors.astype(np.float32), stored.vectors.astype(np.float32)
    cosines = (ours * theirs).sum(axis=1) if ours.shape == theirs.shape else np.zeros(1)
    # Written so that a NaN fails.
    if not (cosines >= SAME).all():
        raise FingerprintError(
            f"{name}: this machine's vectors differ from the archive's (cosine {cosines.min():.4f} on a "
            f"reference image, {SAME} is needed); compare driver, torch and device with the first worker's"
        )


def reference_images(side: int) -> NDArray[np.uint8]:
    """Four pictures, uint8 (4, side, side, 3), made by whole numbers alone: the same on every machine."""
    y, x = np.mgrid[0:side, 0:side]
    radius = (2 * x - side) ** 2 + (2 * y - side) ** 2
    pictures = (
        (255 * x // side, 255 * y // side, 255 * (x + y) // (2 * side)),  # slopes
        (x // 16 % 2 * 200, y // 24 % 2 * 220, (x // 16 + y // 16) % 2 * 255),  # checks
        (
            radius * 8 // side % 256,
            radius * 3 // side % 256,
            np.where(radius < side**2 // 2, 230, 40),
        ),  # rings
        (x ^ y, x * y // 16, (x * x + 3 * y) // 8),  # texture
    )
    return np.stack([np.stack(channels, axis=2) % 256 for channels in pictures]).astype(np.uint8)
