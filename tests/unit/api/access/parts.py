"""An API that asks for keys, and the keys of everybody who may turn up."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.access import Gate
from api.access.gate import Parts, build_parts
from api.access.keyring import KeyRing
from api.access.limits import Limiter
from api.access.networks import NetworkLists
from api.app import create_app
from shared.access import AccessKey, Scope, digest_of, new_key
from shared.order_store import access
from tests.unit.api.parts import Api
from tests.unit.factories import NOON

Headers = dict[str, str]

_ids = itertools.count(1)


class FakeMonotonic:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Guarded:
    """An API behind its gate, and the clock that the gate's caches go by."""

    api: Api
    http: FlaskClient
    gate: Gate
    monotonic: FakeMonotonic
    keys: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, key: str | None = None, **headers: str) -> TestResponse:
        return self.http.get(path, headers=bearer(key) | named(headers))

    def post(self, path: str, body: Any, key: str | None = None, **headers: str) -> TestResponse:
        return self.http.post(path, json=body, headers=bearer(key) | named(headers))

    def make_key(self, *accounts: int, scope: Scope | None = None, **changes: Any) -> str:
        return make_key(self.api, *accounts, scope=scope, **changes)


def guard(api: Api, redis: Any = None, needs: Mapping[str, Any] | None = None) -> Guarded:
    """Put the gate that the settings ask for before the API, with a clock of its own."""
    monotonic = FakeMonotonic()
    built = build_parts(api.services)
    parts = Parts(
        keys=built.keys and KeyRing(lambda key_id: access.load_key(api.gateway, key_id), monotonic),
        networks=built.networks and NetworkLists(lambda: access.networks(api.gateway), monotonic),
        limiter=Limiter(redis) if built.limiter and redis else built.limiter,
    )
    gate = Gate(api.services, parts) if needs is None else Gate(api.services, parts, needs)
    http = create_app(services=api.services, gate=gate).test_client()
    return Guarded(api, http, gate, monotonic)


def make_key(
    api: Api,
    *accounts: int,
    scope: Scope | None = None,
    expires_at: datetime | None = None,
    name: str = "a test's",
) -> str:
    """Record a key for ``accounts``, or of ``scope``, and return what its holder gets."""
    key_id = f"{next(_ids):012x}"
    written = new_key(key_id)
    access.create_key(
        api.gateway,
        AccessKey(
            id=key_id,
            name=name,
            scope=scope or Scope.ACCOUNTS,
            accounts=frozenset(accounts),
            created_at=NOON - timedelta(days=1),
            digest=digest_of(written),
            expires_at=expires_at,
        ),
    )
    return written


def id_of(written: str) -> str:
    return written.removeprefix("op_live_").partition(".")[0]


def rotate(api: Api, written: str, at: datetime, grace: timedelta) -> str:
    """Give a key a new secret; the old one stays good for ``grace``."""
    new = new_key(id_of(written))
    access.rotate_key(api.gateway, id_of(written), digest_of(new), at, grace)
    return new


def bearer(key: str | None) -> Headers:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def named(headers: Mapping[str, str]) -> Headers:
    """Keyword arguments as fields: ``x_api_key`` is X-Api-Key."""
    return {name.replace("_", "-"): value for name, value in headers.items()}
