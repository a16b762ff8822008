"""What the Dockerfiles run, run here: their own commands in clean virtual environments, since no engine is at hand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_compose import copied_by, instructions

CHECKOUT = Path(__file__).parents[2]
# From an index of its own, which not everybody reaches.
TORCH = 'pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" -r /src/requirements/torch.txt'


def build(dockerfile: str, folder: Path) -> Path:
    """Runs the first stage of a Dockerfile in a folder: copies what it copies, runs what it runs. Returns the folder of
    the programs that it installs."""
    steps = instructions(CHECKOUT / "infra/docker" / dockerfile)
    places = {
        "/opt/lookalike": str(folder / "venv"),
        "/opt/weights": str(folder / "weights"),
        "/src": str(folder / "src"),
    }
    programs = folder / "venv/bin"
    environment = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TORCH_INDEX": "an index",
        "ENCODERS": "efficientnet-lite0",
        **{
            name: value
            for name, value in os.environ.items()
            if name.startswith(("PIP_", "XDG_", "UV_", "SSL_"))
        },
    }
    for source in copied_by(steps):
        target = folder / "src" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / source, target)
    first = [name for name, _ in steps[2:]].index("FROM") + 2
    for name, arguments in steps[:first]:
        if name == "RUN":
            command = arguments.replace(TORCH, "true")
            for place, here in places.items():
                command = command.replace(place, here)
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return programs


def say(programs: Path, *words: str) -> str:
    """What a program that was installed says, in an environment without anything of ours."""
    done = subprocess.run(
        [str(programs / words[0]), *words[1:]],
        cwd=programs.parent,
        env={"PATH": str(programs), "HOME": str(programs.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


INSIDE = """
import importlib.resources as r, pathlib, lookalike, sys
from lookalike.migrate import migrations_folder
root = pathlib.Path(lookalike.__file__).parent
print(len(list(migrations_folder().glob("*.sql"))), migrations_folder().is_relative_to(root))
print(len(list((root / "sql").glob("*.sql"))), len(list((root / "lua").glob("*.lua"))))
import explorer
pages = pathlib.Path(explorer.__file__).parent.rglob("*")
print(len([page for page in pages if page.suffix in (".html", ".css", ".js", ".svg")]))
"""


def assert_all_is_inside(programs: Path) -> None:
    """The wheel has all that is not Python: migrations, SQL, Lua, templates."""
    migrations, queries, pages = say(programs, "python", "-c", INSIDE).splitlines()
    assert migrations == f"{len(list((CHECKOUT / 'migrations').glob('*.sql')))} True"
    kept = [CHECKOUT / "lookalike/sql", CHECKOUT / "lookalike/lua"]
    assert queries == " ".join(str(len([p for p in one.iterdir() if p.is_file()])) for one in kept)
    shown = [p for p in (CHECKOUT / "explorer").rglob("*") if p.suffix in (".html", ".css", ".js", ".svg")]
    assert int(pages) == len(shown)


@pytest.mark.slow
def test_the_image_of_the_orchestrator_is_whole(tmp_path: Path) -> None:
    """Its lock installs by its hashes, all that it names is there, and every command that needs no network starts."""
    programs = build("orchestrator.Dockerfile", tmp_path)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", say(programs, "lookalike", "--version"))
    assert_all_is_inside(programs)
    assert "No broken requirements" in say(programs, "python", "-m", "pip", "check")
    for module in (
        "orchestrator.watch",
        "orchestrator.reading",
        "cli.work",
        "opentelemetry.sdk.trace",
        "faiss",
        "pyarrow",
    ):
        say(programs, "python", "-c", f"import {module}")
    code = "import sys, cli.main, orchestrator.dispatch; assert not {'torch', 'PIL', 'pycurl'} & sys.modules.keys()"
    say(programs, "python", "-c", code)


@pytest.mark.slow
def test_the_image_of_the_worker_is_whole_but_for_torch(tmp_path: Path) -> None:
    """All but torch, which comes from an index of its own: locks by hash, programs, and weights that were baked in."""
    programs = build("worker.Dockerfile", tmp_path)
    say(programs, "lookalike", "--version")
    assert_all_is_inside(programs)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["efficientnet-lite0-57934424.pth"]
    assert "torch==" in (tmp_path / "src/requirements/torch.txt").read_text()
    for module in (
        "onnxruntime",
        "simplejpeg",
        "pycurl",
        "PIL",
        "fastapi",
        "uvicorn",
        "jinja2",
        "opentelemetry.sdk.trace",
    ):
        say(programs, "python", "-c", f"import {module}")
    missing = subprocess.run(
        [str(programs / "python"), "-m", "pip", "check"], capture_output=True, text=True, check=False
    ).stdout
    # `pip check` misses what needs torch, and nothing else.
    assert set(re.findall(r"requires ([\w-]+), which is not", missing)) <= {
        "torch",
        "torchvision",
        "nvidia-ml-py",
    }
