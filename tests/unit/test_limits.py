"""docs/limits.md says what the code does: values are the same, no limit is missing."""

import ast
import importlib
import re
import runpy
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from api.access.limits import build_limiter
from api.services import build_services
from shared.order_store.wire import DynamoDBWire
from shared.settings import Settings
from shared.task_queue import worker_app

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "limits.md"
PACKAGES = {
    "api": ROOT,
    "shared": ROOT,
    "worker": ROOT,
    "ops": ROOT,
    "local": ROOT,
    "order_client": ROOT / "client",
}
"""Packages whose limits have rows, and the folder that holds each."""

UNITS = {"": 1, "s": 1, "h": 3600, "bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
VALUE = re.compile(r"(?P<number>[\d,]+(\.\d+)?)(\^(?P<power>\d+))?( (?P<unit>[A-Za-z]+))?")
LIMIT_NAME = re.compile(r"[A-Z_]+_MAX")


@dataclass(frozen=True)
class Row:
    """A limit as the document has it."""

    value: str
    name: str
    tests: list[str]


def rows() -> list[Row]:
    found = []
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] != "limit" and not cells[0].startswith("---"):
            found.append(Row(cells[1], cells[2].strip("`"), re.findall(r"`(\w+)`", cells[4])))
    return found


NAMED = [row for row in rows() if row.name]


def documented(text: str) -> Decimal:
    match = VALUE.fullmatch(text)
    assert match, f"{text!r} is no value"
    number = Decimal(match["number"].replace(",", ""))
    power = int(match["power"] or 1)
    return number**power * UNITS[match["unit"] or ""]


def actual(name: str) -> Any:
    """The value that the code has for ``name``."""
    home, _, rest = name.partition(".")
    if home == "Settings":
        return Settings.model_fields[rest].default
    if home == "gunicorn":
        return runpy.run_path(str(ROOT / "api" / "gunicorn_conf.py"))[rest]
    if home == "celery":
        value: Any = worker_app(Settings()).conf
        for part in rest.split("."):
            value = value[part]
        return value
    if home == "pool":
        return pool_size(rest)
    module, _, constant = name.rpartition(".")
    return getattr(importlib.import_module(module), constant)


def pool_size(of: str) -> int:
    """Connections that one process of the API keeps at most."""
    services = build_services(Settings())
    limiter = build_limiter(Settings(address_rate=1))
    assert limiter is not None
    sizes = {
        "dynamodb": cast("DynamoDBWire", services.gateway._client).connections,
        "publisher": services.queue._app.conf.broker_pool_limit,
        "cache": services.cache._redis.connection_pool.max_connections,
        "limits": cast("Redis", limiter._script.registered_client).connection_pool.max_connections,
    }
    return int(sizes[of])


@pytest.fixture(autouse=True)
def _only_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.parametrize("row", NAMED, ids=[row.name for row in NAMED])
def test_a_documented_limit_is_the_one_in_the_code(row: Row) -> None:
    value = actual(row.name)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    assert Decimal(str(value)) == documented(row.value)


def test_every_limit_of_the_code_is_documented() -> None:
    named = {row.name for row in NAMED}
    missing = [
        f"{module}.{constant}"
        for package, folder in PACKAGES.items()
        for path in sorted((folder / package).rglob("*.py"))
        for module in [".".join(path.relative_to(folder).with_suffix("").parts)]
        for constant in constants_of(path)
        if f"{module}.{constant}" not in named
    ]
    assert missing == []


def constants_of(path: Path) -> list[str]:
    """The names at the top of a module that say that they are a limit."""
    names: list[str] = []
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if LIMIT_NAME.fullmatch(name)]


def test_every_test_that_is_named_exists() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT.read_text()))
    assert len(named) > 40
    assert [name for name in sorted(named) if f"def {name}(" not in source] == []


def test_pools_are_as_large_as_what_uses_them() -> None:
    for of in ("dynamodb", "publisher", "cache", "limits"):
        assert pool_size(of) >= Settings().api_threads
