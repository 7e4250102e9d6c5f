"""GET /healthz (the process lives) and GET /readyz (what it needs answers)."""

from typing import Any

from flask import Blueprint, Response

from api import access, draining
from api.routes.answers import answer
from api.services import services
from shared.order_store import reads
from shared.order_store.errors import StoreError
from shared.task_queue import QueueUnavailable

health = Blueprint("health", __name__)

_NO_ACCOUNT = 0


@health.get("/healthz")
def alive() -> Response:
    """Liveness: asks nobody."""
    return answer({"status": "ok"}, 200)


@health.get("/readyz")
def ready() -> Response:
    """Readiness by dependency: without the store 503, without Redis degraded but ready.

    While this instance drains it is 503, whatever the rest says: send new requests elsewhere.
    Which dependency fails is told to operators alone, where keys are asked for.
    """
    if draining.is_draining():
        return answer({"status": "draining"}, 503)
    checks = {"store": _store_answers(), "broker": _broker_answers(), "cache": _cache_answers()}
    status = "ok" if all(checks.values()) else "degraded" if checks["store"] else "unavailable"
    shown: dict[str, Any] = {"status": status}
    if access.is_operator():
        shown["checks"] = {name: "ok" if ok else "unavailable" for name, ok in checks.items()}
    return answer(shown, 200 if checks["store"] else 503)


def _store_answers() -> bool:
    try:
        reads.load_account(services().gateway, _NO_ACCOUNT)
    except StoreError:
        return False
    return True


def _broker_answers() -> bool:
    try:
        services().queue.check()
    except QueueUnavailable:
        return False
    return True


def _cache_answers() -> bool:
    return services().cache.ping()
