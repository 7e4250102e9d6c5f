"""Requests and answers over httpx: bounded in time and size, repeated where that may help."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

import httpx

from order_client.errors import OrdersError, Problem, ProtocolError, Unreachable
from order_client.exact import Json, read_object
from order_client.models import read_problem
from order_client.retry import CONFLICT, RETRIED_STATUSES, Retry, Time, retry_after
from order_client.version import __version__

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of one answer; a page of 200 orders with full balances has less than 4 MiB."""

CONNECTIONS_MAX: Final = 20
_IDLE_SECONDS: Final = 30.0
_CONNECT_SECONDS_MAX: Final = 5.0
_SECONDS_MIN: Final = 0.001


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. ``wait_seconds``: the service may take this long on purpose."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Json:
        """Its JSON object."""
        return read_object(self.body)


class Transport:
    """One service, a pool of connections to it, and the patience to ask it again."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        timeout: float,
        retry: Retry,
        time: Time,
    ) -> None:
        """``timeout``: seconds to wait for each part of an answer.

        Raises:
            ValueError: ``base_url`` is no http or https URL, or the key no printable ASCII.
        """
        self.base_url = _checked_url(base_url)
        self.retry = retry
        self.time = time
        self._timeout = timeout
        self._http = httpx.Client(
            headers=_headers(key),
            limits=httpx.Limits(
                max_connections=CONNECTIONS_MAX,
                max_keepalive_connections=CONNECTIONS_MAX,
                keepalive_expiry=_IDLE_SECONDS,
            ),
            # A key must never follow a redirect to another host.
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: Request) -> Answer:
        """The answer, if it is a good one, after as many tries as the policy allows.

        Raises:
            Problem: the service refused, or cannot be reached.
            ProtocolError: the answer makes no sense.
        """
        attempts = Attempts(self.retry, self.time, request.wait_seconds)
        while True:
            try:
                return self._asked_once(request, attempts.remaining_seconds())
            except Problem as problem:
                if not may_help(request.method, problem.status):
                    raise
                attempts.pause_or_raise(problem, problem.retry_after_seconds)

    def _asked_once(self, request: Request, remaining_seconds: float) -> Answer:
        with self.open(request, remaining_seconds) as response:
            answer = Answer(
                response.status_code,
                response.headers,
                self.whole_body(response, remaining_seconds),
            )
        return self.checked(answer)

    @contextmanager
    def open(self, request: Request, remaining_seconds: float) -> Iterator[httpx.Response]:
        """An answer to be read as it comes, of any status.

        Raises:
            Unreachable: no answer, or it broke off while it was read.
        """
        seconds = max(_SECONDS_MIN, min(self._timeout + request.wait_seconds, remaining_seconds))
        timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS_MAX))
        try:
            with self._http.stream(
                request.method,
                self.base_url + request.path,
                params=dict(request.params),
                headers=dict(request.headers),
                content=request.content,
                timeout=timeout,
            ) as response:
                yield response
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.base_url} did not answer in {seconds:.1f} s.") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Unreachable(f"{self.base_url} did not answer: {_said(error)}") from error

    def checked(self, answer: Answer) -> Answer:
        """The answer itself if it is a good one.

        Raises:
            Problem: it is none.
        """
        if 200 <= answer.status < 300:
            return answer
        if answer.status < 400:
            raise ProtocolError(
                f"The service answered {answer.status}, which means nothing here; "
                f"is {self.base_url} the right address?"
            )
        try:
            document = answer.json()
        except ProtocolError:
            # A proxy's page says nothing more than its status does.
            document = {}
        pause = retry_after(answer.headers, self.time.now())
        raise read_problem(document, answer.status, pause)

    def whole_body(self, response: httpx.Response, remaining_seconds: float) -> bytes:
        """The body within bounds: each part has its timeout, this one is for all of them."""
        until = self.time.monotonic() + remaining_seconds
        body = bytearray()
        for part in response.iter_bytes():
            body += part
            if len(body) > BODY_BYTES_MAX:
                raise ProtocolError(f"The answer has more than {BODY_BYTES_MAX} bytes.")
            if self.time.monotonic() > until:
                raise Unreachable(f"{self.base_url} took too long over its answer.")
        return bytes(body)


class Attempts:
    """The tries of one call: counted, with pauses between them and a deadline over all."""

    def __init__(self, retry: Retry, time: Time, wait_seconds: float = 0.0) -> None:
        self._retry = retry
        self._time = time
        self._until = time.monotonic() + retry.deadline_seconds + wait_seconds
        self._failures = 0

    def remaining_seconds(self) -> float:
        """Time until the deadline, never below 0."""
        return max(0.0, self._until - self._time.monotonic())

    def pause_or_raise(self, error: OrdersError, at_least_seconds: float | None = None) -> None:
        """Wait for the next try, no less than ``at_least_seconds``.

        Raises:
            OrdersError: the given one, if there are no more tries or no time for one.
        """
        self._failures += 1
        if self._failures >= self._retry.attempts_max:
            raise error
        pause = self._retry.pause(self._failures, self._time.chance(), at_least_seconds)
        if pause >= self.remaining_seconds():
            raise error
        self._time.sleep(pause)


def may_help(method: str, status: int) -> bool:
    """Whether another try may be answered otherwise; status 0 is no answer."""
    return status == 0 or status in RETRIED_STATUSES or (method == "POST" and status == CONFLICT)


def _headers(key: str | None) -> dict[str, str]:
    headers = {
        "Accept": "application/json",
        # Bodies are small; an unpacked one could be anything but.
        "Accept-Encoding": "identity",
        "User-Agent": f"order-client/{__version__}",
    }
    if key is not None:
        if not (key.isascii() and key.isprintable() and key.strip()):
            raise ValueError("the key must be printable ASCII")
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _checked_url(base_url: str) -> str:
    parts = urlsplit(base_url)
    is_web = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    if not is_web or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{base_url!r} is no http or https address of a service")
    return base_url.rstrip("/")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
