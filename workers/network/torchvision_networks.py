"""torchvision's networks, cut where their features leave, held to the preprocessing that their weights name."""

from typing import Any, cast

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from lookalike.encoders import EncoderSpec, Preprocessing
from lookalike.errors import EncoderError
from workers.network.architectures import Network, State, with_weights


def build(name: str, spec: EncoderSpec, state: State) -> Network:
    """The network that torchvision calls `name`."""
    _check_preprocessing(spec, next(w for w in get_model_weights(name) if w.url.endswith(f"/{spec.weights}")))
    network = with_weights(lambda: get_model(name, weights=None), spec, state)
    classifier: nn.Module
    if name == "vgg16":
        # The first four layers of its classifier end in fc7, before the ReLU: what Wellcome's vectors are.
        layers = list(network.classifier)
        network.classifier = nn.Sequential(*layers[:4])
        classifier = _PreActivation(nn.Sequential(*layers[4:]))
    elif name == "vit_b_16":
        classifier, network.heads = network.heads, nn.Identity()
    elif name == "convnext_tiny":
        # Layer norm, flatten, linear: the features are what the last one takes.
        *before, classifier = network.classifier
        network.classifier = nn.Sequential(*before)
    else:
        classifier, network.fc = network.fc, nn.Identity()
    return Network(network, classifier)


class _PreActivation(nn.Module):
    """Features taken before a ReLU that works in place: the classifier gets a copy."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(features.clone()))


def _check_preprocessing(spec: EncoderSpec, weights: Any) -> None:
    """Raises EncoderError unless pictures are prepared as the weights want it, apart from a wanted squash."""
    ours, theirs = spec.preprocessing, weights.transforms()
    expected = Preprocessing(
        resize=ours.resize if ours.squash else theirs.resize_size[0],
        crop=theirs.crop_size[0],
        interpolation=theirs.interpolation.value,
        mean=tuple(theirs.mean),
        std=tuple(theirs.std),
        squash=ours.squash,
    )
    if ours != expected:
        raise EncoderError(
            f"{spec.name}: torchvision prepares pictures for {spec.weights} otherwise: {expected}"
        )
