"""Devices: precision, memory, errors and batch sizes, through the same calls on a CPU and with errors as CUDA's."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lookalike.encoders import find_encoder
from lookalike.errors import ConfigurationError
from lookalike.settings import Settings
from workers import measurements
from workers.measurements import Measurement, Setup
from workers.network import Encoder, is_fatal, load_encoder
from workers.network.architectures import Network
from workers.network.choosing import choose_forward
from workers.network.probe import available_memory, fits, largest_fitting_size, smallest_good_size
from workers.network.runtime import HALF_PRECISIONS, TorchForward, is_out_of_memory

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
LITE = find_encoder("efficientnet-lite0")
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GB)"),
    RuntimeError(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"
    ),
    MemoryError(),
]
# As torch prints them; the hints that follow are the same for all.
FATAL = [
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: device-side assert triggered",
    "CUDA error: unspecified launch failure",
    "CUDA error: misaligned address",
    "CUDA error: an illegal instruction was encountered",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: unknown error",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
]
HARMLESS = ["broken", "CUDA error: invalid argument", "shape '[1, 2]' is invalid", "an illegal memory access"]


def toy(network: Callable[..., object], batch_size: int = 32, home: Path | None = None) -> Encoder:
    """An encoder around a function that stands for its network."""
    return Encoder(LITE, TorchForward(network, LITE.preprocessing, CPU), "digest", CPU, batch_size, home)


class Scaled(nn.Module):
    """A body that ONNX Runtime is not asked to run, whose numbers need so much range."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 16, stride=16)
        self.factor = factor

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = nn.functional.gelu(self.convolution(pixels / 128)) * self.factor
        return (features / self.factor).mean((2, 3))


# Memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_device_out_of_memory_gets_half_the_batch(error):
    """Nothing is lost or out of order, and the next batches start with the size that fitted."""
    passes = []

    def network(pixels):
        passes.append(len(pixels))
        if len(pixels) > 9:
            raise error
        return pixels[:, 0, 0, :2] + 127, None

    encoder = toy(network)
    batch = np.zeros((40, 224, 224, 3), np.uint8)
    batch[:, 0, 0, 0], batch[:, 0, 1, 0] = np.arange(40), 1
    vectors = encoder.encode(batch).vectors
    assert passes == [32, 16, 8, 8, 8, 8, 8]
    assert np.rint(vectors[:, 0] / vectors[:, 1]).tolist() == list(range(40))
    assert encoder.batch_size == 8


def test_an_error_that_is_not_about_memory_is_not_hidden():
    """And neither is the one of a device that cannot hold a single image."""
    for error, size in ((RuntimeError("broken"), 4), (torch.OutOfMemoryError("full"), 1)):

        def network(pixels, error=error):
            raise error

        with pytest.raises(RuntimeError, match=str(error)):
            toy(network, size).encode(np.zeros((size, 224, 224, 3), np.uint8))


def test_what_is_out_of_memory_is_not_fatal():
    """The two answers never overlap."""
    for error in OUT_OF_MEMORY:
        assert (is_out_of_memory(error), is_fatal(error)) == (True, False)


@pytest.mark.parametrize("text", FATAL)
def test_errors_that_cost_the_process_are_recognised(text):
    """After these CUDA answers every call with the same error: the worker has to leave."""
    assert is_fatal(RuntimeError(text))
    assert is_fatal(torch.AcceleratorError(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_other_errors_do_not_cost_the_process(text):
    """A mistake of the program or of one batch."""
    assert not is_fatal(RuntimeError(text))


# Device and precision ---------------------------------------------------------------------------------------


def test_threads_are_limited_in_whichever_thread_encodes():
    """A pass keeps to one core, also in a thread that torch has never seen."""
    seen = []

    def network(pixels):
        seen.append(torch.get_num_threads())
        return torch.ones(len(pixels), 2), None

    encoder, before = toy(network), torch.get_num_threads()
    try:
        for _ in range(2):
            thread = threading.Thread(target=encoder.encode, args=[np.zeros((1, 224, 224, 3), np.uint8)])
            thread.start()
            thread.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1]


def test_a_missing_device_is_named():
    """The message names the setting."""
    with pytest.raises(ConfigurationError, match="LOOKALIKE_DEVICE=cuda:99"):
        load_encoder("efficientnet-lite0", Settings(_env_file=None, device="cuda:99"))


def test_half_precision_is_taken_where_it_says_the_same(monkeypatch):
    """The first precision whose vectors are float32's: autocast runs here as it would on a GPU."""
    monkeypatch.setitem(HALF_PRECISIONS, "cpu", (torch.float16, torch.bfloat16))
    # The largest float16 is 65,504.
    for factor, expected in ((1.0, "float16"), (1e6, "bfloat16"), (float("1e39"), "float32")):
        network = Network(Scaled(factor), None).eval()
        assert choose_forward(LITE, network, CPU).name == expected


def test_onnx_runtime_tells_nobody_of_its_use(tmp_path: Path) -> None:
    """A process that loads an encoder on it leaves no device id and no queue of events in the user's home."""
    code = (
        "import sys; from lookalike.settings import Settings; from workers.network import load_encoder;"
        "print(load_encoder('efficientnet-lite0', Settings(_env_file=None, device='cpu')).runtime)"
    )
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("onnxruntime")
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name] == []


def test_a_way_that_fails_is_passed_over_and_logged(monkeypatch, caplog):
    """A broken ONNX Runtime costs speed, not the worker."""

    def broken(*_):
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr("workers.network.onnx_forward.onnxruntime.InferenceSession", broken)
    body = nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with caplog.at_level(logging.WARNING):
        forward = choose_forward(LITE, Network(body, nn.Linear(8, 4)), CPU)
    assert forward.name == "float32"
    assert "runs without ONNX Runtime" in caplog.text
    assert "and much more" not in caplog.text


