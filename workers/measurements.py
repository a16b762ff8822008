"""What encoders were measured to do on this machine, kept in small files under LOOKALIKE_HOME.

A hint for the next start and for `lookalike encoders list`; nothing depends on it, and it never imports torch.
"""

import hashlib
import json
import logging
import os
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a measurement is true for. `digest` is that of the fingerprint, `runtime` what runs the network."""

    encoder: str
    digest: str
    device: str
    runtime: str
    passes: int
    machine: str = platform.node()


@dataclass(frozen=True, slots=True)
class Measurement:
    """How an encoder does: images in a batch, images per second of all passes at once, SHA-256 of its weights."""

    batch_size: int
    images_per_second: float
    weights_digest: str


def remember(home: Path, setup: Setup, measurement: Measurement) -> None:
    """Writes a measurement down. A folder that cannot be written to costs only the next probe."""
    path = _path(home, setup)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several workers may start at once: each writes a file of its own, and the last name stays.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as stream:
            json.dump({"setup": asdict(setup), "measurement": asdict(measurement)}, stream)
        Path(stream.name).replace(path)
    except OSError as error:
        log.info("the speed of %s cannot be kept: %s", setup.encoder, error)


def recall(home: Path, setup: Setup) -> Measurement | None:
    """The measurement of exactly this setup, if there is one."""
    found = _read(_path(home, setup))
    return found[1] if found and found[0] == setup else None


def latest(home: Path, encoder: str) -> tuple[Setup, Measurement] | None:
    """The last measurement of this encoder on this machine, whatever the device."""
    paths = _folder(home).glob(f"{encoder}@*.json") if _folder(home).is_dir() else iter(())
    for path in sorted(paths, key=os.path.getmtime, reverse=True):
        found = _read(path)
        if found and found[0].machine == platform.node():
            return found
    return None


def _folder(home: Path) -> Path:
    return home / "measurements"


def _path(home: Path, setup: Setup) -> Path:
    key = hashlib.sha256(json.dumps(asdict(setup), sort_keys=True).encode()).hexdigest()
    return _folder(home) / f"{setup.encoder}@{key[:16]}.json"


def _read(path: Path) -> tuple[Setup, Measurement] | None:
    try:
        stored = json.loads(path.read_text())
        return Setup(**stored["setup"]), Measurement(**stored["measurement"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
