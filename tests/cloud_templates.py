"""The CloudFormation templates of infra/aws, read as plain data: short forms as `!Ref x` become `{"Ref": "x"}`."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "infra/aws"
ROOT = "lookalike"
# In an order in which each needs only what earlier ones give.
CHILDREN = ("keys", "network", "data", "events", "services", "workers", "alarms")
NAMES = (ROOT, *CHILDREN, "repositories")
EXAMPLES = ("small", "large")


class _Loader(yaml.SafeLoader):
    pass


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if name == "Fn::GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _short_form)


@cache
def read_template(name: str) -> dict[str, Any]:
    """A template as plain data, which nobody may change."""
    read: dict[str, Any] = yaml.load((FOLDER / f"{name}.yaml").read_text(), _Loader)
    return read


def read_example(name: str) -> dict[str, str]:
    """The parameters of a worked example."""
    read: dict[str, str] = json.loads((FOLDER / f"parameters-{name}.json").read_text())["Parameters"]
    return read


def resources(kind: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """All resources, or those of a kind, as (template.name, resource)."""
    for template in NAMES:
        for name, resource in read_template(template)["Resources"].items():
            if kind in (None, resource["Type"]):
                yield f"{template}.{name}", resource


def nodes(value: Any) -> Iterator[Any]:
    """The value and everything in it."""
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)
