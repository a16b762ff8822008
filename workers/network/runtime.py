"""All that differs between devices: choosing one, copying to it, its precision, compiling, and how it fails.

No other module of the house asks what kind of device it runs on, but for how many passes and images suit it.
"""

import os
import re
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.encoders import Preprocessing
from lookalike.errors import ConfigurationError

# The precisions to try on a device, the fastest first, before float32. float16 before bfloat16: it has three
# more bits, and centred pixels are exact in it; but a network whose activations leave its range needs the other.
HALF_PRECISIONS: dict[str, tuple[torch.dtype, ...]] = {"cuda": (torch.float16, torch.bfloat16)}

# What cudaGetErrorString says of errors after which "any further CUDA work will return the same error" (CUDA
# Runtime API, cudaError_t), and how its libraries report a kernel that died so.
_FATAL = re.compile(
    r"CUDA error: (an illegal memory access|an illegal instruction|device-side assert|unspecified launch failure"
    r"|misaligned address|operation not supported on global/shared address space|invalid program counter"
    r"|hardware stack error|the launch timed out|uncorrectable ECC error|uncorrectable NVLink error"
    r"|Invalid access of peer GPU memory|unknown error)"
    r"|CU(BLAS|DNN)_STATUS_(EXECUTION_FAILED|MAPPING_ERROR)",
    re.IGNORECASE,
)


def choose_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu", "cuda", "cuda:1" or "mps". Raises ConfigurationError when it is not
    there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if wanted == "auto":
        wanted = "cuda" if cuda else "mps" if mps else "cpu"
    device = torch.device(wanted)
    there = {"cpu": True, "mps": mps, "cuda": cuda and (device.index or 0) < torch.cuda.device_count()}
    if not there[device.type]:
        raise ConfigurationError(
            f"LOOKALIKE_DEVICE={wanted}, but torch {torch.__version__} finds no such device"
        )
    return device


def describe_device(device: torch.device) -> str:
    """The kind of the device, as far as speed and memory depend on it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device could not hold the batch; less of it may fit."""
    # Apple's backend raises a bare RuntimeError, ONNX Runtime an error of its own.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(
        re.search("out of memory|failed to allocate memory", str(error), re.IGNORECASE)
    )


def is_fatal(error: BaseException) -> bool:
    """Whether the device is lost to this process after this error: nothing but a new process helps."""
    return not is_out_of_memory(error) and bool(_FATAL.search(str(error)))


def release_memory(device: torch.device) -> None:
    """Gives cached memory back to the device. Of use only once no exception holds on to tensors."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class TorchForward:
    """A forward pass by torch. Called with uint8 (n, crop, crop, 3), it gives features (n, d) and logits or None.

    `network` takes centred pixels, as `architectures.Network` does. `half` is the precision of its convolutions and
    products, None is float32. May be called from several threads.
    """

    def __init__(
        self,
        network: Callable[[Tensor], tuple[Tensor, Tensor | None]],
        preprocessing: Preprocessing,
        device: torch.device,
        half: torch.dtype | None = None,
    ) -> None:
        self.name = str(half or torch.float32).removeprefix("torch.")
        self._network = network
        self._device = device
        self._half = half
        centre = torch.tensor(preprocessing.mean, dtype=torch.float64) * 255
        # A whole row: broadcast over three channels alone, the subtraction is three times slower.
        self._centre = centre.to(device, torch.float32).repeat(preprocessing.crop)

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(self._device.type, self._half, enabled=self._half is not None):
            pixels = self._upload(batch)
            # Centred, so that zero padding means the mean colour; the scale is in the first convolution.
            centred = (pixels.flatten(2) - self._centre).view(pixels.shape).permute(0, 3, 1, 2)
            features, logits = self._network(centred)
        return features, logits

    def _upload(self, batch: NDArray[np.uint8]) -> Tensor:
        """The batch on the device, still uint8. From pinned memory the copy overlaps with the pass before it."""
        pixels = torch.from_numpy(np.require(batch, np.uint8, ("C", "W")))
        if self._device.type == "cuda":
            return pixels.pin_memory().to(self._device, non_blocking=True)
        return pixels.to(self._device)
