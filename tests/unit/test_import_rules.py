"""The domain is pure: the standard library only, and no clock, chance or outside world in it.

The import rules between packages are import-linter's (`make check`); it cannot see calls.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DOMAIN = Path(__file__).resolve().parents[2] / "shared" / "domain"

# Standard, but with an effect, or an answer of its own at each call.
IMPURE_MODULES = frozenset(
    {
        "asyncio",
        "ctypes",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "select",
        "shutil",
        "socket",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
    }
)
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__"})
CLOCK_METHODS = frozenset({"now", "utcnow", "today"})


def violations(source: str) -> list[str]:
    """What in a module's source has no place in the domain."""
    return [problem for node in ast.walk(ast.parse(source)) for problem in _problems(node)]


def _problems(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (name.name for name in names if not _may_import(name.name))
        case ast.ImportFrom(module=str(module), level=0) if not _may_import(module):
            yield module
        case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
            yield f"{name}()"
        case ast.Attribute(attr=name) if name in CLOCK_METHODS:
            yield f".{name}"


def _may_import(module: str) -> bool:
    if module == "shared.domain" or module.startswith("shared.domain."):
        return True
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names and top not in IMPURE_MODULES


@pytest.mark.parametrize("path", sorted(DOMAIN.rglob("*.py")), ids=lambda path: path.name)
def test_the_domain_is_pure(path: Path) -> None:
    assert violations(path.read_text()) == []


def test_there_is_a_domain_to_check() -> None:
    assert (DOMAIN / "decision.py").is_file()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import redis", ["redis"]),
        ("import uuid", ["uuid"]),
        ("from time import time", ["time"]),
        ("import os.path", ["os.path"]),
        ("from shared.settings import Settings", ["shared.settings"]),
        ("from shared import domain", ["shared"]),
        ("import shared.domains", ["shared.domains"]),
        ("from datetime import datetime\nat = datetime.now()", [".now"]),
        ("clock = datetime.utcnow", [".utcnow"]),
        ("def load():\n    import random", ["random"]),
        ("print('decided')", ["print()"]),
    ],
)
def test_what_is_impure_is_found(source: str, found: list[str]) -> None:
    assert violations(source) == found


@pytest.mark.parametrize(
    "source",
    [
        "from shared.domain.order import Order",
        "from shared.domain import money",
        "from . import money",
        "from collections.abc import Mapping\nfrom datetime import datetime, timedelta",
    ],
)
def test_what_is_pure_passes(source: str) -> None:
    assert violations(source) == []
