"""The AWS template as far as it can be run here: its table, its policies, its way to Redis.

The processes run on the table that the template defines; each call of theirs passes a guard that
knows the template's policies; and they reach Redis as the template's user, by the template's URL,
over TLS.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
import redis
from botocore.exceptions import ClientError

from local.processes import Process
from shared.clients import broker_client
from shared.settings import Settings
from shared.task_queue import QueueUnavailable, TaskQueue, publisher_app
from tests.integration.client import Client
from tests.integration.guard import INDEX, TABLE, Guard, Permission, Tls
from tests.stack import Engines, Stack
from tests.unit.deploy.calls import Calls
from tests.unit.deploy.templates import Json, template
from tests.unit.deploy.test_permissions import granted
from tests.unit.deploy.test_table import OF_AWS_ALONE

pytestmark = pytest.mark.integration

PASSWORD = "a" * 64
REDIS_USER = "orders"
ROLES = {"api": "ApiRole", "worker": "WorkerRole", "sweeper": "WorkerRole"}


class AwsStack(Stack):
    """A stack whose processes are who they would be on AWS."""

    def _process(self, name: str, command: list[str], **changes: str) -> Process:
        role = ROLES.get(name.rstrip("0123456789"), "deployment")
        return super()._process(name, command, **{"AWS_ACCESS_KEY_ID": role, **changes})


def allowed(calls: Calls) -> frozenset[Permission]:
    """What the template grants, as the guard reads it."""
    return frozenset(
        [(action, TABLE) for action in calls.table] + [(action, INDEX) for action in calls.index]
    )


def make_table(client: Any, name: str) -> None:
    """Make the table that the data template defines, less what only AWS itself has."""
    properties: Json = template("data")["Resources"]["Table"]["Properties"]
    own = {key: of for key, of in properties.items() if key not in OF_AWS_ALONE}
    client.create_table(TableName=name, **own)
    client.update_time_to_live(
        TableName=name, TimeToLiveSpecification=properties["TimeToLiveSpecification"]
    )


def redis_url(secret: str, port: int, database: int) -> str:
    """A URL as the data template writes it into ``secret``, with this machine's server in it."""
    written = template("data")["Resources"][secret]["Properties"]["SecretString"]["Fn::Sub"]
    with_password = re.sub(r"\{\{resolve:.*?\}\}\}", PASSWORD, written)
    with_host = re.sub(r"\$\{\w+\.PrimaryEndPoint\.Address\}", "localhost", with_password)
    with_port = re.sub(r"\$\{\w+\.PrimaryEndPoint\.Port\}", str(port), with_host)
    return with_port.replace("/0?", f"/{database}?")


def admit(engines: Engines, user: str) -> None:
    """Make the Redis user of the data template, and nobody else welcome."""
    access = template("data")["Resources"][user]["Properties"]["AccessString"]
    with redis.Redis(port=engines.redis_port, socket_timeout=5) as connection:
        connection.execute_command(
            "ACL", "SETUSER", REDIS_USER, "reset", f">{PASSWORD}", *access.split()
        )


@pytest.fixture(scope="module")
def guard(own_engines: Engines) -> Iterator[Guard]:
    roles = {role: allowed(granted(role)) for role in ROLES.values()}
    with Guard(own_engines.dynamodb_port, roles) as guard:
        yield guard


@pytest.fixture(scope="module")
def tls(own_engines: Engines) -> Iterator[Tls]:
    with Tls(own_engines.redis_port, own_engines.folder) as tls:
        yield tls


@pytest.fixture(scope="module")
def stack(own_engines: Engines, guard: Guard, tls: Tls) -> Iterator[Stack]:
    for user in ("BrokerUser", "CacheUser"):
        admit(own_engines, user)
    env = {
        "AWS_ENDPOINT_URL_DYNAMODB": guard.url,
        "REDIS_URL": redis_url("BrokerUrl", tls.port, 0),
        "CACHE_URL": redis_url("CacheUrl", tls.port, 1),
        "SSL_CERT_FILE": str(tls.authority),
        "WORKER_PROCESSES": "1",
        "RECOVER_AFTER": "1",
        "SWEEP_EVERY": "0.5",
    }
    with ExitStack() as cleanup:
        stack = AwsStack(own_engines, api_processes=1, env=env)
        make_table(stack.dynamodb, stack.table_name)
        yield cleanup.enter_context(stack)


