"""An encoder that is loaded: batches of uint8 pixels in, unit vectors and class probabilities out."""

import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lookalike.encoders import PREPROCESSING_VERSION, EncoderSpec, Preprocessing, find_encoder
from lookalike.settings import Settings
from workers.network.architectures import Network, build_network
from workers.network.fingerprint import SAME, Fingerprint, reference_images
from workers.network.runtime import Runtime, available_cores, choose_device
from workers.network.weights import digest_weights, find_weights


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder says of n images.

    vectors: float32 (n, d), of unit length; a row that came out with NaN, infinity or no length stays so, and
    the caller refuses it. classes: float32 (n, 1000), probabilities of the ImageNet classes, or None without
    a classifier.
    """

    vectors: NDArray[np.float32]
    classes: NDArray[np.float32] | None


class Encoder:
    """A network on its device. May be called from several threads; `passes` forward passes run at a time.

    `batch_size` is how many images suit one pass; it halves when the device runs out of memory. `device` is
    torch's name of the device. A GPU takes one pass at a time. A CPU takes one on each core: threads that share a
    pass wait for each other whenever another thread of the worker has one of their cores.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        network: Network,
        weights_digest: str,
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.preprocessing: Preprocessing = spec.preprocessing
        self.device = str(device)
        self.batch_size = 32 if device.type == "cpu" else 128
        self._network = network
        self._weights_digest = weights_digest
        self.passes = available_cores() if device.type == "cpu" else 1
        self._turn = threading.Semaphore(self.passes)
        centre = torch.tensor(spec.preprocessing.mean, dtype=torch.float64) * 255
        # A whole row: broadcast over three channels alone, the subtraction is three times slower.
        self._centre = centre.to(device, torch.float32).repeat(spec.preprocessing.crop)
        self._runtime = Runtime(device)
        if self._runtime.half and not self._half_is_faithful():
            self._runtime.half = False

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
                part = batch[done : done + self.batch_size]
                try:
                    passes.append(self._forward(part))
                except RuntimeError as error:
                    if len(part) <= 1 or not self._runtime.recover(error):
                        raise
                    self.batch_size = len(part) // 2
                else:
                    done += len(part)
        classes = [one.classes for one in passes if one.classes is not None]
        return Encoded(
            np.concatenate([one.vectors for one in passes]), np.concatenate(classes) if classes else None
        )

    def _forward(self, batch: NDArray[np.uint8]) -> Encoded:
        torch.set_num_threads(1)  # counts for the thread that calls
        with torch.inference_mode(), self._runtime.precision():
            pixels = self._runtime.upload(batch)
            # Centred, so that zero padding means the mean colour; the scale is in the first convolution.
            centred = (pixels.flatten(2) - self._centre).view(pixels.shape).permute(0, 3, 1, 2)
            features, logits = self._network(centred)
            vectors = functional.normalize(features.float(), dim=1).cpu().numpy()
            classes = None if logits is None else logits.float().softmax(1).cpu().numpy()
        return Encoded(vectors, classes)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What this encoder is, and what it says of the reference images on this machine."""
        identity = {
            "encoder": self.spec.name,
            "weights": self._weights_digest,
            "preprocessing": asdict(self.preprocessing),
            "version": PREPROCESSING_VERSION,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        vectors = self.encode(reference_images(self.preprocessing.crop)).vectors
        return Fingerprint(digest, vectors.astype(np.float16))

    def _half_is_faithful(self) -> bool:
        images = reference_images(self.preprocessing.crop)
        half = self.encode(images).vectors
        self._runtime.half = False
        full = self.encode(images).vectors
        self._runtime.half = True
        return bool(((half * full).sum(axis=1) >= SAME).all())


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
    state = torch.load(path, map_location="cpu", weights_only=True)
    return Encoder(spec, build_network(spec, state).to(device), digest, device)