def test_what_is_compiled_never_sees_a_single_image(monkeypatch):
    """torch.compile would start again for it; it takes a minute, so an identity stands for it here."""
    seen = []

    def compiled(network, dynamic):
        return lambda pixels: seen.append(len(pixels)) or network(pixels)

    monkeypatch.setattr(torch, "compile", compiled)
    network = Network(Scaled(1), nn.Linear(8, 4)).eval()
    fast, plain = (choose_forward(LITE, network, CPU, compiled) for compiled in (True, False))
    assert (fast.name, plain.name) == ("float32 compiled", "float32")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    for ours, theirs in zip(fast(pixels), plain(pixels), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert seen == [4, 2]


def test_a_lost_device_is_not_passed_over(monkeypatch):
    """A slower way on a device that is lost would fail as well."""

    def lost(*_):
        raise torch.AcceleratorError(FATAL[0])

    monkeypatch.setattr("workers.network.choosing.TorchForward.__call__", lost)
    monkeypatch.setitem(HALF_PRECISIONS, "cpu", (torch.bfloat16,))
    with pytest.raises(torch.AcceleratorError):
        choose_forward(LITE, Network(Scaled(1), None), CPU)


def test_a_batch_is_taken_from_any_memory():
    """Read-only and strided batches arrive on the device as they are."""
    whole = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    whole.flags.writeable = False
    forward = TorchForward(lambda pixels: (pixels, None), LITE.preprocessing, CPU)
    for view in (whole, whole[::2], whole[:, ::-1]):
        centred, _ = forward(view)
        assert np.array_equal(centred.permute(0, 2, 3, 1).numpy() + 127, view)


# Batch size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fixed", "each", "expected"), [(0.0, 0.01, 4), (0.05, 0.005, 32), (0.0, 0.2, 4), (0.0, 3.0, 1)]
)
def test_the_smallest_batch_of_nearly_the_best_speed(fixed, each, expected):
    """Of passes that cost so much, and so much for each image; a network that is too slow to try gets 1."""
    asked = []

    def seconds(size):
        asked.append(fixed + each * size)
        return asked[-1]

    assert smallest_good_size(seconds, 32, budget=30 if fixed else 1.8) == expected
    assert sum(asked[1:]) <= (30 if fixed else 1.8)


def test_a_small_machine_bounds_the_batch():
    """More than the memory allows is not even tried."""
    asked = []
    assert smallest_good_size(lambda size: asked.append(size) or 0.001, 3) == 1
    assert smallest_good_size(lambda size: asked.append(size) or 1 / size**2, 8, 1e9) == 8
    assert max(asked) == 8
    assert available_memory() > 2**20


def test_the_largest_batch_that_fits():
    """Powers of two, the last one that fits."""
    assert largest_fitting_size(lambda size: size <= 100, 512) == 64
    assert largest_fitting_size(lambda size: True, 512) == 512
    assert largest_fitting_size(lambda size: False, 512) == 1


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_device_that_runs_out_of_memory_bounds_the_batch(error):
    """The probe goes as far as the device allows; any other error is the encoder's."""

    def encode(batch):
        if len(batch) > 8:
            raise error

    assert largest_fitting_size(lambda size: fits(encode, size, 32, CPU), 64) == 8
    error = RuntimeError(FATAL[0])
    with pytest.raises(RuntimeError, match="illegal memory access"):
        fits(encode, 16, 32, CPU)


def test_the_setting_is_not_questioned():
    """With LOOKALIKE_BATCH_SIZE nothing is probed."""

    def network(pixels):
        raise AssertionError("a probe")

    assert toy(network, 48).batch_size == 48


def test_a_batch_size_is_found_once_and_kept(tmp_path):
    """The second start on this machine needs no probe; another encoder does."""
    passes = []

    def network(pixels):
        passes.append(len(pixels))
        return torch.ones(len(pixels), 4), None

    found = toy(network, 0, tmp_path)
    size = found.batch_size
    assert size in (4, 8, 16, 32)
    assert set(passes) > {1, size}
    setup, kept = measurements.latest(tmp_path, LITE.name)
    assert (setup.device, setup.digest, kept.weights_digest) == ("cpu", found.digest, "digest")
    assert kept.images_per_second > 0
    passes.clear()
    assert toy(network, 0, tmp_path).batch_size == size
    assert passes == []


def test_a_measurement_that_cannot_be_kept_or_read_is_no_error(tmp_path):
    """A file where the folder should be; a damaged file; another machine's."""
    setup, measured = Setup("net", "digest", "cpu", "float32", 2), Measurement(8, 50.0, "weights")
    (tmp_path / "file").touch()
    measurements.remember(tmp_path / "file", setup, measured)
    assert measurements.latest(tmp_path / "file", "net") is None
    measurements.remember(tmp_path, setup, measured)
    assert measurements.recall(tmp_path, setup) == measured
    next((tmp_path / "measurements").iterdir()).write_text("{")
    assert measurements.recall(tmp_path, setup) is None
    measurements.remember(tmp_path, Setup("net", "digest", "cpu", "float32", 2, "elsewhere"), measured)
    assert measurements.latest(tmp_path, "net") is None


def test_many_workers_may_keep_a_measurement_at_once(tmp_path):
    """Whoever reads finds a whole file."""
    setup, measured = Setup("net", "digest", "cpu", "float32", 2), Measurement(8, 50.0, "weights")
    writers = [
        threading.Thread(target=partial(measurements.remember, tmp_path, setup, measured)) for _ in range(16)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert measurements.recall(tmp_path, setup) == measured
    assert len(list((tmp_path / "measurements").iterdir())) == 1
