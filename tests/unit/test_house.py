"""The rules of the house that no linter knows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lookalike.queries import load_queries
from lookalike.settings import Settings

ROOT = Path(__file__).parents[2]
SQL_FILES = sorted(path.stem for path in (ROOT / "lookalike" / "sql").glob("*.sql"))


@pytest.mark.parametrize(
    "module",
    [
        "orchestrator.dispatch",
        "orchestrator.events.consumer",
        "orchestrator.intake",
        "orchestrator.sources",
        "cli.main",
        "explorer.app",
    ],
)
def test_torch_stays_out(module: str) -> None:
    """Orchestrator, explorer and the command that starts them import no torch and no Pillow: their image has none."""
    code = f"import sys, {module}; print([m for m in ('torch', 'PIL', 'pycurl', 'simplejpeg') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file", SQL_FILES)
def test_every_query_says_what_it_does_and_is_used(file: str) -> None:
    """Each named statement begins with a sentence, and some module names it."""
    layers = (ROOT / "lookalike", ROOT / "orchestrator", ROOT / "explorer")
    code = "\n".join(path.read_text() for layer in layers for path in layer.rglob("*.py"))
    for name, statement in load_queries(file).items():
        assert statement.startswith("-- "), name
        assert re.search(rf'"{name}"', code), f"nobody uses {file}.{name}"


def test_readme_lists_every_setting_with_its_default() -> None:
    """The table of settings in README is the table of settings in the code."""
    readme = (ROOT / "README.md").read_text()
    for name, setting in Settings.model_fields.items():
        variable = setting.validation_alias or f"LOOKALIKE_{name.upper()}"
        default = "" if setting.default is None else f"`{setting.default}`"
        assert f"| `{variable}` | {default} | {setting.description} |" in readme


def test_ci_runs_the_words_that_people_run() -> None:
    """`.ci/run` calls `make tools`, `make check` and `make test`, nothing else; people are told of them."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make tools", "make check", "make test"]
    assert "make test" in (ROOT / "README.md").read_text()
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    assert "make check" in contributing
    assert "make tools" in contributing
