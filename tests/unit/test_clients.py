"""Clients as the environment sets them up."""

import os
import subprocess
import sys
from typing import cast

import pytest
from botocore.exceptions import EndpointConnectionError

from local.ports import free_port
from shared.clients import table_client
from shared.order_store.wire import DynamoDBWire


def test_the_tables_client_is_set_up_as_boto3_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = table_client(connections=1)
    with pytest.raises(EndpointConnectionError) as caught:
        client.get_item(TableName="orders", Key={})
    assert url in str(caught.value)


def test_without_an_endpoint_it_is_the_regions_own_over_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_DYNAMODB", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-2")
    wire = cast("DynamoDBWire", table_client(connections=1))
    assert wire.endpoint_url == "https://dynamodb.eu-south-2.amazonaws.com/"


@pytest.mark.parametrize(
    ("given", "used"), [({}, "timeout:1 attempts:1"), ({"RES_OPTIONS": "timeout:3"}, "timeout:3")]
)
def test_names_are_looked_up_for_a_second_and_no_longer(given: dict[str, str], used: str) -> None:
    others = {name: value for name, value in os.environ.items() if name != "RES_OPTIONS"}
    look = "import os, shared.clients; print(os.environ['RES_OPTIONS'])"
    done = subprocess.run(
        [sys.executable, "-c", look],
        env={**others, **given},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == used
