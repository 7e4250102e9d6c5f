"""DynamoDB's expressions, compiled once for each text and kept.

A condition becomes a function of an item and the values, an update one that returns a new item.
Nothing is changed in place: an item that somebody holds stays as it was read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any, Final

Value = dict[str, Any]
Item = dict[str, Value]
Values = Mapping[str, Value]
Path = tuple[str | int, ...]
Condition = Callable[[Mapping[str, Value], Values], bool]
Operand = Callable[[Mapping[str, Value], Values], Value | None]
Step = Callable[[Mapping[str, Value], Item, Values], Item]

_NUMBERS: Final = Context(prec=38)
_TOKEN: Final = re.compile(r"\s*(?:([#:]?\w+)|(<>|<=|>=|[-=<>(),.\[\]+]))")
_COMPARISONS: Final = frozenset({"=", "<>", "<", "<=", ">", ">="})
_FUNCTIONS: Final = frozenset(
    {"attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains"}
)
_CLAUSES: Final = frozenset({"SET", "ADD", "REMOVE", "DELETE"})
_ORDERED: Final = frozenset({"S", "N", "B"})
_SETS: Final = frozenset({"SS", "NS", "BS"})


class ExpressionError(ValueError):
    """DynamoDB would answer ValidationException."""


@dataclass(slots=True)
class Compiled:
    """What one expression does, and the placeholders that it uses."""

    condition: Condition = lambda _item, _values: True
    steps: list[Step] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    values: set[str] = field(default_factory=set)
    written: list[str] = field(default_factory=list)
    equals: dict[str, str] = field(default_factory=dict)
    """Attributes that the condition asks to equal a value, by ANDs alone: a key's hash is here."""
    between: tuple[str, str] | None = None
    """The values between which a BETWEEN asks an attribute to lie: a key condition has one."""

    def update(self, item: Item, values: Values) -> Item:
        """A new item: every operand is read from ``item`` as it was."""
        after = dict(item)
        for step in self.steps:
            after = step(item, after, values)
        return after


_compiled: dict[tuple[str, tuple[tuple[str, str], ...], bool], Compiled] = {}


def compile_condition(text: str, names: Mapping[str, str]) -> Compiled:
    """Compile a condition, filter or key condition; raises ``ExpressionError``."""
    key = (text, tuple(names.items()), False)
    found = _compiled.get(key)
    if found is None:
        found = _compiled[key] = _Parser(text, names).whole_condition()
    return found


def compile_update(text: str, names: Mapping[str, str]) -> Compiled:
    """Compile an update expression; raises ``ExpressionError``."""
    key = (text, tuple(names.items()), True)
    found = _compiled.get(key)
    if found is None:
        found = _compiled[key] = _Parser(text, names).whole_update()
    return found


