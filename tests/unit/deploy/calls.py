"""Which calls to the table the code of a package can make, read from its source.

A process reaches the table by functions of the order store; these, by a ``Gateway``. So: which of
them does a package name, which do those name in turn, and what do they ask of a gateway. A
transaction needs the permissions of its actions, which are written down as ``{"Put": ...}``.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.unit.deploy.templates import ROOT

_STORE = "shared.order_store"
_INDEX = "UNDECIDED_INDEX"
_QUERY = "dynamodb:Query"
_TRANSACTION = "dynamodb:TransactWriteItems"
_ACTIONS = {
    "Put": "dynamodb:PutItem",
    "Update": "dynamodb:UpdateItem",
    "Delete": "dynamodb:DeleteItem",
    "ConditionCheck": "dynamodb:ConditionCheckItem",
}

Definition = tuple[str, str]
"""A module of the store, and a function or class in it."""


@dataclass(frozen=True, slots=True)
class Calls:
    """IAM's names of what is done to the table, and to its index."""

    table: frozenset[str]
    index: frozenset[str]


def calls_of(*packages: str) -> Calls:
    """What the modules of ``packages`` (folders of the project) can ask of the table."""
    trees = [
        ast.parse(path.read_text())
        for package in packages
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    nodes: list[ast.AST] = list(trees)
    waiting = [found for tree in trees for found in _named(tree, _imports(tree))]
    seen: set[Definition] = set()
    while waiting:
        definition = waiting.pop()
        if definition in seen or definition not in _definitions():
            continue
        seen.add(definition)
        node, imports = _definitions()[definition]
        nodes.append(node)
        waiting += _named(node, imports)
    return _joined(_direct(node) for node in nodes)


def _joined(found: Iterable[Calls]) -> Calls:
    parts = list(found)
    return Calls(
        frozenset().union(*(part.table for part in parts)) - {_TRANSACTION},
        frozenset().union(*(part.index for part in parts)),
    )


def _direct(node: ast.AST) -> Calls:
    """What this piece of code itself asks of a gateway, and the actions that it writes down."""
    table = {
        _ACTIONS[str(key.value)]
        for part in ast.walk(node)
        if isinstance(part, ast.Dict)
        for key in part.keys
        if isinstance(key, ast.Constant) and key.value in _ACTIONS
    }
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and _last_name(part.value).endswith("gateway"):
            table |= _gateway_calls().get(part.attr, frozenset())
    if any(_last_name(part) == _INDEX for part in ast.walk(node)):
        return Calls(frozenset(table - {_QUERY}), frozenset({_QUERY}))
    return Calls(frozenset(table), frozenset())


def _last_name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _named(node: ast.AST, imports: dict[str, Definition]) -> Iterator[Definition]:
    """The store's definitions that a piece of code names."""
    for part in ast.walk(node):
        match part:
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if name in imports:
                module = imports[name]
                if module[1] == "":
                    yield module[0], attr
            case ast.Name(id=name) if name in imports:
                yield imports[name]


def _imports(tree: ast.AST) -> dict[str, Definition]:
    """Local names of the store's modules (with an empty second part) and definitions."""
    found: dict[str, Definition] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(_STORE):
            continue
        module = (node.module or "").removeprefix(_STORE).lstrip(".")
        for name in node.names:
            place = (module, name.name) if module else (name.name, "")
            found[name.asname or name.name] = place
    return found


@cache
def _definitions() -> dict[Definition, tuple[ast.AST, dict[str, Definition]]]:
    """Every function and class of the store, with the names that it sees."""
    found: dict[Definition, tuple[ast.AST, dict[str, Definition]]] = {}
    for path in sorted((ROOT / _STORE.replace(".", "/")).glob("*.py")):
        # What the gateway does is read method by method; tables are made by the template. A restore
        # fills another table than the template's, by rights that no template gives.
        if path.stem in ("gateway", "table", "create_table", "fill", "wire"):
            continue
        tree = ast.parse(path.read_text())
        own = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        imports = _imports(tree) | {node.name: (path.stem, node.name) for node in own}
        found |= {(path.stem, node.name): (node, imports) for node in own if not _is_gateway(node)}
    return found


@cache
def _gateway_calls() -> dict[str, frozenset[str]]:
    """Methods of the gateways, and the permissions that each needs."""
    store = ROOT / _STORE.replace(".", "/")
    classes = [
        node
        for path in (store / "gateway.py", store / "scan.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and _is_gateway(node)
    ]
    methods = {
        node.name: node
        for found in classes
        for node in found.body
        if isinstance(node, ast.FunctionDef)
    }
    return {name: frozenset(_client_calls(node, methods)) for name, node in methods.items()}


def _is_gateway(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and node.name.endswith("Gateway")


def _client_calls(node: ast.AST, methods: dict[str, ast.FunctionDef]) -> Iterator[str]:
    for part in ast.walk(node):
        match part:
            case ast.Attribute(value=ast.Attribute(attr="_client"), attr=operation):
                words = operation.split("_")
                yield "dynamodb:" + "".join(word.capitalize() for word in words)
            case ast.Attribute(value=ast.Name(id="self"), attr=attr) if attr in methods:
                if methods[attr] is not node:
                    yield from _client_calls(methods[attr], methods)


def operations_of_the_wire() -> frozenset[str]:
    """IAM's names of the operations that the lean client can send."""
    path: Path = ROOT / _STORE.replace(".", "/") / "wire.py"
    return frozenset(_sent(ast.parse(path.read_text())))


def _sent(tree: ast.AST) -> Iterator[str]:
    for part in ast.walk(tree):
        match part:
            case ast.Call(
                func=ast.Attribute(attr="_call"), args=[ast.Constant(value=str(operation)), *_]
            ):
                yield f"dynamodb:{operation}"
