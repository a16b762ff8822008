"""The encoders that lookalike knows: adding one is one entry in `ENCODERS`. No network is loaded here."""

from dataclasses import dataclass
from typing import Literal

from lookalike.errors import UnknownEncoderError


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the network's input: resize with antialiasing, centre crop, normalise.

    `resize` is the length in pixels of the shorter side after the resize (`squash` False), or of both sides
    (`squash` True, aspect ratio lost). `crop` is the side of the square cut from the centre. The network's
    input is `(pixel / 255 - mean) / std` for each of red, green, blue.
    """

    resize: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    squash: bool = False


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What is known of an encoder without loading it.

    `network` says whose code builds it and under which name there, `weights` is the name of the file of its
    weights; as with all of torchvision's, the part after the last hyphen is how the SHA-256 of the file
    begins. `distance` says how cosine similarity becomes a distance in 0..1: "clamped" is 1 - cos clamped to
    0..1, for vectors without negative values; "halved" is (1 - cos) / 2, for all others.
    """

    name: str
    dimension: int
    network: str
    weights: str
    distance: Literal["clamped", "halved"]
    licence: str
    preprocessing: Preprocessing


# Goes up when decoding or resizing changes what the networks see: then all vectors have to be made again.
PREPROCESSING_VERSION = 1

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# The weights were trained on (x - 127) / 128 over 0..255; see the package efficientnet-lite-pytorch.
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)

ENCODERS = {
    spec.name: spec
    for spec in (
        EncoderSpec(
            "efficientnet-lite0", 1280, "efficientnet-lite0", "efficientnet-lite0-57934424.pth", "clamped",
            "Apache-2.0",
            Preprocessing(256, 224, "bicubic", *_LITE),
        ),
        EncoderSpec(
            "resnet50", 2048, "torchvision.resnet50", "resnet50-11ad3fa6.pth", "clamped", "BSD-3-Clause",
            Preprocessing(232, 224, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
        ),
        EncoderSpec(
            "vgg16-fc7", 4096, "torchvision.vgg16", "vgg16-397923af.pth", "halved", "BSD-3-Clause",
            Preprocessing(256, 224, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
        ),
    )
}  # fmt: skip


def find_encoder(name: str) -> EncoderSpec:
    """Returns the encoder of this name. Raises UnknownEncoderError, which lists the names there are."""
    try:
        return ENCODERS[name]
    except KeyError:
        raise UnknownEncoderError(f"no encoder {name!r}; there are: {', '.join(sorted(ENCODERS))}") from None