def plain_number(number: Decimal) -> str:
    """A number as DynamoDB writes it: no exponent, no needless zeros."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


class _Parser:
    """Recursive descent over one expression."""

    def __init__(self, text: str, names: Mapping[str, str]) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._names = names
        self._out = Compiled()

    def whole_condition(self) -> Compiled:
        self._out.condition = self._either(top=True)
        self._end()
        return self._out

    def whole_update(self) -> Compiled:
        seen: set[str] = set()
        while self._peek():
            clause = self._take().upper()
            if clause not in _CLAUSES or clause in seen:
                raise ExpressionError(f"unexpected {clause}")
            seen.add(clause)
            self._clause(clause)
            while self._accept(","):
                self._clause(clause)
        if not seen or len(set(self._out.written)) != len(self._out.written):
            raise ExpressionError("an update without a clause, or with overlapping paths")
        return self._out

    # Conditions, from the loosest to the tightest.

    def _either(self, *, top: bool) -> Condition:
        options = [self._both(top=top)]
        while self._accept("OR"):
            self._out.equals.clear()
            options.append(self._both(top=False))
        if len(options) == 1:
            return options[0]
        return lambda item, values: any(option(item, values) for option in options)

    def _both(self, *, top: bool) -> Condition:
        parts = [self._negation(top=top)]
        while self._accept("AND"):
            parts.append(self._negation(top=top))
        if len(parts) == 1:
            return parts[0]
        return lambda item, values: all(part(item, values) for part in parts)

    def _negation(self, *, top: bool) -> Condition:
        if self._accept("NOT"):
            inner = self._negation(top=False)
            return lambda item, values: not inner(item, values)
        return self._primary(top=top)

    def _primary(self, *, top: bool) -> Condition:
        if self._accept("("):
            inner = self._either(top=False)
            self._expect(")")
            return inner
        word = self._peek()
        if word in _FUNCTIONS and self._peek(1) == "(":
            return self._function(self._take())
        start = self._at
        left = self._operand()
        operator = self._take()
        if operator.upper() == "BETWEEN":
            return self._between(left)
        if operator.upper() == "IN":
            return self._among(left)
        if operator not in _COMPARISONS:
            raise ExpressionError(f"unexpected {operator}")
        if top and operator == "=" and self._at == start + 2 and self._peek().startswith(":"):
            attribute = self._names.get(self._tokens[start], self._tokens[start])
            self._out.equals[attribute] = self._peek()
        return _comparison(operator, left, self._operand())

    def _between(self, operand: Operand) -> Condition:
        first = self._peek()
        low = self._operand()
        self._expect("AND")
        self._out.between = (first, self._peek())
        high = self._operand()
        above, below = _comparison("<=", low, operand), _comparison("<=", operand, high)
        return lambda item, values: above(item, values) and below(item, values)

    def _among(self, operand: Operand) -> Condition:
        self._expect("(")
        options = [_comparison("=", operand, self._operand())]
        while self._accept(","):
            options.append(_comparison("=", operand, self._operand()))
        self._expect(")")
        return lambda item, values: any(option(item, values) for option in options)

    def _function(self, name: str) -> Condition:
        self._expect("(")
        first = self._operand()
        if name in ("attribute_exists", "attribute_not_exists"):
            self._expect(")")
            is_wanted = name == "attribute_exists"
            return lambda item, values: (first(item, values) is not None) is is_wanted
        self._expect(",")
        second = self._operand()
        self._expect(")")
        test = {"attribute_type": _is_type, "begins_with": _begins, "contains": _contains}[name]

        def holds(item: Mapping[str, Value], values: Values) -> bool:
            left, right = first(item, values), second(item, values)
            return left is not None and right is not None and test(left, right)

        return holds

    # Operands and paths.

    def _operand(self) -> Operand:
        word = self._peek()
        if word.startswith(":"):
            self._take()
            self._out.values.add(word)
            return lambda _item, values: values[word]
        if word == "size" and self._peek(1) == "(":
            self._take()
            self._expect("(")
            inner = _reader(self._path())
            self._expect(")")
            return lambda item, values: _size(inner(item, values))
        if word == "if_not_exists" and self._peek(1) == "(":
            first, second = self._pair()
            return lambda item, values: (
                found if (found := first(item, values)) is not None else second(item, values)
            )
        if word == "list_append" and self._peek(1) == "(":
            first, second = self._pair()
            return lambda item, values: _append(first(item, values), second(item, values))
        return _reader(self._path())

    def _pair(self) -> tuple[Operand, Operand]:
        self._take()
        self._expect("(")
        first = self._operand()
        self._expect(",")
        second = self._operand()
        self._expect(")")
        return first, second

    def _path(self) -> Path:
        path: list[str | int] = [self._name()]
        while True:
            if self._accept("."):
                path.append(self._name())
            elif self._accept("["):
                path.append(int(self._take()))
                self._expect("]")
            else:
                return tuple(path)

    def _name(self) -> str:
        word = self._take()
        if not word.startswith("#"):
            if not word[:1].isalpha():
                raise ExpressionError(f"no attribute: {word}")
            return word
        self._out.names.add(word)
        if word not in self._names:
            raise ExpressionError(f"no name given for {word}")
        return self._names[word]

    # Updates.

    def _clause(self, clause: str) -> None:
        path = self._path()
        self._out.written.append(str(path[0]) if len(path) == 1 else repr(path))
        if clause == "REMOVE":
            self._out.steps.append(lambda _before, after, _values: _without(after, path))
            return
        if clause == "SET":
            self._expect("=")
            self._out.steps.append(_setting(path, self._sum()))
            return
        word = self._take()
        if not word.startswith(":"):
            raise ExpressionError(f"{clause} takes a value")
        self._out.values.add(word)
        change = _added if clause == "ADD" else _deleted
        self._out.steps.append(_changing(path, word, change))

    def _sum(self) -> Operand:
        left = self._operand()
        sign = self._peek()
        if sign not in ("+", "-"):
            return left
        self._take()
        right = self._operand()
        return lambda item, values: _plus(left(item, values), right(item, values), sign)

    # Tokens.

    def _peek(self, ahead: int = 0) -> str:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        if not token:
            raise ExpressionError("the expression ends too early")
        self._at += 1
        return token

    def _accept(self, token: str) -> bool:
        if self._peek().upper() != token:
            return False
        self._at += 1
        return True

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise ExpressionError(f"{token} expected, not {self._peek()!r}")

    def _end(self) -> None:
        if self._peek():
            raise ExpressionError(f"unexpected {self._peek()}")


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise ExpressionError(f"cannot read {text[at:]!r}")
        tokens.append(found[1] or found[2])
        at = found.end()
    return tokens


def _reader(path: Path) -> Operand:
    if len(path) == 1:
        name = str(path[0])
        return lambda item, _values: item.get(name)
    return lambda item, _values: _read(item, path)


def _read(item: Mapping[str, Value], path: Path) -> Value | None:
    found: Value | None = item.get(str(path[0]))
    for step in path[1:]:
        if found is None:
            return None
        if isinstance(step, int):
            members = found.get("L", [])
            found = members[step] if step < len(members) else None
        else:
            found = found.get("M", {}).get(step)
    return found


def _comparison(operator: str, left: Operand, right: Operand) -> Condition:
    def holds(item: Mapping[str, Value], values: Values) -> bool:
        return _compare(operator, left(item, values), right(item, values))

    return holds


def _compare(operator: str, left: Value | None, right: Value | None) -> bool:
    if left is None or right is None:
        return operator == "<>"
    (left_type, one), (right_type, other) = _typed(left), _typed(right)
    if operator == "=":
        return left_type == right_type and bool(one == other)
    if operator == "<>":
        return left_type != right_type or bool(one != other)
    if left_type != right_type or left_type not in _ORDERED:
        return False
    if operator == "<":
        return bool(one < other)
    if operator == "<=":
        return bool(one <= other)
    return bool(one > other) if operator == ">" else bool(one >= other)


def _typed(value: Value) -> tuple[str, Any]:
    kind, content = next(iter(value.items()))
    if kind == "N":
        return kind, Decimal(content)
    return kind, sorted(content) if kind in _SETS else content


def _is_type(value: Value, kind: Value) -> bool:
    return kind.get("S") in value


def _begins(value: Value, start: Value) -> bool:
    return "S" in value and value["S"].startswith(start.get("S", ""))


def _contains(value: Value, member: Value) -> bool:
    kind, content = next(iter(value.items()))
    if kind == "S":
        return "S" in member and member["S"] in content
    if kind == "L":
        return member in content
    return kind in _SETS and next(iter(member.values())) in content


def _size(value: Value | None) -> Value | None:
    if value is None:
        return None
    kind, content = next(iter(value.items()))
    length = len(content.encode()) if kind == "S" else len(content)
    return {"N": str(length)}


def _append(first: Value | None, second: Value | None) -> Value:
    if first is None or second is None or "L" not in first or "L" not in second:
        raise ExpressionError("list_append takes two lists")
    return {"L": [*first["L"], *second["L"]]}


def _plus(left: Value | None, right: Value | None, sign: str) -> Value:
    if left is None or right is None or "N" not in left or "N" not in right:
        raise ExpressionError("only numbers can be added")
    one, other = Decimal(left["N"]), Decimal(right["N"])
    total = _NUMBERS.add(one, other) if sign == "+" else _NUMBERS.subtract(one, other)
    return {"N": plain_number(total)}


def _setting(path: Path, operand: Operand) -> Step:
    def set_it(before: Mapping[str, Value], after: Item, values: Values) -> Item:
        value = operand(before, values)
        if value is None:
            raise ExpressionError("an attribute that the expression reads does not exist")
        return _with(after, path, value)

    return set_it


def _changing(path: Path, word: str, change: Callable[[Value | None, Value], Value | None]) -> Step:
    def change_it(before: Mapping[str, Value], after: Item, values: Values) -> Item:
        value = change(_read(before, path), values[word])
        return after if value is None else _with(after, path, value)

    return change_it


def _added(old: Value | None, value: Value) -> Value:
    kind, content = next(iter(value.items()))
    if kind == "N":
        return _plus(old or {"N": "0"}, value, "+")
    if kind not in _SETS or (old is not None and kind not in old):
        raise ExpressionError("ADD takes numbers and sets")
    return {kind: sorted({*(old or {kind: []})[kind], *content})}


def _deleted(old: Value | None, value: Value) -> Value | None:
    kind, content = next(iter(value.items()))
    if kind not in _SETS or (old is not None and kind not in old):
        raise ExpressionError("DELETE takes sets")
    return None if old is None else {kind: sorted({*old[kind]} - {*content})}


def _with(item: Item, path: Path, value: Value) -> Item:
    if len(path) == 1:
        item[str(path[0])] = value
        return item
    name = str(path[0])
    if name not in item:
        raise ExpressionError("the document path provided in the update is invalid")
    item[name] = _nested(item[name], path[1:], value)
    return item


def _without(item: Item, path: Path) -> Item:
    if len(path) == 1:
        item.pop(str(path[0]), None)
    elif _read(item, path) is not None:
        item[str(path[0])] = _nested(item[str(path[0])], path[1:], None)
    return item


def _nested(container: Value, path: Path, value: Value | None) -> Value:
    """A copy of ``container`` with ``value`` at ``path``, or without what is there."""
    step = path[0]
    kind = "L" if isinstance(step, int) else "M"
    if kind not in container:
        raise ExpressionError("the document path provided in the update is invalid")
    if isinstance(step, int):
        members = list(container["L"])
        if len(path) > 1:
            members[step] = _nested(members[step], path[1:], value)
        elif value is None:
            del members[step]
        else:
            members[step : step + 1] = [value]
        return {"L": members}
    fields = dict(container["M"])
    if len(path) > 1:
        fields[step] = _nested(fields[step], path[1:], value)
    elif value is None:
        fields.pop(step, None)
    else:
        fields[step] = value
    return {"M": fields}
