"""The log: lines for people or JSON for machines, about a chunk and an image, and without passwords."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from lookalike.logs import TEXT, JsonFormatter, TextFormatter, about

ROOT = Path(__file__).parents[2]
log = logging.getLogger("test.logs")


def record(message: str, *words: object, **more: object) -> logging.LogRecord:
    """What the logging module makes of a call."""
    made = log.makeRecord("test.logs", logging.WARNING, "f", 1, message, words, None, extra=more)
    assert isinstance(made, logging.LogRecord)
    return made


def test_an_event_is_one_object_in_one_line() -> None:
    """Time with its zone, level, logger and message, whatever characters are in it."""
    line = JsonFormatter().format(record("bad %s", 'key "x"\nnext \x1b[31m'))
    assert "\n" not in line
    assert "\x1b" not in line
    event = json.loads(line)
    assert event["time"].endswith("+00:00")
    assert (event["level"], event["logger"]) == ("warning", "test.logs")
    assert event["message"] == 'bad key "x"\nnext \x1b[31m'


def test_an_event_says_what_it_is_about() -> None:
    """The chunk of the block that it happens in, the image that the call names; nothing after the block."""
    form = JsonFormatter()
    with about(chunk=7):
        with about(trace="ab"):
            inner = json.loads(form.format(record("m", image="k/1")))
        outer = json.loads(form.format(record("m", chunk=8)))
    after = json.loads(form.format(record("m")))
    assert (inner["chunk"], inner["trace"], inner["image"]) == (7, "ab", "k/1")
    assert (outer["chunk"], outer.get("trace")) == (8, None)
    assert "chunk" not in after


@pytest.mark.parametrize("form", [JsonFormatter(), TextFormatter(TEXT)])
def test_a_traceback_tells_no_password(form: logging.Formatter) -> None:
    """What a library quotes in its error is masked."""
    try:
        int("postgresql://me:SECRET@host/db")
    except ValueError:
        made = log.makeRecord("x", logging.ERROR, "f", 1, "broken", (), sys.exc_info())
    said = form.format(made)
    assert "SECRET" not in said
    assert "ValueError" in said


@pytest.mark.parametrize(("form", "is_json"), [("", False), ("text", False), ("json", True)])
def test_a_process_logs_in_the_form_of_its_setting(form: str, is_json: bool, tmp_path: Path) -> None:
    """Lines for people unless the setting says otherwise; standard output stays empty."""
    code = "import logging; from cli.session import log_to_terminal as log; log(); logging.warning('m')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"LOOKALIKE_LOG_FORMAT": form, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    assert done.stderr.startswith("{") is is_json
