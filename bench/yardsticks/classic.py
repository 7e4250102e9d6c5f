"""The order endpoint as the challenge describes it and as one would first write it.

Everything happens within the request: read the account, its issuers and its recent operations,
check the rules, then write. That is check-then-act, so concurrent orders of one account overwrite
each other; it is a yardstick for speed alone. It is meant to be reasonable: one boto3 client for
each process with a connection for each thread, queries by key, two writes sent as one batch, Redis
in front of the account's read.
"""

import json
import os
import time
from decimal import Decimal
from typing import Any
from uuid import uuid4

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from flask import Flask, Response, request
from redis import Redis

_TABLE = os.environ["TABLE_NAME"]
_DUPLICATE_SECONDS = 300
_CONNECTIONS = 32
_CACHE_SECONDS = 60

app = Flask(__name__, static_folder=None)
dynamodb = boto3.session.Session().client(
    "dynamodb", config=Config(max_pool_connections=_CONNECTIONS)
)
redis = Redis.from_url(os.environ["REDIS_URL"], max_connections=_CONNECTIONS)
_write = TypeSerializer().serialize
_read = TypeDeserializer().deserialize


@app.post("/accounts")
def open_account() -> Response:
    """Open an account."""
    cash = Decimal(str(json.loads(request.data)["cash"]))
    account_id = redis.incr("account_id")
    account = {"pk": f"ACCOUNT#{account_id}", "sk": "ACCOUNT", "cash": cash}
    dynamodb.put_item(TableName=_TABLE, Item=_item(account))
    return _answer({"id": account_id, "cash": str(cash)}, 201)


@app.post("/accounts/<int:account_id>/orders")
def place(account_id: int) -> Response:
    """Check an order against the account and carry it out at once."""
    order = json.loads(request.data, parse_float=Decimal)
    owner = f"ACCOUNT#{account_id}"
    account = _account(owner)
    issuers = {issuer["sk"].partition("#")[2]: issuer for issuer in _query(owner, "ISSUER#", "~")}
    since = int(order["timestamp"]) - _DUPLICATE_SECONDS
    recent = _query(owner, f"ORDER#{since}", "~")
    errors = _errors(account, issuers, recent, order)
    shown = {"current_balance": _balance(account, issuers), "business_errors": errors}
    if errors:
        return _answer(shown, 200)

    sign = 1 if order["operation"] == "BUY" else -1
    name, shares = order["issuer_name"], int(order["total_shares"])
    price = Decimal(str(order["share_price"]))
    account["cash"] -= sign * shares * price
    held = issuers.get(name, {"pk": owner, "sk": f"ISSUER#{name}", "total_shares": Decimal(0)})
    held |= {"total_shares": held["total_shares"] + sign * shares, "share_price": price}
    issuers[name] = held
    record = {"pk": owner, "sk": f"ORDER#{order['timestamp']}#{uuid4()}", **order}
    dynamodb.batch_write_item(
        RequestItems={_TABLE: [{"PutRequest": {"Item": _item(one)}} for one in (record, held)]}
    )
    dynamodb.update_item(
        TableName=_TABLE,
        Key=_item({"pk": owner, "sk": "ACCOUNT"}),
        UpdateExpression="SET cash = :cash",
        ExpressionAttributeValues={":cash": _write(account["cash"])},
    )
    redis.set(owner, str(account["cash"]), ex=_CACHE_SECONDS)
    return _answer(shown | {"current_balance": _balance(account, issuers)}, 200)


def _account(owner: str) -> dict[str, Any]:
    cached = redis.get(owner)
    if isinstance(cached, bytes):
        return {"cash": Decimal(cached.decode())}
    found = dynamodb.get_item(TableName=_TABLE, Key=_item({"pk": owner, "sk": "ACCOUNT"}))
    return _values(found["Item"])


def _query(owner: str, first: str, last: str) -> list[dict[str, Any]]:
    found = dynamodb.query(
        TableName=_TABLE,
        KeyConditionExpression="pk = :owner AND sk BETWEEN :first AND :last",
        ExpressionAttributeValues={
            ":owner": _write(owner),
            ":first": _write(first),
            ":last": _write(first.partition("#")[0] + "#" + last),
        },
    )
    return [_values(item) for item in found["Items"]]


def _errors(
    account: dict[str, Any],
    issuers: dict[str, Any],
    recent: list[dict[str, Any]],
    order: dict[str, Any],
) -> list[str]:
    errors = []
    shares, price = int(order["total_shares"]), Decimal(str(order["share_price"]))
    is_buy = order["operation"] == "BUY"
    if is_buy and account["cash"] < shares * price:
        errors.append("INSUFFICIENT_BALANCE")
    held = issuers.get(order["issuer_name"], {"total_shares": 0})["total_shares"]
    if not is_buy and held < shares:
        errors.append("INSUFFICIENT_STOCKS")
    asked = [order[name] for name in ("operation", "issuer_name", "total_shares")]
    if any([one["operation"], one["issuer_name"], one["total_shares"]] == asked for one in recent):
        errors.append("DUPLICATED_OPERATION")
    if int(order["timestamp"]) > time.time() + 5:
        errors.append("INVALID_OPERATION")
    return errors


def _balance(account: dict[str, Any], issuers: dict[str, Any]) -> dict[str, Any]:
    return {
        "cash": str(account["cash"]),
        "issuers": [
            {
                "issuer_name": name,
                "total_shares": int(held["total_shares"]),
                "share_price": str(held["share_price"]),
            }
            for name, held in issuers.items()
        ],
    }


def _item(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _write(value) for name, value in values.items()}


def _values(item: dict[str, Any]) -> dict[str, Any]:
    return {name: _read(value) for name, value in item.items()}


def _answer(shown: dict[str, Any], status: int) -> Response:
    return Response(json.dumps(shown), status, mimetype="application/json")
