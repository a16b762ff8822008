"""EfficientNet-lite as the package efficientnet-lite-pytorch has it, with padding and ReLU6 in its convolutions."""

from collections.abc import Callable
from functools import cache
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lookalike.encoders import EncoderSpec
from lookalike.errors import WeightsError
from workers.network.architectures import Network, State, with_weights


def build(name: str, spec: EncoderSpec, state: State) -> Network:
    """The network `name`; its features are the mean over the picture of what the last convolution says."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise WeightsError(
            f"{spec.name} needs efficientnet-lite-pytorch: pip install 'lookalike[local]'"
        ) from None
    network = with_weights(lambda: EfficientNet.from_name(name), spec, state)
    classifier, network._fc = network._fc, nn.Identity()
    for holder in (network, *network._blocks):
        for layer in ("_conv_stem", "_expand_conv", "_depthwise_conv", "_conv_head"):
            if hasattr(holder, layer):
                setattr(holder, layer, PaddedRelu6.of(getattr(holder, layer)))
        if hasattr(holder, "_project_conv"):
            holder._project_conv = _Padded.of(holder._project_conv)
        holder._swish = nn.Identity()
    return Network(_LiteFeatures(network), classifier)


class _LiteFeatures(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.network.extract_features(pixels)).mean((2, 3))


class _Padded(nn.Conv2d):
    """A convolution with TensorFlow's uneven padding, in one pass over memory."""

    @classmethod
    def of(cls, convolution: Any) -> Self:
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


class PaddedRelu6(_Padded):
    """The same with the ReLU6 after it."""

    def forward(self, pixels: Tensor) -> Tensor:
        # torch's compiler fuses by itself, and would stop at the trial.
        by_hand = pixels.device.type == "cpu" and not torch.compiler.is_compiling()
        if by_hand and (fused := _fused_relu6()):
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
