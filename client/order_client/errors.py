"""What can go wrong, by whose fault it is and by what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field; ``pointer`` is a JSON pointer into what was sent."""

    pointer: str
    detail: str


class OrdersError(Exception):
    """Everything that this package raises on its own."""


class ProtocolError(OrdersError):
    """The service answered something that is no answer of an order processor."""


class Problem(OrdersError):
    """A request that was not served.

    Attributes:
        status: the HTTP status; 0 if there was no answer at all.
        code: stable, for programs, such as ``ACCOUNT_NOT_FOUND``.
        detail: for people.
        errors: invalid fields, each with its pointer.
        retry_after_seconds: when the service says to try again, if it does.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        fields = "; ".join(f"{error.pointer} {error.detail}" for error in self.errors)
        return f"{self.detail} ({fields})" if fields else self.detail


class Invalid(Problem):
    """The request is at fault (400, 413, 415, 422 ...): it will never be served as it is."""


class Unauthorized(Problem):
    """401: there is no key, or none that the service knows."""


class Forbidden(Problem):
    """403: the key does not reach this account."""


class NotFound(Problem):
    """404: there is no such account, order or path."""


class Conflict(Problem):
    """409: what is asked for cannot be done any more, as cancelling a decided order."""


class RateLimited(Problem):
    """429, after the retries: too many requests."""


class ServerFault(Problem):
    """500 and its kind: a bug on the other side, or damaged data."""


class Unavailable(Problem):
    """408, 502, 503 or 504, after the retries. The same call may be made again later."""


class Unreachable(Unavailable):
    """No answer at all, after the retries.

    Whatever was asked for may have happened: repeat it with the same key to find out.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(0, "UNREACHABLE", detail)


_BY_STATUS: dict[int, type[Problem]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem(
    status: int,
    code: str,
    detail: str,
    errors: Sequence[FieldError] = (),
    retry_after_seconds: float | None = None,
) -> Problem:
    """The problem of the class that fits its status."""
    kind = _BY_STATUS.get(status) or (ServerFault if status >= 500 else Invalid)
    return kind(status, code, detail, errors=errors, retry_after_seconds=retry_after_seconds)
