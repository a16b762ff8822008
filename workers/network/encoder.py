"""An encoder that is loaded: batches of uint8 pixels in, unit vectors and class probabilities out."""

import hashlib
import json
import logging
import threading
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lookalike.encoders import PREPROCESSING_VERSION, EncoderSpec, Preprocessing, find_encoder
from lookalike.errors import WeightsError
from lookalike.settings import Settings
from workers.measurements import Measurement, Setup, recall, remember
from workers.network.architectures import State, build_network
from workers.network.choosing import Forward, choose_forward
from workers.network.fingerprint import Fingerprint, reference_images
from workers.network.probe import find_batch_size, measure_rate
from workers.network.runtime import (
    available_cores,
    choose_device,
    describe_device,
    is_out_of_memory,
    release_memory,
)
from workers.weights import digest_weights, find_weights

log = logging.getLogger(__name__)

# What a pass takes before the batch size is known: search encodes one picture and never asks for it.
_UNPROBED = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder says of n images.

    vectors: float32 (n, d), of unit length; a row that came out with NaN, infinity or no length stays so, and
    the caller refuses it. classes: float32 (n, 1000), probabilities of the ImageNet classes in the order of
    `lookalike.encoders.class_names`, or None without a classifier.
    """

    vectors: NDArray[np.float32]
    classes: NDArray[np.float32] | None


class Encoder:
    """A network on its device. May be called from several threads; `passes` forward passes run at a time.

    `device` is torch's name of the device, `runtime` says what runs the network there and in which precision. A GPU
    takes one pass at a time. A CPU takes one on each core: threads that share a pass wait for each other whenever
    another thread of the worker has one of their cores.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        forward: Forward,
        weights_digest: str,
        device: torch.device,
        batch_size: int = 0,
        home: Path | None = None,
    ) -> None:
        self.spec = spec
        self.preprocessing: Preprocessing = spec.preprocessing
        self.device = str(device)
        self.runtime = forward.name
        self.passes = available_cores() if device.type == "cpu" else 1
        self._forward = forward
        self._weights_digest = weights_digest
        self._device = device
        self._home = home
        self._size = batch_size
        self._turn = threading.Semaphore(self.passes)
        self._probing = threading.Lock()

    @property
    def batch_size(self) -> int:
        """How many images suit one pass; it halves when the device runs out of memory.

        Where no setting names it, the first call looks it up among earlier measurements or finds it in a few seconds.
        """
        with self._probing:
            if not self._size:
                self._size = self._measure().batch_size
        return self._size

    def encode(self, batch: NDArray[np.uint8]) -> Encoded:
        """Encodes `batch`, uint8 (n, crop, crop, 3) in RGB; any n, cut into passes of `batch_size`.

        Raises ValueError for another shape or type, torch.OutOfMemoryError when not even one image fits the
        device.
        """
        crop = self.preprocessing.crop
        if batch.dtype != np.uint8 or batch.shape[1:] != (crop, crop, 3):
            raise ValueError(f"a batch of {batch.dtype} {batch.shape}, not uint8 (n, {crop}, {crop}, 3)")
        passes: list[Encoded] = []
        done = 0
        with self._turn:
            while done < len(batch) or not passes:
                part = batch[done : done + (self._size or _UNPROBED)]
                encoded = self._pass_or_nothing(part)
                if encoded is None:
                    # Out of the handler, whose exception would hold on to the tensors.
                    release_memory(self._device)
                    self._size = len(part) // 2
                    log.warning("out of memory on %s: batches of %d from now on", self.device, self._size)
                else:
                    passes.append(encoded)
                    done += len(part)
        classes = [one.classes for one in passes if one.classes is not None]
        return Encoded(
            np.concatenate([one.vectors for one in passes]), np.concatenate(classes) if classes else None
        )

    def _pass_or_nothing(self, batch: NDArray[np.uint8]) -> Encoded | None:
        """One forward pass; None when the device has no memory for it but may have for half of it."""
        try:
            return self._pass(batch)
        except (RuntimeError, MemoryError) as error:
            if len(batch) <= 1 or not is_out_of_memory(error):
                raise
            return None

    def _pass(self, batch: NDArray[np.uint8]) -> Encoded:
        torch.set_num_threads(1)  # counts for the thread that calls
        with torch.inference_mode():
            features, logits = self._forward(batch)
            vectors = functional.normalize(features.float(), dim=1).cpu().numpy()
            classes = None if logits is None else logits.float().softmax(1).cpu().numpy()
        return Encoded(vectors, classes)

    def _measure(self) -> Measurement:
        setup = Setup(
            self.spec.name,
            self.digest,
            describe_device(self._device),
            f"{self.runtime}, torch {torch.__version__}",
            self.passes,
        )
        # What is free on a GPU changes with its other guests, and there a probe takes no time.
        known = recall(self._home, setup) if self._home and self._device.type == "cpu" else None
        if known:
            return known
        crop = self.preprocessing.crop
        size = find_batch_size(self._pass, crop, self._device, self.passes)
        rate = measure_rate(self._pass, size, crop, self._device, self.passes)
        measured = Measurement(size, round(rate, 1), self._weights_digest)
        if self._home:
            remember(self._home, setup, measured)
        return measured

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal of what this encoder is: its name, weights and preprocessing."""
        identity = {
            "encoder": self.spec.name,
            "weights": self._weights_digest,
            "preprocessing": asdict(self.preprocessing),
            "version": PREPROCESSING_VERSION,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What this encoder is, and what it says of the reference images on this machine."""
        vectors = self.encode(reference_images(self.preprocessing.crop)).vectors
        return Fingerprint(self.digest, vectors.astype(np.float16))


def load_encoder(name: str, settings: Settings) -> Encoder:
    """Loads an encoder onto the device that the settings name.

    Raises UnknownEncoderError; WeightsError, which says where to get the weights; EncoderError when this
    version of torchvision prepares pictures otherwise than the encoder's entry says; ConfigurationError for a
    missing device.
    """
    spec = find_encoder(name)
    device = choose_device(settings.device)
    path = find_weights(spec, settings.weights_dir)
    digest = digest_weights(path)
    network = build_network(spec, read_weights(path)).to(device)
    torch.set_num_threads(1)  # counts for the thread that calls
    forward = choose_forward(spec, network, device, settings.compile)
    return Encoder(spec, forward, digest, device, settings.batch_size, settings.home)


def read_weights(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # pickle, zipfile and safetensors each have errors of their own for a file that is not one of theirs.
        raise WeightsError(f"{path} cannot be read as weights: {str(error).partition(chr(10))[0]}") from None
    return state
