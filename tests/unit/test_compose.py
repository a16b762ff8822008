"""docker-compose.yml and the Dockerfiles, as far as they can be checked without a Docker engine."""

import re
import subprocess
import sys
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

import pytest
import redis
import yaml

from lookalike.servers import Valkey
from lookalike.settings import Settings
from tests.servers import free_port, wait_until

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


def ours(services: dict[str, dict]) -> dict[str, dict]:
    """Those that run our images."""
    return {name: service for name, service in services.items() if "build" in service}


def test_every_service_is_there(services: dict[str, dict]) -> None:
    """The parts of lookalike run the commands that people know from their own terminal; extras wait for a profile."""
    commands = {name: service["command"] for name, service in ours(services).items() if name != "s3-sample"}
    assert commands == {
        "migrate": ["lookalike", "migrate", "--no-indexes"],
        "indexes": ["lookalike", "migrate"],
        "orchestrator": ["lookalike", "orchestrate"],
        "worker": ["lookalike", "worker"],
        "worker-gpu": ["lookalike", "worker"],
        "explorer": ["lookalike", "serve", "--host", "0.0.0.0", "--port", "8080"],
    }
    profiles: dict[str | None, set[str]] = {}
    for name, service in services.items():
        profiles.setdefault((service.get("profiles") or [None])[0], set()).add(name)
    assert profiles == {
        None: {"postgres", "valkey", "migrate", "indexes", "settled", "orchestrator", "worker", "explorer"},
        "gpu": {"worker-gpu"},
        "monitoring": {"prometheus", "grafana", "flower"},
        "s3": {"s3", "s3-folder", "s3-sample"},
    }


def test_every_service_starts_without_docker_as_well(services: dict[str, dict]) -> None:
    """The table in infra/docker/README.md has a row for each, and the commands of ours are in it."""
    readme = (CHECKOUT / "infra/docker/README.md").read_text()
    rows = dict(re.findall(r"^\| ([\w, -]+) \| (.*) \|$", readme, re.MULTILINE))
    named = {name.strip() for names in rows for name in names.split(",")}
    assert set(services) - {"s3-folder"} - named == set()
    for name, service in ours(services).items():
        how = next(how for names, how in rows.items() if name in names.split(", "))
        words = "infra/docker/fill-bucket.py" if name == "s3-sample" else " ".join(service["command"])
        assert words in how


def test_nothing_starts_before_what_it_needs(services: dict[str, dict]) -> None:
    """The schema is migrated first, on a database that answers; every server that is waited for has a check."""
    waits = {
        (name, needed, how["condition"])
        for name, service in services.items()
        if isinstance(service.get("depends_on"), dict)
        for needed, how in service["depends_on"].items()
    }
    healthy = {needed for _, needed, condition in waits if condition == "service_healthy"}
    assert ("migrate", "postgres", "service_healthy") in waits
    for program in ("orchestrator", "worker", "worker-gpu", "explorer"):
        assert (program, "migrate", "service_completed_successfully") in waits
    # An hour on a large archive: only what is never started waits for it, and without that `up --wait` would fail.
    assert [wait for wait in waits if wait[1] == "indexes"] == [
        ("settled", "indexes", "service_completed_successfully")
    ]
    assert services["settled"]["deploy"]["replicas"] == 0
    assert [name for name in healthy if "healthcheck" not in services[name]] == []
    assert [n for n, s in services.items() if s["restart"] != "no" and "healthcheck" not in s] == []


def test_servers_are_not_open_to_the_network(services: dict[str, dict]) -> None:
    """Whatever is published is published on loopback."""
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_no_secret_stands_in_an_environment(services: dict[str, dict]) -> None:
    """Passwords are files: no environment and no argument holds one, and each is made by infra/docker/secrets.sh."""
    text = COMPOSE.read_text()
    assert re.findall(r"\$\{\w*(?:PASSWORD|KEY)\b[^}]*\}", text) == []
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET", name) or value.startswith("/run/secrets/"), name
    declared = yaml.safe_load(text)["secrets"]
    files = {re.search(r":-\./secrets/(\w+)\}", one["file"])[1] for one in declared.values()}
    assert files == set(declared)


def test_each_program_has_only_the_secrets_that_it_needs(services: dict[str, dict]) -> None:
    """Only what migrates is the administrator of the database, and only it and Postgres know that password."""
    logins, told = {}, {}
    for name, service in services.items():
        if "DATABASE_URL" in service.get("environment", {}):
            logins[name] = re.match(r"postgresql://(\w+)@", service["environment"]["DATABASE_URL"])[1]
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            told.setdefault(source, set()).add(name)
    programs = {"orchestrator", "worker", "worker-gpu", "explorer"}
    assert logins == {
        "migrate": "lookalike",
        "indexes": "lookalike",
        "orchestrator": "orchestrator",
        "worker": "worker",
        "worker-gpu": "worker",
        "explorer": "explorer",
    }
    assert told == {
        "postgres_password": {"postgres", "migrate", "indexes"},
        "programs_password": {"postgres", *programs},
        "broker_password": {"valkey", "flower", *programs},
        "grafana_password": {"grafana"},
        "s3_secret_key": {"s3"},
        "aws_credentials": {"s3-sample", *programs},
    }


