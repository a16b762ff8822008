"""infra/monitoring: every figure that rules and dashboards name exists, and Prometheus understands what they ask."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from lookalike import limits
from lookalike.settings import Settings
from orchestrator import metrics as orchestrator_metrics
from workers import metrics as worker_metrics
from workers.gauges import STAGES, Gauges
from workers.line import Crowd

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/monitoring"
RULES = sorted(FOLDER.glob("*.rules.yml"))
DASHBOARDS = sorted((FOLDER / "grafana/dashboards").glob("*.json"))
NAME = re.compile(r"\blookalike[\w:]*")
PROMTOOL = shutil.which("promtool", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool on this machine: `make tools` installs Debian's"
)


def rules() -> list[dict]:
    """All rules of all files."""
    return [
        rule
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


def panels(dashboard: Path) -> list[dict]:
    return [panel for panel in json.loads(dashboard.read_text())["panels"] if panel["type"] != "row"]


def all_causes() -> set[str]:
    """What the rules may say limits us; one of them takes the name of a stage."""
    ranks = [rule["labels"] for rule in rules() if rule.get("record") == "lookalike:limit_rank"]
    return {labels["cause"] for labels in ranks if "cause" in labels}


def expressions() -> Iterator[tuple[str, str]]:
    """Where each expression of rules and dashboards stands, and the expression."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{dashboard.stem}: {panel['title']}", target["expr"]


def samples_of(families: Iterator[Metric]) -> set[str]:
    """The names that Prometheus stores for these families."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + ending for family in families for ending in endings[family.type]}


def collected(registry: CollectorRegistry) -> Iterator[Metric]:
    return (family for family in registry.collect() if family.name.startswith("lookalike"))


def of_a_worker() -> set[str]:
    """What a worker's collector yields, and what it would yield of a GPU."""
    pipeline = SimpleNamespace(
        gauges=Gauges(dict.fromkeys(STAGES, 1)),
        gate=SimpleNamespace(look=lambda: Crowd(0, 0)),
        device="cpu",
        batch_size=4,
    )
    found = samples_of(worker_metrics.PipelineFigures(pipeline, "none", "host.1").collect())  # type: ignore[arg-type]
    code = (ROOT / "workers/metrics.py").read_text()
    return found | set(re.findall(r'"(lookalike_worker_gpu_\w+)"', code))


def of_the_archive() -> set[str]:
    """What the looks name; tests/integration/test_metrics.py shows what they see."""
    code = (ROOT / "orchestrator/watch.py").read_text()
    return set(re.findall(r'yield gauge\(\s*"(lookalike_\w+)"', code))


def explorer() -> set[str]:
    """What the explorer exports, where it is built."""
    if importlib.util.find_spec("explorer.metrics") is None:
        return {f"lookalike_explorer_{name}" for name in (
            "requests_total", "request_seconds_bucket", "pictures_total", "pictures_waiting")}  # fmt: skip
    from explorer.metrics import Metrics

    return samples_of(collected(Metrics().registry))


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Every name that orchestrator, workers and explorer export."""
    names = samples_of(collected(orchestrator_metrics.REGISTRY)) | samples_of(
        collected(worker_metrics.REGISTRY)
    )
    return names | of_a_worker() | of_the_archive() | explorer()


def test_every_figure_is_one_that_the_code_exports(exported: set[str]) -> None:
    """Names of figures, and of rules that record others."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    unknown = {(where, name) for where, asked in expressions() for name in NAME.findall(asked)}
    assert {(where, name) for where, name in unknown if name not in exported | recorded} == set()


def test_every_figure_of_ours_is_shown_or_watched(exported: set[str]) -> None:
    """What nobody looks at need not be counted. Of a histogram its buckets are looked at."""
    asked = " ".join(expression for _, expression in expressions())
    named = set(NAME.findall(asked))
    plain = {name for name in exported if not name.endswith(("_sum", "_count"))}
    assert plain - named == set()


def test_alerts_say_how_bad_and_where_to_read_on() -> None:
    """Each has a severity, a sentence, and a paragraph of its own in docs/monitoring.md."""
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE)
    alerts = [rule for rule in rules() if "alert" in rule]
    assert [rule["alert"] for rule in alerts] == headings
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["help"] == f"docs/monitoring.md#{rule['alert'].lower()}"


def test_a_stage_is_saturated_where_the_command_says_so() -> None:
    """The rules take the bound of `lookalike status`, and every stage that it knows."""
    text = (FOLDER / "limits.rules.yml").read_text()
    bounds = re.findall(r'stage="(\w+)"\} [<>]=? ([\d.]+)', text)
    assert {float(bound) for _, bound in bounds} == {limits.SATURATED}
    assert {stage for stage, _ in bounds} == set(limits.SENTENCES)


def test_every_cause_has_its_words() -> None:
    """The panel shows each cause that the rules derive, and the documentation explains each."""
    causes = all_causes()
    overview = (FOLDER / "grafana/dashboards/lookalike-overview.json").read_text()
    assert set(re.findall(r'lookalike:limit\{cause=\\"(\w+)\\"', overview)) == causes
    text = (ROOT / "docs/monitoring.md").read_text()
    assert {cause for cause in causes if f"| `{cause}` |" not in text} == set()


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_provisioned(dashboard: Path) -> None:
    """Its name is its file's, panels have ids of their own, do not overlap, and ask the provisioned source."""
    board = json.loads(dashboard.read_text())
    assert board["uid"] == dashboard.stem
    assert "id" not in board
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uid = source["datasources"][0]["uid"]
    assert {target["datasource"]["uid"] for panel in panels(dashboard) for target in panel["targets"]} == {
        uid
    }
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@needs_promtool
@pytest.mark.parametrize("file", sorted((FOLDER / "tests").glob("*.test.yml")), ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(file: Path) -> None:
    """Each cause and each alert, once when it must speak and once when it must be silent."""
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_and_cause_is_tested() -> None:
    """The files of tests name each."""
    text = "\n".join(file.read_text() for file in (FOLDER / "tests").glob("*.test.yml"))
    assert [
        r["alert"] for r in rules() if "alert" in r and text.count(f"alertname: {r['alert']}\n") < 2
    ] == []
    causes = all_causes()
    assert {cause for cause in causes if f'cause="{cause}"' not in text} == set()


@needs_promtool
def test_prometheus_understands_all_that_is_asked(tmp_path: Path) -> None:
    """Its own parser takes the configuration, the rules, and every expression of the dashboards."""
    asked = [
        {"record": f"panel:{number}", "expr": expression.replace("$encoder", ".*")}
        for number, (_, expression) in enumerate(expressions())
    ]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    config = [PROMTOOL, "check", "config", "--syntax-only", str(FOLDER / "prometheus.yml")]
    for command in (config, [PROMTOOL, "check", "rules", *map(str, RULES), str(tmp_path / "panels.yml")]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_settings_that_the_documentation_names_exist() -> None:
    """docs/monitoring.md tells people to set nothing that nobody reads."""
    text = (ROOT / "docs/monitoring.md").read_text()
    known = {
        field.validation_alias or f"LOOKALIKE_{name.upper()}" for name, field in Settings.model_fields.items()
    }
    assert set(re.findall(r"\bLOOKALIKE_\w+", text)) - known == set()
