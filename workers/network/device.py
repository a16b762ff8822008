"""How busy a GPU is, for whoever watches: of NVIDIA's devices alone, and only where the driver says it."""

import logging
from dataclasses import dataclass
from functools import cache

import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """A GPU now: bytes of its memory, used by everybody, and the share 0..1 of the last moments that it worked."""

    name: str
    used_bytes: int
    total_bytes: int
    utilisation: float | None


def read_use(device: str) -> DeviceUse | None:
    """The use of torch's device of this name; None for what is no NVIDIA GPU."""
    chosen = torch.device(device)
    if chosen.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(chosen)
    return DeviceUse(torch.cuda.get_device_name(chosen), total - free, total, _utilisation(chosen))


def _utilisation(device: torch.device) -> float | None:
    try:
        return torch.cuda.utilization(device) / 100
    except (
        Exception
    ) as error:  # NVML's own, that of a missing package, or of a driver without the figure (MIG)
        _say_once(f"{type(error).__name__}: {error}")
        return None


@cache
def _say_once(why: str) -> None:
    log.info("how busy the GPU is cannot be read: %s", why)
