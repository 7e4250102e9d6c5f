"""CloudFormation's templates as plain data: ``!Ref x`` becomes ``{"Ref": "x"}``, and so on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
AWS = ROOT / "deploy" / "aws"
NAMES = sorted(path.stem for path in AWS.glob("*.yaml"))
ENVIRONMENT = "AWS::ElasticBeanstalk::Environment"

Json = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> Json:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


def read(text: str) -> Json:
    """The template that ``text`` writes."""
    loader = _Loader(text)
    try:
        found: Json = loader.get_single_data()
    finally:
        loader.dispose()
    return found


def template(name: str) -> Json:
    """The template ``deploy/aws/<name>.yaml``."""
    return read((AWS / f"{name}.yaml").read_text())


def resources(found: Json, kind: str) -> Iterator[tuple[str, Json]]:
    """Logical name and whole resource of each one of ``kind`` (``AWS::S3::Bucket``)."""
    for name, resource in found.get("Resources", {}).items():
        if resource["Type"] == kind:
            yield name, resource


def options(environment: Json) -> dict[tuple[str, str], Any]:
    """An Elastic Beanstalk environment's settings by namespace and name."""
    settings = environment["Properties"]["OptionSettings"]
    found = {(one["Namespace"], one["OptionName"]): one["Value"] for one in settings}
    assert len(found) == len(settings), "an option is set twice"
    return found


def environment(logical_name: str) -> dict[tuple[str, str], Any]:
    """The settings of an environment of the service's template."""
    return options(template("service")["Resources"][logical_name])


def statements(policy: Json) -> list[Json]:
    """A policy document's statements."""
    found: list[Json] = policy["Statement"]
    return found


def listed(value: Any) -> list[Any]:
    """What may stand alone or in a list, as a list."""
    return list(value) if isinstance(value, list) else [value]
