"""Builds networks that take centred pixels, with what their weights allow folded into the convolutions.

Folding never changes what a network computes beyond the last digits of float32.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lookalike.encoders import EncoderSpec, Preprocessing
from lookalike.errors import WeightsError

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

    Raises WeightsError when the weights are not this network's or the package that builds it is missing,
    EncoderError when the encoder's preprocessing is not what its weights come with.
    """
    # Only the family that is asked for: torchvision's and timm's take seconds.
    source, _, name = spec.network.partition(".")
    if source == "torchvision":
        from workers.network.torchvision_networks import build
    elif source == "timm":
        from workers.network.timm_networks import build
    else:
        from workers.network.efficientnet_lite import build
    network = build(name, spec, state)
    _fold_scale(network, spec.preprocessing)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def with_weights(make: Callable[[], Any], spec: EncoderSpec, state: State) -> Any:
    """The network that `make` makes, with the weights, in eval mode, batch norms folded.

    Raises WeightsError when they do not fit.
    """
    # Without memory at first: random weights that are thrown away take seconds for a large network.
    with torch.device("meta"):
        network = make()
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        fault = " ".join(str(error).split())[:200]
        raise WeightsError(f"{spec.weights} does not fit {spec.network}: {fault}") from None
    _fold_batch_norms(network.eval())
    return network


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
