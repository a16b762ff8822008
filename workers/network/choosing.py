"""Chooses how an encoder runs on its device: the fastest way that says the same as plain float32."""

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lookalike.encoders import EncoderSpec
from workers.network.architectures import Network
from workers.network.fingerprint import SAME, reference_images
from workers.network.runtime import HALF_PRECISIONS, TorchForward, is_fatal

log = logging.getLogger(__name__)

# Another library in the same precision differs in the last digits only.
_EQUAL = 0.99999


class Forward(Protocol):
    """A forward pass: uint8 (n, crop, crop, 3) in; features (n, d) and logits (n, 1000) or None out."""

    name: str

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]: ...


def choose_forward(
    spec: EncoderSpec, network: Network, device: torch.device, compiled: bool = False
) -> Forward:
    """The fastest way to run `network` whose vectors of the reference images are those of float32.

    `compiled` puts torch.compile in front, which takes a minute or more at start. What fails or differs is logged and
    passed over. Raises what torch raises when even the plain way fails.
    """
    plain = TorchForward(network, spec.preprocessing, device)
    expected: Tensor | None = None
    for name, least, make in _faster_ways(spec, network, device, compiled):
        try:
            forward = make()
            if forward is None:
                continue
            expected = _unit_vectors(plain, spec) if expected is None else expected
            cosine = float((_unit_vectors(forward, spec) * expected).sum(1).min())
        except Exception as error:
            # Whatever a compiler, a driver or a missing package raises: there is a slower way that works.
            if is_fatal(error):
                raise
            fault = str(error).partition("\n")[0]
            log.warning("%s runs without %s: %s: %s", spec.name, name, type(error).__name__, fault)
            continue
        if cosine >= least:
            return forward
        log.warning("%s runs without %s: its vectors differ (cosine %.5f)", spec.name, name, cosine)
    return plain


def _faster_ways(
    spec: EncoderSpec, network: Network, device: torch.device, compiled: bool
) -> Iterator[tuple[str, float, Callable[[], Forward | None]]]:
    """Name, least cosine, and how to make it (None: it does not fit this network), the fastest first."""
    halves = HALF_PRECISIONS.get(device.type, ())
    if compiled:
        for half in (*halves, None):
            yield (
                f"torch.compile {half or ''}",
                SAME,
                partial(_compiled, spec, network, device, half),
            )
    if device.type == "cpu":
        yield "ONNX Runtime", _EQUAL, partial(_by_onnx_runtime, spec, network)
    for half in halves:
        yield str(half), SAME, partial(TorchForward, network, spec.preprocessing, device, half)


def _compiled(
    spec: EncoderSpec, network: Network, device: torch.device, half: torch.dtype | None
) -> TorchForward:
    fast = torch.compile(network, dynamic=True)

    def run(centred: Tensor) -> tuple[Tensor, Tensor | None]:
        # A single image would be compiled for once more, a minute later: it travels with itself.
        features, logits = fast(centred if len(centred) > 1 else torch.cat([centred, centred]))
        return features[: len(centred)], None if logits is None else logits[: len(centred)]

    made = TorchForward(run, spec.preprocessing, device, half)
    made.name += " compiled"
    return made


def _by_onnx_runtime(spec: EncoderSpec, network: Network) -> Forward | None:
    # Builds of 2026 tell Microsoft of their use, from their import on; what an archive does is nobody else's business.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        from workers.network.onnx_forward import OnnxForward, UnsupportedLayerError
    except ImportError as error:
        log.info("%s runs on torch: %s; pip install 'lookalike[worker]' has what is faster", spec.name, error)
        return None
    try:
        return OnnxForward(network, spec.preprocessing)
    except UnsupportedLayerError as layer:
        log.debug("%s runs on torch: no translation of %s", spec.name, layer)
        return None


def _unit_vectors(forward: Forward, spec: EncoderSpec) -> Tensor:
    with torch.inference_mode():
        features, _ = forward(reference_images(spec.preprocessing.crop))
        return functional.normalize(features.float(), dim=1).cpu()
