"""All settings, read once at an entry (environment, then `.env`) and passed down; nothing else reads them."""

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lookalike.errors import ConfigurationError
from lookalike.guard import parse_networks


class Settings(BaseSettings):
    """The settings of one process. Each field is a variable `LOOKALIKE_<NAME>`, but for the two URLs."""

    model_config = SettingsConfigDict(
        env_prefix="LOOKALIKE_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    database_url: SecretStr | None = Field(
        None, validation_alias="DATABASE_URL", description="Postgres; the embedded one when unset"
    )
    broker_url: SecretStr | None = Field(
        None, validation_alias="BROKER_URL", description="Redis or Valkey; the embedded one when unset"
    )
    home: Path = Field(Path(".lookalike"), description="data of the embedded services, the demo and caches")
    encoder: str = Field("efficientnet-lite0", description="the encoder that images are embedded with")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1, mps"
    )
    weights_dir: Path | None = Field(None, description="folder with weight files, looked into before any hub")
    batch_size: int = Field(
        0, ge=0, le=4096, description="images in one pass of the network; 0: found by a short probe at start"
    )
    compile: bool = Field(
        False, description="torch.compile: a minute or two at each start, then faster passes; for a GPU"
    )

    chunk_size: int = Field(
        64, ge=1, le=4096, description="images in a chunk, the unit of work (256 suits a GPU)"
    )
    window: int = Field(
        16, ge=1, description="chunks leased ahead per lane at least; grows to 3 x the chunks being worked on"
    )
    lease_seconds: float = Field(
        60, gt=0, description="a chunk whose worker is silent for so long is given back"
    )
    index_rows: int = Field(
        300_000,
        ge=0,
        description="an encoder with more vectors than this gets its index when a backfill ends; 0: never",
    )
    recall_floor: float = Field(
        0.99, ge=0, le=1, description="share of the true ten nearest that searches are to find"
    )
    poll_seconds: float = Field(
        60, gt=0, description="pause between two looks at a stream, such as IIIF Change Discovery"
    )
    tries: int = Field(5, ge=1, le=20, description="how often an image with a transient failure is tried")
    retry_seconds: float = Field(
        2, gt=0, description="pause before the second try; doubles with each further one"
    )

    chunk_threads: int = Field(
        0, ge=0, description="chunks worked on at once by a worker; 0: 2 on CPU, 4 on a GPU"
    )
    fetch_threads: int = Field(32, ge=1, le=256, description="images fetched at once by a worker")
    decode_threads: int = Field(0, ge=0, description="images decoded at once by a worker; 0: by the cores")
    connect_timeout: float = Field(10, gt=0, description="seconds to reach a host")
    fetch_timeout: float = Field(60, gt=0, description="seconds for one image, from request to last byte")
    max_bytes: int = Field(512 * 2**20, ge=1, description="largest file that is read")
    max_pixels: int = Field(200_000_000, ge=1, description="largest picture that is decoded")
    allow_networks: str | None = Field(
        None,
        description="networks that addresses from outside may lead to: `10.1.0.0/16,fd00::/8`, `private`: all of them",
    )
    stop_seconds: float = Field(60, gt=0, description="how long a stopping worker may finish what it holds")

    @field_validator("allow_networks")
    @classmethod
    def _are_networks(cls, value: str | None) -> str | None:
        parse_networks(value)
        return value


def load_settings() -> Settings:
    """Reads the settings. Raises ConfigurationError that names the variable at fault."""
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigurationError(f"settings: {faults}") from None
