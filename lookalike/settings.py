"""All settings, read once at an entry (environment, then `.env`) and passed down; nothing else reads them."""

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from lookalike.errors import ConfigurationError
from lookalike.guard import parse_networks

# A setting may be a file in here, named as its variable: `database_password`.
SECRETS_FOLDER = "/run/secrets"


class HostLimit(BaseModel):
    """What is asked of one host by all workers together: requests a second, requests under way; 0: any number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(0, ge=0)
    concurrency: int = Field(0, ge=0)


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
    database_password: SecretStr | None = Field(
        None,
        validation_alias="DATABASE_PASSWORD",
        description="the password for DATABASE_URL when that has none; any characters, as they are",
    )
    broker_password: SecretStr | None = Field(
        None,
        validation_alias="BROKER_PASSWORD",
        description="the password for BROKER_URL when that has none",
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

    suffixes: str | None = Field(
        None,
        description="what images end in, as in `.jp2,.tif`: S3, its events, folders; all known when unset",
    )
    s3_key: str = Field(
        "(?P<key>.+)",
        description="regular expression that finds an object's `key`, and its `work` where wanted, in bucket/path",
    )
    manifest_url: str = Field(
        "https://iiif.wellcomecollection.org/presentation/v3/{identifier}",
        description="where the manifest of a bag is, of which an event gives the identifier",
    )
    manifest_hours: float = Field(
        24,
        ge=0,
        description="how long after its event, or a failure of its host, a manifest is awaited",
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

    wellcome_snapshots: str = Field(
        "https://data.wellcomecollection.org/catalogue/v2",
        pattern=r"^https?://",
        description="where works.json.gz and images.json.gz lie, which answer more than the API's 10,000 results",
    )

    chunk_threads: int = Field(
        0, ge=0, description="chunks worked on at once by a worker; 0: 2 on CPU, 4 on a GPU"
    )
    fetch_threads: int = Field(32, ge=1, le=256, description="images fetched at once by a worker")
    host_rate: float = Field(
        0, ge=0, description="requests a second to one host, of all workers together; 0: no limit"
    )
    host_concurrency: int = Field(
        32, ge=0, description="requests under way to one host, of all workers together; 0: no limit"
    )
    hosts: dict[str, HostLimit] = Field(
        {}, description='limits of their own: `{"iiif.example.org": {"rate": 8, "concurrency": 8}}`'
    )
    patience_hours: float = Field(
        168, gt=0, description="an image fails when its host has refused all requests for so long"
    )
    decode_threads: int = Field(0, ge=0, description="images decoded at once by a worker; 0: by the cores")
    connect_timeout: float = Field(10, gt=0, description="seconds to reach a host")
    fetch_timeout: float = Field(60, gt=0, description="seconds for one image, from request to last byte")
    max_bytes: int = Field(512 * 2**20, ge=1, description="largest file that is read")
    max_pixels: int = Field(200_000_000, ge=1, description="largest picture that is decoded")
    allow_networks: str | None = Field(
        None,
        description="networks that addresses from outside may lead to: `10.1.0.0/16,fd00::/8`, `private`: all of them",
    )
    thumbnails: str | None = Field(
        None,
        description="where workers keep thumbnails for the explorer: `database`, `s3://bucket/prefix`, a folder;"
        " `local`: `database`, for files of this machine alone, which `lookalike run` does with its own Postgres;"
        " `off`, or unset: nowhere",
    )
    stop_seconds: float = Field(60, gt=0, description="how long a stopping worker may finish what it holds")

    log_format: Literal["text", "json"] = Field(
        "text",
        description="`text`: lines for people; `json`: an object a line, as in the images of infra/docker",
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="port of this process's metrics for Prometheus; none when unset"
    )
    metrics_address: str = Field("127.0.0.1", description="address that the metrics are served at")
    celery_events: bool = Field(
        False, description="workers tell the broker of each task, for Flower; nothing of lookalike needs it"
    )
    otlp_endpoint: str | None = Field(
        None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        pattern=r"^https?://",
        description="where traces go, as in `http://localhost:4318`; needs `lookalike[tracing]`; none when unset",
    )
    cloudwatch_namespace: str | None = Field(
        None,
        max_length=255,
        pattern=r"^[A-Za-z0-9._/#: -]+$",
        description="where `orchestrate` puts its figures in CloudWatch every minute; nowhere when unset",
    )
    orchestrator_password: SecretStr | None = Field(
        None, description="what `migrate --logins` gives to the login `orchestrator`"
    )
    worker_password: SecretStr | None = Field(
        None, description="what `migrate --logins` gives to the login `worker`"
    )
    explorer_password: SecretStr | None = Field(
        None, description="what `migrate --logins` gives to the login `explorer`"
    )
    analyst_password: SecretStr | None = Field(
        None, description="what `migrate --logins` gives to the login `analysts`"
    )
    explorer_tokens: dict[str, SecretStr] = Field(
        {},
        description='who may decide and see what is for operators, each with a token: `{"ann": "…"}`;'
        " without any, only who sits at this machine",
    )
    explorer_origins: str | None = Field(
        None,
        description="websites whose pages may ask the API: `https://example.org,https://b.example.org`, `*`: all",
    )
    explorer_rate: float = Field(
        50, ge=0, description="requests a second from one address, of each process; 0: no limit"
    )
    explorer_burst: int = Field(200, ge=1, description="requests from one address at once, before that holds")
    explorer_proxies: str | None = Field(
        None, description="networks of proxies whose X-Forwarded-For is believed: `10.0.0.0/8,127.0.0.1`"
    )
    explorer_root_path: str | None = Field(
        None, description="path of the website that the explorer lies under, as `/lookalike`; none: its root"
    )
    explorer_cache_seconds: int = Field(
        60, ge=0, description="how long browsers and caches may keep answers that change seldom"
    )
    explorer_connections: int = Field(16, ge=1, le=1000, description="connections to Postgres")
    explorer_seconds: float = Field(10, gt=0, description="longest time for one statement of a reader")
    explorer_upload_bytes: int = Field(32 * 2**20, ge=1, description="largest picture that is searched with")
    explorer_searches: int = Field(
        16, ge=1, description="searches with a picture that may wait; one is worked on at a time"
    )
    explorer_image_sources: str = Field(
        "https:",
        description="where pages show pictures from, as in a Content-Security-Policy: `https: http://iiif.local`",
    )

    @field_validator("allow_networks", "explorer_proxies")
    @classmethod
    def _are_networks(cls, value: str | None) -> str | None:
        parse_networks(value)
        return value

    @field_validator("suffixes")
    @classmethod
    def _are_suffixes(cls, value: str | None) -> str | None:
        wrong = [each for each in (value or "").split(",") if not re.fullmatch(r"\s*\.[^\s./]+\s*", each)]
        if value and wrong:
            raise ValueError("write suffixes with their dots, separated by commas: .jp2,.tif")
        return value

    @field_validator("s3_key")
    @classmethod
    def _finds_a_key(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex.keys()
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if "key" not in groups or groups - {"key", "work"}:
            raise ValueError(
                "it must have a group (?P<key>...), may have (?P<work>...), and no other named one"
            )
        return value

    @field_validator("manifest_url")
    @classmethod
    def _takes_an_identifier(cls, value: str) -> str:
        # In its path and not in its host: events say what it is.
        if not re.fullmatch(r"https?://[^{}\s/?#]+/[^{}\s]*\{identifier\}[^{}\s]*", value):
            raise ValueError("write an http(s) address with {identifier} once in its path")
        return value

    @field_validator("hosts")
    @classmethod
    def _name_hosts(cls, hosts: dict[str, HostLimit]) -> dict[str, HostLimit]:
        for name in hosts:
            if not re.fullmatch(r"[^/@\s]+", name):
                raise ValueError(f"{name!r} is no host: write iiif.example.org, or iiif.example.org:8080")
        return {name.lower(): limit for name, limit in hosts.items()}


def secrets_folders() -> list[Path]:
    """Where files hold settings under their names: those of Docker and Kubernetes, and of systemd's LoadCredential."""
    folders = [Path(SECRETS_FOLDER), Path(os.environ.get("CREDENTIALS_DIRECTORY", ""))]
    return [folder for folder in folders if folder != Path() and folder.is_dir()]


def load_settings() -> Settings:
    """Reads the settings: environment, `.env`, files of secrets. Raises ConfigurationError that names what is wrong."""
    try:
        return Settings(_secrets_dir=secrets_folders() or None)
    except SettingsError as error:  # a variable that should hold JSON
        raise ConfigurationError(
            f"settings: {error}; write LOOKALIKE_HOSTS as JSON, "
            '{"iiif.example.org": {"rate": 8, "concurrency": 8}}, and LOOKALIKE_EXPLORER_TOKENS as {"name": "token"}'
        ) from None
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        )
        raise ConfigurationError(f"settings: {faults}") from None