@pytest.fixture
def client(stack: Stack) -> Client:
    return Client(stack.url)


def test_an_order_lives_its_life_on_the_template_s_table(client: Client, stack: Stack) -> None:
    account = client.open_account(1000)
    bought = client.settled(client.order(account, total_shares=10, share_price="50.5"))
    refused = client.settled(client.order(account, total_shares=11, share_price="50.5"))

    assert bought["status"] == "executed"
    assert refused["business_errors"] == ["INSUFFICIENT_BALANCE"]
    assert client.account(account)["cash"] == "495"
    assert [order["id"] for order in client.orders(account)] == [bought["id"], refused["id"]]
    assert client.get("/readyz").json()["checks"] == dict.fromkeys(
        ("store", "broker", "cache"), "ok"
    )


def test_a_lost_message_is_sent_again_through_the_template_s_index(
    client: Client, stack: Stack, own_engines: Engines
) -> None:
    account = client.open_account(1000)
    stack.kill_worker(0)
    order = client.order(account)
    own_engines.flush_redis()
    stack.add_worker()

    assert client.settled(order)["status"] == "executed"


def test_a_key_is_remembered_until_the_template_s_table_lets_it_go(
    client: Client, stack: Stack
) -> None:
    answers = [client.post("/v1/accounts", {"cash": 5}, key="one") for _ in range(2)]
    described = stack.dynamodb.describe_time_to_live(TableName=stack.table_name)

    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert described["TimeToLiveDescription"]["AttributeName"] == "expires_at"


def test_nothing_that_the_processes_did_was_denied(client: Client, guard: Guard) -> None:
    account = client.open_account(1000)
    client.settled(client.order(account))
    deadline = time.monotonic() + 10
    while ("dynamodb:Query", INDEX) not in guard.used["WorkerRole"]:
        assert time.monotonic() < deadline, "no sweep"
        time.sleep(0.1)

    assert guard.denied == []
    assert {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:GetItem"} <= {
        action for action, _ in guard.used["ApiRole"]
    }


def test_what_a_role_was_not_given_is_denied(stack: Stack) -> None:
    roles = {"WorkerRole": allowed(granted("WorkerRole"))}
    item = {"pk": {"S": "ACCOUNT#1"}, "sk": {"S": "ACCOUNT"}}
    with Guard(stack.engines.dynamodb_port, roles) as guard:
        as_worker = boto3.session.Session().client(
            "dynamodb",
            endpoint_url=guard.url,
            region_name="us-east-1",
            aws_access_key_id="WorkerRole",
            aws_secret_access_key="local",
        )
        with pytest.raises(ClientError, match="AccessDenied"):
            as_worker.delete_item(TableName=stack.table_name, Key=item)
        with pytest.raises(ClientError, match="AccessDenied"):
            as_worker.transact_write_items(
                TransactItems=[{"Delete": {"TableName": stack.table_name, "Key": item}}]
            )

    assert guard.denied == [("WorkerRole", ("dynamodb:DeleteItem", TABLE))] * 2


def test_redis_admits_the_template_s_user_alone_and_keeps_its_servers_from_it(
    stack: Stack, own_engines: Engines, tls: Tls
) -> None:
    trusted = {"ssl_ca_certs": str(tls.authority), "socket_timeout": 5}
    url = redis_url("BrokerUrl", tls.port, 0)
    with redis.Redis.from_url(url, **trusted) as user:
        assert user.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            user.flushall()
        with pytest.raises(redis.exceptions.NoPermissionError):
            user.config_get("maxmemory")
    with (
        redis.Redis.from_url(url.replace(PASSWORD, "guessed"), **trusted) as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.ping()


def test_a_redis_with_a_certificate_of_nobody_s_is_not_believed(tls: Tls, stack: Stack) -> None:
    believing_nobody = redis.Redis.from_url(redis_url("BrokerUrl", tls.port, 0), socket_timeout=5)
    with believing_nobody, pytest.raises(redis.exceptions.ConnectionError, match="certificate"):
        believing_nobody.ping()

    settings = Settings(redis_url=redis_url("BrokerUrl", tls.port, 0))
    queue = TaskQueue(publisher_app(settings, 1), broker_client(settings, 1))
    with pytest.raises(QueueUnavailable, match="certificate"):
        queue.publish([(1, "none")], datetime.now(UTC))
