"""All that differs between CPU, CUDA and MPS: choosing, copying, precision, and running out of memory."""

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookalike.errors import ConfigurationError


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


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Runtime:
    """How a device takes batches, in which precision it works, and how it recovers from too large a batch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # float16 rather than bfloat16: three more bits, and centred pixels are exact. Tested against float32
        # at start.
        self.half = device.type == "cuda"

    def upload(self, batch: NDArray[np.uint8]) -> Tensor:
        """The batch on the device. From pinned memory the copy overlaps with the pass before it."""
        pixels = torch.from_numpy(np.require(batch, np.uint8, ("C", "W")))
        if self._device.type == "cuda":
            return pixels.pin_memory().to(self._device, non_blocking=True)
        return pixels.to(self._device)

    def precision(self) -> torch.autocast:
        """The context of a pass: half precision where the device is made for it."""
        return torch.autocast(self._device.type, torch.float16 if self.half else None, enabled=self.half)

    def recover(self, error: RuntimeError) -> bool:
        """Whether the device only ran out of memory; then its cache is emptied and less may fit."""
        # Apple's backend raises a bare RuntimeError.
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
            return False
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()
        return True
