"""Finds the batch size that suits a device by a few passes over an empty picture, within a share of its memory.

Small batches are good: they fill sooner, hold less memory, and an image is done sooner. So on a CPU the smallest of
nearly the best speed is taken; a GPU, which is only busy when it has many images, gets the largest that fits.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from workers.network.runtime import is_out_of_memory, release_memory

Pass = Callable[[NDArray[np.uint8]], object]

# Smaller batches than 4 leave too little waiting before the network when decoding stutters.
_SMALLEST_ON_CPU, _LARGEST_ON_CPU = 4, 32
_LARGEST_ELSEWHERE = 512
_NEARLY_BEST = 0.95
# Of the memory that is free when the worker starts.
_SHARE = {"cpu": 0.25, "cuda": 0.5}
_SECONDS = 1.8


def find_batch_size(encode: Pass, crop: int, device: torch.device, passes: int) -> int:
    """How many images suit one pass of `encode`, a power of two. Takes 2 to 3 seconds, or one pass if that is more.

    `passes` is how many run at a time.
    """
    if device.type == "cpu":
        budget = _SHARE["cpu"] * available_memory() / passes
        most = int(budget / _activations(crop))
        return smallest_good_size(lambda size: _timed(encode, size, crop, time.thread_time), most)
    return largest_fitting_size(lambda size: fits(encode, size, crop, device), _LARGEST_ELSEWHERE)


def smallest_good_size(seconds: Callable[[int], float], largest: int, budget: float = _SECONDS) -> int:
    """The smallest power of two from 4 to 32, at most `largest`, that is within 5 % of the best images per second.

    `seconds(n)` runs a pass of n images and says how long it took. `budget` in seconds bounds all passes together; a
    network too slow for it gets 1.
    """
    # The first pass of all pays for what is set up once.
    spent = one = seconds(1)
    # Of quick passes the best of three, since other programs disturb them.
    repeats = 3 if one < 0.1 else 1
    rates: dict[int, float] = {}
    size = _SMALLEST_ON_CPU
    expected = one * size * repeats
    while size <= min(largest, _LARGEST_ON_CPU) and spent + expected <= budget:
        times = [seconds(size) for _ in range(repeats)]
        spent += sum(times)
        rates[size] = size / max(min(times), 1e-9)
        size, expected = 2 * size, 2 * sum(times)
    best = max(rates.values(), default=0.0)
    return next((size for size, rate in rates.items() if rate >= _NEARLY_BEST * best), 1)


def largest_fitting_size(suits: Callable[[int], bool], largest: int) -> int:
    """The largest power of two up to `largest` that `suits`; at least 1."""
    size = 1
    while 2 * size <= largest and suits(2 * size):
        size *= 2
    return size


def measure_rate(encode: Pass, size: int, crop: int, device: torch.device, passes: int) -> float:
    """Images per second of `passes` threads that encode batches of `size`, over half a second or one pass each.

    On a CPU by the time that the passes had a core, as if no other program were running.
    """
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    rounds = max(1, round(0.5 / max(_timed(encode, size, crop, clock), 1e-9)))
    with ThreadPoolExecutor(passes) as pool:
        seconds = list(pool.map(lambda _: _timed(encode, size, crop, clock), range(rounds * passes)))
    return passes * size * len(seconds) / max(sum(seconds), 1e-9)


def available_memory() -> int:
    """Bytes of main memory that this process may still take, by the system and by its control group."""
    # Linux tells what is free or can be freed; elsewhere 4 GB are assumed, which only bounds the batch.
    available = 4 * 2**30
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        available = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        available = min(available, int(limit) - int(used))
    return max(0, available)


def _activations(crop: int) -> int:
    """Bytes that one image takes: input, output and scratch of the widest layer of all, VGG16's first, in float32."""
    return 3 * 64 * crop * crop * 4


def _timed(encode: Pass, size: int, crop: int, clock: Callable[[], float]) -> float:
    batch = np.zeros((size, crop, crop, 3), np.uint8)
    since = clock()
    encode(batch)
    return clock() - since


def fits(encode: Pass, size: int, crop: int, device: torch.device) -> bool:
    """Whether a pass of `size` images stays within its share of the memory that is free now."""
    try:
        if device.type != "cuda":
            encode(np.zeros((size, crop, crop, 3), np.uint8))
            return size * _activations(crop) <= _SHARE["cpu"] * available_memory()
        release_memory(device)
        free, _ = torch.cuda.mem_get_info(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        encode(np.zeros((size, crop, crop, 3), np.uint8))
        needed = torch.cuda.max_memory_allocated(device) - before
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return needed <= _SHARE["cuda"] * free
    # Out of the handler, whose exception would hold on to the tensors.
    release_memory(device)
    return False
