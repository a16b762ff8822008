"""Builds networks that take centred pixels, with what their weights allow folded into the convolutions.

Folding never changes what a network computes beyond the last digits of float32.
"""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lookalike.encoders import EncoderSpec, Preprocessing
from lookalike.errors import EncoderError, WeightsError

State = dict[str, Tensor]


class Network(nn.Module):
    """Centred pixels, float32 (n, 3, crop, crop) channels_last -> features (n, d), logits (n, 1000) or None.

    `body` makes the features, `classifier` the logits from them. Centred means `pixel - 255 mean`; the
    division by `255 std` is in the first convolution of the body.
    """

    def __init__(self, body: nn.Module, classifier: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier

    def forward(self, centred: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.body(centred)
        return features, None if self.classifier is None else self.classifier(features)


def build_network(spec: EncoderSpec, state: State) -> Network:
    """Builds the encoder's network with the weights `state`, ready to run: eval mode, folded, channels_last.

    Raises WeightsError when the weights are not this network's, EncoderError when the encoder's preprocessing
    is not what its weights come with.
    """
    source, _, name = spec.network.rpartition(".")
    network = _torchvision(name, spec, state) if source == "torchvision" else _efficientnet_lite(spec, state)
    _fold_scale(network, spec.preprocessing)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def _make(build: Callable[[], Any], spec: EncoderSpec, state: State) -> Any:
    """The network that `build` makes, with the weights, in eval mode, batch norms folded."""
    # Without memory at first: random weights that are thrown away take seconds for a large network.
    with torch.device("meta"):
        network = build()
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        fault = " ".join(str(error).split())[:200]
        raise WeightsError(f"{spec.weights} does not fit {spec.network}: {fault}") from None
    _fold_batch_norms(network.eval())
    return network


# EfficientNet-lite ------------------------------------------------------------------------------------------


class _LiteFeatures(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.network.extract_features(pixels)).mean((2, 3))


def _efficientnet_lite(spec: EncoderSpec, state: State) -> Network:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise WeightsError(
            f"{spec.name} needs efficientnet-lite-pytorch: pip install 'lookalike[local]'"
        ) from None
    network = _make(lambda: EfficientNet.from_name(spec.network), spec, state)
    classifier, network._fc = network._fc, nn.Identity()
    for holder in (network, *network._blocks):
        for name in ("_conv_stem", "_expand_conv", "_depthwise_conv", "_conv_head"):
            if hasattr(holder, name):
                setattr(holder, name, _PaddedRelu6.of(getattr(holder, name)))
        holder._swish = nn.Identity()
    return Network(_LiteFeatures(network), classifier)


class _PaddedRelu6(nn.Conv2d):
    """A convolution with TensorFlow's uneven padding and the ReLU6 after it, in one pass over memory."""

    @classmethod
    def of(cls, convolution: Any) -> "_PaddedRelu6":
        """Takes over a convolution of efficientnet-lite-pytorch, where padding is a layer of its own.

        The uneven padding of a stride of 2 becomes an even one for a kernel that is enlarged by a row and a
        column of zeros at the side that is padded less.
        """
        left, right, top, bottom = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
        weight = functional.pad(convolution.weight, (right - left, 0, bottom - top, 0))
        made = cls(
            convolution.in_channels,
            convolution.out_channels,
            (weight.shape[2], weight.shape[3]),
            stride=tuple(convolution.stride),
            padding=(bottom, right),
            groups=convolution.groups,
        )
        made.weight, made.bias = nn.Parameter(weight, False), convolution.bias
        return made

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.device.type == "cpu" and (fused := _fused_relu6()):
            return fused(self, pixels)
        return functional.relu6(super().forward(pixels), inplace=True)


@cache
def _fused_relu6() -> Callable[[nn.Conv2d, Tensor], Tensor] | None:
    """oneDNN's convolution with ReLU6 in its loop, which makes the network a tenth faster; None where missing.

    torch's own compiler uses this operator but does not promise it: so it is tried and compared before it is
    trusted.
    """

    def fused(layer: nn.Conv2d, pixels: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(
            pixels, layer.weight, layer.bias, layer.padding, layer.stride, layer.dilation, layer.groups,
            "hardtanh", [0.0, 6.0], "",
        ))  # fmt: skip

    layer = nn.Conv2d(8, 8, 4, stride=2, padding=1, groups=8)
    pixels = 9 * torch.arange(-4, 4.0).repeat(2, 6, 6, 1).permute(0, 3, 1, 2)
    try:
        with torch.no_grad():
            same = torch.allclose(fused(layer, pixels), functional.relu6(layer(pixels)), atol=1e-4)
    except (AttributeError, RuntimeError, TypeError):
        return None
    return fused if same else None


# torchvision ------------------------------------------------------------------------------------------------


class _PreActivation(nn.Module):
    """Features taken before a ReLU that works in place: the classifier gets a copy."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(features.clone()))


def _torchvision(name: str, spec: EncoderSpec, state: State) -> Network:
    # Takes seconds, and the default encoder does without.
    from torchvision.models import get_model, get_model_weights

    _check_preprocessing(spec, next(w for w in get_model_weights(name) if w.url.endswith(f"/{spec.weights}")))
    network = _make(lambda: get_model(name, weights=None), spec, state)
    if name == "vgg16":
        # The first four layers of its classifier end in fc7, before the ReLU: what Wellcome's vectors are.
        layers = list(network.classifier)
        network.classifier = nn.Sequential(*layers[:4])
        return Network(network, _PreActivation(nn.Sequential(*layers[4:])))
    classifier, network.fc = network.fc, nn.Identity()
    return Network(network, classifier)


def _check_preprocessing(spec: EncoderSpec, weights: Any) -> None:
    ours, theirs = spec.preprocessing, weights.transforms()
    expected = Preprocessing(
        resize=theirs.resize_size[0],
        crop=theirs.crop_size[0],
        interpolation=theirs.interpolation.value,
        mean=tuple(theirs.mean),
        std=tuple(theirs.std),
    )
    if ours != expected:
        raise EncoderError(
            f"{spec.name}: torchvision prepares pictures for {spec.weights} otherwise: {expected}"
        )


# Folding ----------------------------------------------------------------------------------------------------


def _fold_batch_norms(module: nn.Module) -> None:
    """Folds each batch norm into the convolution defined right before it, as all networks here have it."""
    children = list(module.named_children())
    for (name, first), (next_name, second) in pairwise(children):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(first, second))
            setattr(module, next_name, nn.Identity())
    for _, child in children:
        _fold_batch_norms(child)


def _fold_scale(network: nn.Module, preprocessing: Preprocessing) -> None:
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    scale = 1 / (255 * torch.tensor(preprocessing.std, dtype=torch.float64))
    first.weight = nn.Parameter((first.weight.double() * scale.view(1, 3, 1, 1)).float(), False)
