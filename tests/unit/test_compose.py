"""docker-compose.yml and the Dockerfiles, as far as they can be checked without a Docker engine."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
COMPOSE = CHECKOUT / "docker-compose.yml"
DOCKERFILES = sorted((CHECKOUT / "infra/docker").glob("*.Dockerfile"))


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    """The services of the compose file by name."""
    return yaml.safe_load(COMPOSE.read_text())["services"]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in text.splitlines() if line.strip()
    ]


def test_compose_file_follows_the_schema() -> None:
    """The compose specification's own schema accepts the file."""
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(COMPOSE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_every_service_is_there(services: dict[str, dict]) -> None:
    """The parts of lookalike run the commands that people know from their own terminal."""
    commands = {name: service["command"] for name, service in services.items() if "build" in service}
    assert commands == {
        "migrate": ["lookalike", "migrate"],
        "orchestrator": ["lookalike", "orchestrate"],
        "worker": ["lookalike", "worker"],
        "worker-gpu": ["lookalike", "worker"],
    }
    assert [name for name, service in services.items() if service.get("profiles") == ["gpu"]] == [
        "worker-gpu"
    ]


def test_nothing_starts_before_what_it_needs(services: dict[str, dict]) -> None:
    """The schema is migrated first, on a database that answers; every server that is waited for has a check."""
    waits = {
        (name, needed, how["condition"])
        for name, service in services.items()
        for needed, how in service.get("depends_on", {}).items()
    }
    healthy = {needed for _, needed, condition in waits if condition == "service_healthy"}
    assert ("migrate", "postgres", "service_healthy") in waits
    assert ("orchestrator", "migrate", "service_completed_successfully") in waits
    assert ("worker", "migrate", "service_completed_successfully") in waits
    assert [name for name in healthy if "healthcheck" not in services[name]] == []


def test_servers_are_not_open_to_the_network(services: dict[str, dict]) -> None:
    """Whatever is published is published on loopback, and passwords have no default."""
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    passwords = re.findall(r"PASSWORD: (.*)", COMPOSE.read_text())
    assert len(passwords) == 4
    assert [one for one in passwords if not re.match(r"\$\{(POSTGRES|PROGRAMS)_PASSWORD:\?", one)] == []


def test_each_program_has_the_login_that_it_needs(services: dict[str, dict]) -> None:
    """Only what migrates is the administrator of the database, and only it and Postgres know that password."""
    logins = {
        name: re.match(r"postgresql://(\w+)@", service["environment"]["DATABASE_URL"])[1]
        for name, service in services.items()
        if "DATABASE_URL" in service.get("environment", {})
    }
    assert logins == {
        "migrate": "lookalike",
        "orchestrator": "orchestrator",
        "worker": "worker",
        "worker-gpu": "worker",
    }
    told = {
        name for name, service in services.items() if "{POSTGRES_PASSWORD" in str(service.get("environment"))
    }
    assert told == {"postgres", "migrate"}


def test_volumes_hold_what_must_last(services: dict[str, dict]) -> None:
    """The database (from version 18 on, one folder higher than before), the queue and downloads survive."""
    assert "postgres:/var/lib/postgresql" in services["postgres"]["volumes"]
    assert services["valkey"]["volumes"] == ["valkey:/data"]
    assert set(yaml.safe_load(COMPOSE.read_text())["volumes"]) == {"postgres", "valkey", "cache"}
    assert services["worker"]["volumes"] == ["cache:/home/lookalike/.cache"]


def test_containers_of_ours_can_neither_be_written_to_nor_gain_rights(services: dict[str, dict]) -> None:
    """Read-only but for /tmp and volumes, without any capability; and all that ends is started again."""
    ours = {name: service for name, service in services.items() if "build" in service}
    for service in ours.values():
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    restarts = {name: service["restart"] for name, service in services.items()}
    assert restarts == dict.fromkeys(services, "unless-stopped") | {"migrate": "no"}


def test_containers_say_whether_they_are_at_work(services: dict[str, dict]) -> None:
    """Their health is what `lookalike ready` says, which has less time than lies between two checks."""
    checks = {
        name: service["healthcheck"]
        for name, service in services.items()
        if "build" in service and name != "migrate"
    }
    assert {name: check["test"] for name, check in checks.items()} == {
        "orchestrator": ["CMD", "lookalike", "ready", "orchestrator"],
        "worker": ["CMD", "lookalike", "ready", "worker"],
        "worker-gpu": ["CMD", "lookalike", "ready", "worker"],
    }
    assert {(check["timeout"], check["interval"]) for check in checks.values()} == {("20s", "30s")}


def test_dockerfiles_named_in_the_compose_file_exist(services: dict[str, dict]) -> None:
    """Every build finds its Dockerfile, and every Dockerfile is used."""
    named = {CHECKOUT / service["build"]["dockerfile"] for service in services.values() if "build" in service}
    assert named == set(DOCKERFILES)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_is_sound(dockerfile: Path) -> None:
    """A Dockerfile knows its instructions, copies what exists and is not ignored, and ends as an ordinary user."""
    steps = instructions(dockerfile)
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "STOPSIGNAL", "CMD"}
    assert {name for name, _ in steps} <= known
    assert steps[0][0] == "FROM"
    copied = [source for name, arguments in steps if name == "COPY" for source in arguments.split()[:-1]]
    assert [source for source in copied if not (CHECKOUT / source).exists()] == []
    ignore = [
        line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    assert ignore[0] == "*"
    assert [source for source in copied if not any(fnmatch(source, pattern) for pattern in allowed)] == []
    users = [arguments for name, arguments in steps if name == "USER"]
    assert [user for user in users[-1:] if user.isdecimal() and user != "0"] == users[-1:] != []
    assert steps[-1][0] == "CMD"


def test_images_hold_all_that_the_wheel_is_made_of() -> None:
    """The Dockerfiles copy each package and folder that the build in pyproject.toml asks for."""
    built = set(
        re.findall(
            r'"(\w+)"', re.search(r"packages = (\[.*\])", (CHECKOUT / "pyproject.toml").read_text())[1]
        )
    )
    for dockerfile in DOCKERFILES:
        copied = {
            source
            for name, arguments in instructions(dockerfile)
            if name == "COPY"
            for source in arguments.split()
        }
        assert built | {"migrations", "pyproject.toml"} <= copied
