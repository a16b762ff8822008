"""Every network of the registry, with random weights, against the library that it comes from."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torchvision.models import get_model, get_model_weights
from torchvision.transforms import v2

from lookalike.encoders import ENCODERS, EncoderSpec, find_encoder
from workers.decode import decode
from workers.network import Encoder
from workers.network.architectures import build_network
from workers.network.choosing import choose_forward
from workers.network.encoder import read_weights
from workers.network.onnx_forward import OnnxForward, UnsupportedLayerError
from workers.network.runtime import TorchForward
from workers.weights import find_weights

CPU = torch.device("cpu")
PHOTOGRAPHS = [Path(skimage.__file__).parent / "data" / name for name in ("chelsea.png", "coffee.png")]
SLOW = {"dinov2-vitb14", "vgg16-fc7-wellcome"}
# Where the features are: what goes into this layer, or what comes out of it.
INTO = {"_fc", "fc", "heads", "classifier.2"}
LAYERS = {
    "efficientnet_lite": "_fc",
    "torchvision.resnet50": "fc",
    "torchvision.vgg16": "classifier.3",
    "torchvision.vit_b_16": "heads",
    "torchvision.convnext_tiny": "classifier.2",
}


@dataclass
class Both:
    """An encoder as a worker loads it, and the library's own network with the same weights."""

    spec: EncoderSpec
    encoder: Encoder
    own: Any

    def own_says(self, pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Unit vectors and probabilities by the library alone, of its own normalised input."""
        seen = []
        source = self.spec.network.partition(".")[0]
        layer = LAYERS.get(self.spec.network) or LAYERS.get(source)
        with torch.inference_mode():
            if layer is None:
                features, classes = self.own(pixels), None
            else:
                self._listen(layer, seen)
                classes = self.own(pixels).softmax(1).numpy()
                features = seen[0]
        return torch.nn.functional.normalize(features, dim=1).numpy(), classes

    def _listen(self, layer: str, seen: list[torch.Tensor]) -> None:
        module = self.own.get_submodule(layer)
        if layer in INTO:
            module.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        else:
            module.register_forward_hook(lambda _, __, made: seen.append(made.clone()))


def decoded(spec: EncoderSpec, paths: list[Path]) -> np.ndarray:
    """The pictures as a worker hands them to the encoder."""
    side = spec.preprocessing.crop
    pixels = np.empty((len(paths), side, side, 3), np.uint8)
    for path, out in zip(paths, pixels, strict=True):
        decode(path.read_bytes(), spec.preprocessing, out, 10**8)
    return pixels


def own_network(spec: EncoderSpec) -> Any:
    """The library's network, with weights that leave no layer without effect."""
    torch.manual_seed(0)
    source, _, name = spec.network.partition(".")
    if source == "torchvision":
        network = get_model(name)
    elif source == "timm":
        network = pytest.importorskip("timm").create_model(name, pretrained=False, num_classes=0)
    else:
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name(name)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.dim() == 1:
                noise = torch.rand_like(value) - 0.5
                # Variances, and the factors of norms and layer scales, around one; all else around nothing.
                around_one = name.endswith(("running_var", "gamma")) or (name.endswith("weight"))
                value.copy_(noise + 1 if around_one else 0.2 * noise)
    return network.eval()


def own_transforms(spec: EncoderSpec) -> Any:
    """How the library that the weights come from prepares a picture."""
    source, _, name = spec.network.partition(".")
    if source == "torchvision" and not spec.preprocessing.squash:
        return next(w for w in get_model_weights(name) if w.url.endswith(spec.weights)).transforms()
    if source == "timm":
        from timm import get_pretrained_cfg
        from timm.data import create_transform, resolve_data_config

        return create_transform(**resolve_data_config(pretrained_cfg=get_pretrained_cfg(name).to_dict()))
    if spec.preprocessing.squash:
        # As Wellcome Collection's feature_inferrer has it.
        size, mean, std = [v2.Resize((224, 224))], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    else:
        side = spec.preprocessing.crop
        size = [v2.Resize(side + 32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(side)]
        mean, std = [127 / 255] * 3, [128 / 255] * 3
    return v2.Compose([*size, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def both(request) -> Iterator[Both]:
    """The weights go through a file in a folder of the operator's, as a worker finds them."""
    spec = find_encoder(request.param)
    own = own_network(spec)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, spec.weights)
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(own.state_dict(), path)
        else:
            torch.save(own.state_dict(), path)
        network = build_network(spec, read_weights(find_weights(spec, Path(folder))))
        yield Both(spec, Encoder(spec, choose_forward(spec, network, CPU), "digest", CPU, 2), own)


def test_a_network_says_what_its_library_says(both):
    """Our decoding, framing, folding and runtime against the library's transforms and forward pass."""
    pixels = decoded(both.spec, PHOTOGRAPHS[: 1 if both.spec.name in SLOW else 2])
    encoded = both.encoder.encode(pixels)
    assert encoded.vectors.shape == (len(pixels), both.spec.dimension)
    assert np.linalg.norm(encoded.vectors, axis=1) == pytest.approx(np.ones(len(pixels)), abs=1e-5)
    if both.spec.distance == "clamped":
        assert encoded.vectors.min() >= 0

    preprocessing = both.spec.preprocessing
    mean, std = (np.array(value, np.float32) for value in (preprocessing.mean, preprocessing.std))
    normalised = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    vectors, classes = both.own_says(torch.from_numpy(normalised))
    assert (encoded.vectors * vectors).sum(1).min() >= 0.99999
    assert (encoded.classes is None) == (classes is None) == (not both.spec.classifies)
    if classes is not None:
        assert np.abs(encoded.classes - classes).max() < 1e-3

    prepared = own_transforms(both.spec)(Image.open(PHOTOGRAPHS[0]).convert("RGB")).numpy()
    assert np.abs(prepared - normalised[0]).mean() < 0.01


def test_a_vector_does_not_depend_on_the_batch(both):
    """Alone or in company, an image has the same vector."""
    if both.spec.name in SLOW:
        pytest.skip("the same code as its smaller sister, too slow to be run once more")
    pixels = decoded(both.spec, PHOTOGRAPHS)
    together, alone = both.encoder.encode(pixels).vectors, both.encoder.encode(pixels[1:]).vectors
    assert alone[0] @ together[1] >= 0.99999


def test_onnx_runtime_runs_what_it_was_built_for():
    """EfficientNet-lite and ResNet run on ONNX Runtime; what is no faster there stays on torch."""
    for name in ("efficientnet-lite2", "resnet50"):
        spec = find_encoder(name)
        network = build_network(spec, own_network(spec).state_dict())
        assert choose_forward(spec, network, CPU).name.startswith("onnxruntime")
    spec = find_encoder("convnext_tiny")
    network = build_network(spec, own_network(spec).state_dict())
    with pytest.raises(UnsupportedLayerError):
        OnnxForward(network, spec.preprocessing)
    assert choose_forward(spec, network, CPU).name == "float32"


def test_onnx_runtime_equals_torch_on_the_real_weights():
    """For the weights that come in packages: cosine 0.99999 and better, and the same probabilities."""
    for name in ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"):
        spec = find_encoder(name)
        network = build_network(spec, read_weights(find_weights(spec, None)))
        pixels = decoded(spec, PHOTOGRAPHS)
        by_torch, by_onnx = (
            Encoder(spec, forward, "digest", CPU, 2).encode(pixels)
            for forward in (
                TorchForward(network, spec.preprocessing, CPU),
                OnnxForward(network, spec.preprocessing),
            )
        )
        assert (by_torch.vectors * by_onnx.vectors).sum(1).min() >= 0.99999
        assert np.abs(by_torch.classes - by_onnx.classes).max() < 1e-4
