"""The fault bench in small: real processes and servers, a web server that misbehaves, and four faults."""

from pathlib import Path

from bench.chaos.plan import draw_plan
from bench.chaos.run import run

# No image of this seed waits for its time limit.
SEED = 37
KINDS = ("kill-worker", "kill-orchestrator", "flush-broker", "cut-backends")


def test_faults_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    """Every image ends done or failed as it must, with one vector, while workers, orchestrator and messages perish."""
    plan = draw_plan(SEED, 150, KINDS, singles=4, pairs=0)
    result = run(plan, tmp_path, limit=120)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in tmp_path.glob("*.log"))
    assert result.sound, f"{result}\n{logs}"
    assert [blow.kinds for blow in result.blows] == [blow.kinds for blow in plan.blows]
    assert result.verdict is not None
    assert result.verdict.failed == sum(fate.outcome != "done" for fate in plan.fates) > 0
