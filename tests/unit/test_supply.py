"""What is installed: locks with hashes that fit pyproject.toml, and images that take nothing else."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "all": ("worker", "local", "catalogue", "inventory", "explorer", "tracing"),
    "worker": ("worker", "explorer", "tracing"),
    "worker-cpu": ("worker", "explorer", "tracing"),
    "orchestrator": ("catalogue", "inventory", "tracing"),
}
# Not in worker-cpu.lock; see the Makefile.
OF_CUDA = re.compile("torch|torchvision|triton|nvidia-.*|cuda-.*")


def pins(lock: str) -> dict[str, tuple[str, int]]:
    """The version and the number of hashes of each package."""
    found = {}
    text = (CHECKOUT / f"requirements/{lock}.lock").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith(("#", " ")):
            name, version = re.match(r"([\w.-]+)(?:\[[\w,-]*\])?==([\w.]+)", line).groups()
            found[canonicalize_name(name)] = version, len(re.findall("--hash=sha256:[0-9a-f]{64}", line))
    return found


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_fits_the_project(lock: str) -> None:
    """Each dependency is pinned to a version that pyproject.toml allows: else run `make lock`."""
    pinned = pins(lock)
    lines = PROJECT["dependencies"] + [
        line for extra in EXTRAS[lock] for line in PROJECT["optional-dependencies"][extra]
    ]
    wanted = {canonicalize_name(one.name): one for one in map(Requirement, lines)}
    if lock == "worker-cpu":
        wanted = {name: one for name, one in wanted.items() if not OF_CUDA.fullmatch(name)}
        assert not [name for name in pinned if OF_CUDA.fullmatch(name)]
    missing = [name for name, one in wanted.items() if pinned.get(name, ("", 0))[0] not in one.specifier]
    assert missing == []


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_holds_every_file_to_its_hash(lock: str) -> None:
    """No package is without one, and none comes from anywhere but the index that everybody has."""
    assert [name for name, (_, hashes) in pins(lock).items() if hashes == 0] == []
    text = (CHECKOUT / f"requirements/{lock}.lock").read_text()
    assert re.findall(r"\w+://\S*|^-.*|\S+ @ \S+|file:\S*", text, re.MULTILINE) == []


def test_worker_locks_agree() -> None:
    """The worker without CUDA has the versions of that with it."""
    both, cpu = pins("worker"), pins("worker-cpu")
    assert cpu == {name: pin for name, pin in both.items() if not OF_CUDA.fullmatch(name)}
    assert {"torch", "torchvision"} <= both.keys()


def test_images_install_by_lock() -> None:
    """Every `pip install` of a Dockerfile checks hashes, or takes only us, or torch in the version of the lock."""
    for dockerfile in (CHECKOUT / "infra/docker").glob("*.Dockerfile"):
        text = dockerfile.read_text().replace("\\\n", " ")
        for words in map(str.strip, re.findall(r"pip install ([^;&\n]*)", text)):
            named = set(re.findall(r"requirements/([\w-]+)\.lock", words))
            assert named <= EXTRAS.keys()
            assert "--require-hashes" in words or "--no-deps" in words
            torch = (
                words.endswith("requirements/torch.txt")
                and "worker.lock > /src/requirements/torch.txt" in text
            )
            assert "--require-hashes" in words or words.endswith(" /src") or torch


def test_dependabot_understands_its_configuration() -> None:
    """Its own schema accepts the file."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.dependabot"]
    done = subprocess.run(
        [*command, str(CHECKOUT / ".github/dependabot.yml")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
