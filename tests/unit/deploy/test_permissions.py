"""Each role may do to the table what its code does, and nothing else."""

from typing import Any

import pytest

from tests.unit.deploy.calls import Calls, calls_of, operations_of_the_wire
from tests.unit.deploy.templates import Json, listed, statements, template

ROLES = {"ApiRole": ["api"], "WorkerRole": ["worker"], "OperatorPolicy": ["ops"]}


def granted(name: str) -> Calls:
    """What the service's template lets a role do to the table and to its index."""
    return Calls(
        frozenset(_actions(name, {"Ref": "TableArn"})),
        frozenset(_actions(name, {"Fn::Sub": "${TableArn}/index/undecided"})),
    )


def _actions(name: str, resource: Json) -> list[str]:
    return [
        action
        for statement in _statements(name)
        if resource in listed(statement["Resource"])
        for action in listed(statement["Action"])
    ]


def _statements(name: str) -> list[Json]:
    properties: dict[str, Any] = template("service")["Resources"][name]["Properties"]
    policies = properties.get("Policies", [properties])
    return [one for policy in policies for one in statements(policy["PolicyDocument"])]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_make_the_calls_that_its_code_makes_and_no_others(role: str) -> None:
    assert granted(role) == calls_of(*ROLES[role])


@pytest.mark.parametrize("role", ROLES)
def test_a_role_touches_nothing_of_dynamodb_but_the_table_and_its_index(role: str) -> None:
    allowed: list[Any] = [{"Ref": "TableArn"}, {"Fn::Sub": "${TableArn}/index/undecided"}]

    touched = [
        resource
        for statement in _statements(role)
        if any(action.startswith("dynamodb:") for action in listed(statement["Action"]))
        for resource in listed(statement["Resource"])
    ]

    assert touched
    assert [resource for resource in touched if resource not in allowed] == []


def test_the_endpoint_lets_pass_what_the_roles_may_do_and_no_more() -> None:
    endpoint = template("data")["Resources"]["TableEndpoint"]["Properties"]
    (statement,) = statements(endpoint["PolicyDocument"])
    roles = [granted(role) for role in ROLES]

    everything = frozenset().union(*(role.table | role.index for role in roles))

    assert frozenset(statement["Action"]) == everything


def test_no_call_of_the_lean_client_is_left_without_somebody_who_may_make_it() -> None:
    roles = [granted(role) for role in ROLES]
    everything = frozenset().union(*(role.table for role in roles))

    assert operations_of_the_wire() - everything == {"dynamodb:TransactWriteItems"}