def test_lookalike_reads_its_secrets_by_itself(services: dict[str, dict]) -> None:
    """The files are named as settings are, so that nothing has to hand them over."""
    known = {field.validation_alias or f"lookalike_{name}" for name, field in Settings.model_fields.items()}
    known = {str(name).lower() for name in known} | {"aws_credentials"}
    for name, service in ours(services).items():
        targets = {one if isinstance(one, str) else one["target"] for one in service["secrets"]}
        assert targets - known == set(), name


def test_volumes_hold_what_must_last(services: dict[str, dict]) -> None:
    """The database (from version 18 on, one folder higher than before), the queue and downloads survive."""
    assert "postgres:/var/lib/postgresql" in services["postgres"]["volumes"]
    assert services["valkey"]["volumes"] == ["valkey:/data"]
    assert "cache:/home/lookalike/.cache" in services["worker"]["volumes"]
    declared = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    mounted = [
        # Where nothing is set.
        re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume)
        for service in services.values()
        for volume in service.get("volumes", [])
    ]
    assert declared == {volume.split(":")[0] for volume in mounted if not volume.startswith(".")}
    files = [volume.split(":") for volume in mounted if volume.startswith(".")]
    assert [source for source, *_ in files if not (CHECKOUT / source).exists()] == []
    assert {mode for _, _, mode in files} == {"ro"}


def test_programs_see_the_same_pictures(services: dict[str, dict]) -> None:
    """Commands list what is in the folder of this host, workers read it: both under the same path."""
    for name in ("orchestrator", "worker", "worker-gpu", "explorer"):
        assert "${PICTURES:-./infra/docker/sample}:/pictures:ro" in services[name]["volumes"], name


