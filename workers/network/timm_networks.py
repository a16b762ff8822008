"""Networks of timm (DINOv2), without a classifier, held to the data config that their weights come with."""

from lookalike.encoders import EncoderSpec, Preprocessing
from lookalike.errors import EncoderError, WeightsError
from workers.network.architectures import Network, State, with_weights


def build(name: str, spec: EncoderSpec, state: State) -> Network:
    """The network that timm calls `name`; its features are the class token after the last norm."""
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError:
        raise WeightsError(f"{spec.name} needs timm: pip install 'lookalike[dino]'") from None
    _check_preprocessing(spec, resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()))
    network = with_weights(
        lambda: timm.create_model(name, pretrained=False, num_classes=0, global_pool="token"), spec, state
    )
    return Network(network, None)


def _check_preprocessing(spec: EncoderSpec, config: dict[str, object]) -> None:
    size, share = config["input_size"], config["crop_pct"]
    assert isinstance(size, tuple)
    assert isinstance(share, float)
    expected = Preprocessing(
        resize=int(size[-1] / share),
        crop=size[-1],
        interpolation=config["interpolation"],  # type: ignore[arg-type]
        mean=config["mean"],  # type: ignore[arg-type]
        std=config["std"],  # type: ignore[arg-type]
    )
    if spec.preprocessing != expected:
        raise EncoderError(f"{spec.name}: timm prepares pictures for {spec.weights} otherwise: {expected}")
