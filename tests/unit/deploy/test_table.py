"""The template's table is the table that the code makes, and some things more."""

from typing import Any

import pytest

from shared.order_store.keys import EXPIRES_AT
from shared.order_store.table import table_definition
from tests.unit.deploy.templates import Json, template

# What AWS's table has beyond the code's: none of it changes what a call is answered.
OF_AWS_ALONE = {
    "DeletionProtectionEnabled",
    "PointInTimeRecoverySpecification",
    "SSESpecification",
    "TimeToLiveSpecification",
}


@pytest.fixture
def table() -> Json:
    resource: Json = template("data")["Resources"]["Table"]
    return resource


def test_the_template_s_table_is_the_code_s(table: Json) -> None:
    own = {name: of for name, of in table["Properties"].items() if name not in OF_AWS_ALONE}

    assert {"TableName": "orders", **_sorted(own)} == _sorted(table_definition("orders"))


def test_the_template_s_table_expires_what_the_code_dates(table: Json) -> None:
    assert table["Properties"]["TimeToLiveSpecification"] == {
        "AttributeName": EXPIRES_AT,
        "Enabled": True,
    }


def test_the_template_s_table_outlives_its_stack_and_can_be_taken_back(table: Json) -> None:
    properties = table["Properties"]

    assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == "Retain"
    assert properties["DeletionProtectionEnabled"] is True
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def _sorted(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with its attributes in one order: theirs means nothing."""
    attributes = sorted(definition["AttributeDefinitions"], key=lambda one: one["AttributeName"])
    return {**definition, "AttributeDefinitions": attributes}
