"""docker-compose.yml on a Docker engine: built, brought up, used, stopped and brought up again. `make test-compose`.

All of it happens in a copy of the checkout, with a project, ports, secrets and volumes of its own, which are removed at
the end. What stays is images, under the names that the checkout's own builds have.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest

from tests.servers import free_port, wait_until

CHECKOUT = Path(__file__).parents[2]
SAMPLE = CHECKOUT / "infra/docker/sample"
PROGRAMS = {"orchestrator", "worker", "explorer"}
SERVICES = PROGRAMS | {"postgres", "valkey"}
ONCE = {"migrate", "indexes"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("LOOKALIKE_TEST_COMPOSE"),
        reason="`make test-compose` runs it: it needs a Docker engine",
    ),
]


class Stack:
    """The services of a copy of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.explorer = f"http://127.0.0.1:{free_port()}"
        settings = {
            "COMPOSE_PROJECT_NAME": f"lookalike-test-{token_hex(4)}",
            "POSTGRES_PORT": str(free_port()),
            "EXPLORER_PORT": self.explorer.rsplit(":", 1)[1],
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        # What the shell of a developer sets for their own stack would win over the file.
        ours = {"COMPOSE_FILE", "COMPOSE_PROFILES", "PICTURES", "BAKED_ENCODERS"}
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("LOOKALIKE_") and not name.endswith("_SECRET") and name not in ours
        } | settings

    def compose(self, *words: str) -> str:
        """What `docker compose WORDS` prints; its failure fails the test, with all that it said."""
        command = ["docker", "compose", *words]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def lookalike(self, *words: str) -> Any:
        """What a command of ours prints as JSON, inside the container of the orchestrator."""
        return json.loads(self.compose("exec", "-T", "orchestrator", "lookalike", *words, "--json"))

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of each container, by service."""
        names = self.compose("ps", "--all", "--quiet").split()
        done = subprocess.run(["docker", "inspect", *names], capture_output=True, text=True, check=True)
        return {
            each["Config"]["Labels"]["com.docker.compose.service"]: each for each in json.loads(done.stdout)
        }

    def is_healthy(self) -> bool:
        """Whether all services are up and say that they are at work."""
        found = self.containers()
        return {
            name for name in SERVICES if found[name]["State"].get("Health", {}).get("Status") == "healthy"
        } == SERVICES

    def wait_until_healthy(self) -> None:
        wait_until(
            self.is_healthy,
            300,
            lambda: f"health: {self.compose('ps', '--all')}\n{self.compose('logs', '--tail=20')}",
        )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The services as README brings them up: passwords first, then one command."""
    folder = tmp_path_factory.mktemp("compose") / "lookalike"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    for name in filter(None, tracked.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # deleted, and not yet committed
            shutil.copy(CHECKOUT / name, folder / name)
    subprocess.run(["sh", "infra/docker/secrets.sh"], cwd=folder, check=True, capture_output=True)
    stack = Stack(folder)
    try:
        # It waits for what must be at work, and for what must have ended.
        stack.compose("up", "--build", "--detach", "--wait", "--wait-timeout", "300")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")


def neighbour(stack: Stack) -> str:
    """The nearest neighbour of the astronaut."""
    found: str = stack.lookalike("similar", "pictures/astronaut.jpg", "-k", "1")["neighbours"][0]["image"]
    return found


def test_pictures_of_a_mounted_folder_are_found(stack: Stack) -> None:
    """A folder is added and embedded, command and explorer find what looks alike, and the books balance."""
    assert stack.is_healthy()
    for name in ONCE:
        state = stack.containers()[name]["State"]
        assert (name, state["Status"], state["ExitCode"]) == (name, "exited", 0)
    stack.compose("run", "--rm", "-T", "orchestrator", "lookalike", "add", "/pictures")
    pictures = len(list(SAMPLE.glob("*.jpg")))
    wait_until(lambda: embedded(stack) == pictures, 120, lambda: stack.compose("logs", "--tail=20", "worker"))
    assert neighbour(stack) == "pictures/astronaut-cropped.jpg"
    answer = httpx.post(
        f"{stack.explorer}/api/v1/search", files={"picture": (SAMPLE / "coffee.jpg").read_bytes()}, timeout=60
    ).json()
    first = answer["neighbours"][0]
    assert (first["key"], round(first["distance"], 3)) == ("pictures/coffee.jpg", 0)
    # No browser reaches the folder: a worker has kept a small one.
    assert httpx.get(stack.explorer + first["thumbnail"]["small"]).headers["Content-Type"] == "image/jpeg"
    stack.compose("exec", "-T", "orchestrator", "lookalike", "audit", "--full")


def embedded(stack: Stack) -> int:
    """How many images have their vector."""
    (encoder,) = stack.lookalike("status")["encoders"].values()
    return int(encoder["done"])


def test_what_dies_is_started_again(stack: Stack) -> None:
    """A program that is killed comes back without hands."""
    kill = "import os; os.kill(min(int(p) for p in os.listdir('/proc') if p.isdecimal() and p != '1'), 9)"
    for name in sorted(PROGRAMS):
        with suppress(AssertionError):  # it may take down the command that killed it
            stack.compose("exec", "-T", name, "python", "-c", kill)
    wait_until(lambda: all(stack.containers()[name]["RestartCount"] == 1 for name in PROGRAMS), 30)
    stack.wait_until_healthy()


def test_it_stops_in_order_and_keeps_its_data(stack: Stack) -> None:
    """Told to stop, everything ends with 0; brought up from nothing but its volumes, it finds what it found."""
    stack.compose("stop")
    assert {name: one["State"]["ExitCode"] for name, one in stack.containers().items()} == dict.fromkeys(
        SERVICES | ONCE, 0
    )
    stack.compose("down")
    stack.compose("up", "--detach")
    stack.wait_until_healthy()
    assert neighbour(stack) == "pictures/astronaut-cropped.jpg"
    assert httpx.get(f"{stack.explorer}/readyz").status_code == 200
