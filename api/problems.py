"""Errors as clients see them: RFC 9457 problem documents with a stable ``code``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import RequestRedirect

from shared import metrics
from shared.logs import get_logger
from shared.order_store.errors import StoreError, StoreUnavailable
from shared.representation import to_json

RETRY_AFTER_SECONDS: Final = 1

FIELD_ERRORS_MAX: Final = 100
"""Invalid fields that one answer lists."""

PROBLEM_TYPE: Final = "application/problem+json"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field; ``pointer`` is an RFC 6901 JSON pointer into the body."""

    pointer: str
    detail: str


class Problem(Exception):
    """A request that cannot be served, and whose fault that is."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        """Answer with ``status`` and ``code`` (stable, for programs), ``detail`` for people."""
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after_seconds = retry_after_seconds


def account_not_found(account_id: int) -> Problem:
    """404 for an account."""
    return Problem(404, "ACCOUNT_NOT_FOUND", f"There is no account {account_id}.")


def order_not_found(order_id: str) -> Problem:
    """404 for an order."""
    return Problem(404, "ORDER_NOT_FOUND", f"The account has no order {order_id}.")


def key_in_flight() -> Problem:
    """409: what another request with this key makes cannot be shown yet."""
    return Problem(
        409,
        "IDEMPOTENCY_KEY_IN_FLIGHT",
        "A request with this Idempotency-Key is on its way; repeat this one when it is answered.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def invalid(errors: Sequence[FieldError]) -> Problem:
    """422 for a body that can be read but breaks the contract."""
    return Problem(422, "INVALID_OPERATION", "The request has invalid fields.", errors=errors)


def unavailable(detail: str) -> Problem:
    """503: nothing was recorded as far as is known; try again."""
    return Problem(503, "STORE_UNAVAILABLE", detail, retry_after_seconds=RETRY_AFTER_SECONDS)


def internal_error(detail: str = "Something went wrong on our side.") -> Problem:
    """500: nothing that the client could mend."""
    return Problem(500, "INTERNAL_ERROR", detail)


def document(problem: Problem) -> dict[str, Any]:
    """The problem document, as RFC 9457 has it."""
    shown: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
    }
    if problem.errors:
        shown["errors"] = [
            {"pointer": error.pointer, "detail": error.detail}
            for error in problem.errors[:FIELD_ERRORS_MAX]
        ]
    return shown


def register(app: Flask) -> None:
    """Turn every error that leaves a route into a problem document."""
    app.register_error_handler(Problem, _answer)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(StoreUnavailable, _answer_unavailable)
    app.register_error_handler(StoreError, _answer_broken)
    app.register_error_handler(Exception, _answer_unexpected)


def _answer(problem: Problem) -> Response:
    metrics.PROBLEMS.add(problem.code)
    response = Response(to_json(document(problem)), problem.status, mimetype=PROBLEM_TYPE)
    if problem.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(math.ceil(problem.retry_after_seconds))
    return response


def _answer_http(error: HTTPException) -> Response:
    if isinstance(error, RequestRedirect):
        # It would repeat what the client sent, as a place to go to.
        error = NotFound()
    status = error.code or 500
    code = error.name.upper().replace(" ", "_")
    response = _answer(Problem(status, code, error.description or error.name))
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def _answer_unavailable(error: StoreUnavailable) -> Response:
    log.warning("store_unavailable", error=str(error))
    return _answer(unavailable("The order store does not answer; try again shortly."))


def _answer_broken(error: StoreError) -> Response:
    log.error("store_error", error=str(error))
    return _answer(internal_error("The stored data could not be used."))


def _answer_unexpected(error: Exception) -> Response:
    log.error("unexpected_error", exc_info=error)
    return _answer(internal_error())