def test_containers_can_neither_be_written_to_nor_gain_rights(services: dict[str, dict]) -> None:
    """All are read-only but for /tmp and volumes, without any capability, none as root, each within limits; and all
    that ends is started again. The one that hands a new folder over does that and no more."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert "/tmp" in service["tmpfs"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["logging"]["options"]["max-size"]
        assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    roots = {name for name, s in services.items() if "build" not in s and re.match("0|root", s["user"])}
    assert roots == {name for name, service in services.items() if "cap_add" in service} == {"s3-folder"}
    assert services["s3-folder"]["network_mode"] == "none"
    once = {"migrate", "settled", "s3-folder", "s3-sample"}
    restarts = {name: service["restart"] for name, service in services.items()}
    expected = (
        dict.fromkeys(services, "unless-stopped") | dict.fromkeys(once, "no") | {"indexes": "on-failure"}
    )
    assert restarts == expected


def test_containers_say_whether_they_are_at_work(services: dict[str, dict]) -> None:
    """Their health is what `lookalike ready` says, which has less time than lies between two checks."""
    checks = {
        name: service["healthcheck"]
        for name, service in ours(services).items()
        if name in ("orchestrator", "worker", "worker-gpu")
    }
    assert {name: check["test"] for name, check in checks.items()} == {
        "orchestrator": ["CMD", "lookalike", "ready", "orchestrator"],
        "worker": ["CMD", "lookalike", "ready", "worker"],
        "worker-gpu": ["CMD", "lookalike", "ready", "worker"],
    }
    assert {(check["timeout"], check["interval"]) for check in checks.values()} == {("20s", "30s")}


def test_prometheus_finds_every_program(services: dict[str, dict]) -> None:
    """It asks services that exist, at the port that their image exposes."""
    jobs = yaml.safe_load((CHECKOUT / "infra/monitoring/prometheus.yml").read_text())["scrape_configs"]
    asked = {
        name: each["port"] for job in jobs for each in job.get("dns_sd_configs", []) for name in each["names"]
    }
    assert asked == dict.fromkeys(("orchestrator", "worker", "worker-gpu", "explorer"), 9464)
    # What the explorer answers to the world is another port: only that one is published.
    assert [port.rpartition(":")[2] for port in services["explorer"]["ports"]] == ["8080"]
    assert asked.keys() <= services.keys()
    for dockerfile in DOCKERFILES:
        assert "9464" in [arguments for name, arguments in instructions(dockerfile) if name == "EXPOSE"]


def test_the_broker_asks_for_its_password(services: dict[str, dict], tmp_path: Path) -> None:
    """The command of the compose file, run as it is but for places: who does not know the file's word is refused, and
    it ends in order when Docker stops it.
    """
    (tmp_path / "broker_password").write_text("word")
    port = free_port()
    *shell, script = services["valkey"]["command"]
    script = script.replace("$$", "$").replace("/run/secrets", str(tmp_path))
    script = script.replace(
        "valkey-server -", f"{Valkey(tmp_path).program()} - --port {port} --dir {tmp_path}"
    )
    process = subprocess.Popen([*shell, script], stdout=subprocess.DEVNULL)
    try:
        known = redis.Redis(port=port, password="word")
        wait_until(lambda: answers(known), 10)
        assert known.config_get("appendonly") == {"appendonly": "yes"}
        assert known.config_get("save") == {"save": ""}
        assert known.config_get("proto-max-bulk-len") == {"proto-max-bulk-len": str(1024**2)}
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        # Docker tells the first process to stop, and kills what is left after the time to do so.
        process.terminate()
        assert process.wait(10) == 0
        assert not answers(known)
    finally:
        process.kill()


def answers(client: redis.Redis) -> bool:
    """Whether the server is there."""
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """All that the compose file mounts, in a closed folder; a second time nothing changes."""
    script = tmp_path / "infra/docker/secrets.sh"
    script.parent.mkdir(parents=True)
    script.write_text((CHECKOUT / "infra/docker/secrets.sh").read_text())
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/programs_password").write_text("mine")
    found = []
    for _ in range(2):
        subprocess.run(["/bin/sh", str(script)], check=True, capture_output=True)
        found.append({path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()})
    assert found[0] == found[1]
    assert found[0].keys() == set(yaml.safe_load(COMPOSE.read_text())["secrets"])
    assert found[0]["programs_password"] == "mine"
    assert re.fullmatch("[0-9a-f]{48}", found[0]["postgres_password"])
    assert found[0]["s3_secret_key"] in found[0]["aws_credentials"]
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_dockerfiles_named_in_the_compose_file_exist(services: dict[str, dict]) -> None:
    """Every build finds its Dockerfile, and every Dockerfile is used."""
    named = {CHECKOUT / service["build"]["dockerfile"] for service in services.values() if "build" in service}
    assert named == set(DOCKERFILES)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_is_sound(dockerfile: Path) -> None:
    """A Dockerfile knows its instructions, copies what exists and is not ignored, and ends as an ordinary user."""
    steps = instructions(dockerfile)
    known = {
        "FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "STOPSIGNAL", "CMD", "ENV", "LABEL", "EXPOSE", "HEALTHCHECK",
    }  # fmt: skip
    assert {name for name, _ in steps} <= known
    assert [name for name, _ in steps[:2]] == ["ARG", "FROM"]
    copied = copied_by(steps)
    assert [source for source in copied if not (CHECKOUT / source).exists()] == []
    ignore = [
        line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    assert ignore[0] == "*"
    folders = [source.split("/")[0] for source in copied]
    assert [source for source in folders if not any(fnmatch(source, pattern) for pattern in allowed)] == []
    users = [arguments for name, arguments in steps if name == "USER"]
    assert [user for user in users[-1:] if user.isdecimal() and user != "0"] == users[-1:] != []
    assert steps[-1][0] == "CMD"
    labels = " ".join(arguments for name, arguments in steps if name == "LABEL")
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels
    assert "HEALTHCHECK" in [name for name, _ in steps]
    assert "pip install" not in " ".join(stages(steps)[-1])


def copied_by(steps: list[tuple[str, str]]) -> list[str]:
    """What is copied out of the checkout."""
    return [
        source
        for name, arguments in steps
        if name == "COPY" and "--from=" not in arguments
        for source in arguments.split()[:-1]
    ]


def stages(steps: list[tuple[str, str]]) -> list[list[str]]:
    """The instructions of each stage."""
    found: list[list[str]] = []
    for name, arguments in steps:
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append(f"{name} {arguments}")
    return found


def test_targets_named_in_the_compose_file_exist(services: dict[str, dict]) -> None:
    """Each build names a stage of its Dockerfile, or takes the last."""
    for service in ours(services).values():
        build = service["build"]
        steps = instructions(CHECKOUT / build["dockerfile"])
        names = [re.search(r" AS (\w+)$", arguments) for name, arguments in steps if name == "FROM"]
        assert build.get("target", "") in {found[1] for found in names if found} | {""}


def test_images_set_what_settings_know() -> None:
    """Every variable of ours in a Dockerfile is a setting."""
    known = {f"LOOKALIKE_{name.upper()}" for name in Settings.model_fields}
    for dockerfile in DOCKERFILES:
        assert set(re.findall(r"\bLOOKALIKE_\w+(?==)", dockerfile.read_text())) - known == set()


def test_dockerfiles_are_clean() -> None:
    """hadolint has nothing to say."""
    command = [str(Path(sys.executable).with_name("hadolint")), *map(str, DOCKERFILES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_images_hold_all_that_the_wheel_is_made_of() -> None:
    """The Dockerfiles copy each package and folder that the build in pyproject.toml asks for."""
    built = set(
        re.findall(
            r'"(\w+)"', re.search(r"packages = (\[.*\])", (CHECKOUT / "pyproject.toml").read_text())[1]
        )
    )
    for dockerfile in DOCKERFILES:
        copied = set(copied_by(instructions(dockerfile)))
        assert built | {"migrations", "pyproject.toml"} <= copied
