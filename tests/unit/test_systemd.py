"""The systemd units, as far as they can be checked without a systemd that runs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from cli.main import app
from lookalike.settings import Settings

UNITS = sorted((Path(__file__).parents[2] / "infra/systemd").glob("*.service"))
PROGRAM = "/opt/lookalike/.venv/bin/lookalike"


def values(unit: Path, key: str) -> list[str]:
    """The values of a key, in their order."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_what_there_is_and_for_ever(unit: Path) -> None:
    """It starts a command of ours, waits for `lookalike ready`, is restarted however it ends, and leaves in peace."""
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    started = values(unit, "ExecStart") + values(unit, "ExecStartPost")
    words = [line.removeprefix("-").split() for line in started]
    assert [(program, word in known) for program, word, *_ in words] == [(PROGRAM, True)] * 2
    part = unit.stem.removeprefix("lookalike-")
    assert words[1][1:4] == ["ready", part, "--wait"]
    assert int(values(unit, "TimeoutStartSec")[0]) > int(words[1][4])
    assert values(unit, "Restart") == ["always"]
    assert values(unit, "StartLimitIntervalSec") == ["0"]
    if part == "worker":
        assert int(values(unit, "TimeoutStopSec")[0]) > Settings.model_fields["stop_seconds"].default


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_a_unit(unit: Path, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say, where there is one."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or unit.name in line]
    assert (done.returncode, said) == (0, [])
