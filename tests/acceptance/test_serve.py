"""`lookalike serve` as an operator runs it."""

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.database import Connection
from tests.explorer_archive import fill
from tests.servers import Lookalike, free_port, wait_until


def get(address: str) -> bytes | None:
    """What is there; None while nothing is."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.read()
    except (urllib.error.URLError, ConnectionError):
        return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_explorer_says_where_it_is_and_ends_in_order(
    lookalike: Callable[..., Lookalike], connection: Connection, tmp_path: Path, number: signal.Signals
) -> None:
    """It prints its address, answers there, and ends with 0 when it is told to stop."""
    fill(connection)
    system = lookalike()
    port = free_port()
    serving = system.start("serve", "--port", str(port))
    wait_until(lambda: get(f"http://127.0.0.1:{port}/readyz") is not None, 30)
    found = json.loads(get(f"http://127.0.0.1:{port}/api/v1/images/image/00001/similar?k=3") or b"{}")
    assert len(found["neighbours"]) == 3
    taken = system.run("serve", "--port", str(port), check=False)
    assert taken.returncode == 1
    assert "choose another --port" in taken.stderr
    serving.send_signal(number)
    assert serving.wait(20) == 0
    assert f"the explorer is at http://127.0.0.1:{port}/" in (tmp_path / "serve-0.log").read_text()
