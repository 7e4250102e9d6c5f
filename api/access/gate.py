"""The gate: one look at each request before its route, one at each answer after it.

What is not configured is left out when the gate is built, so that it costs no request anything.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from typing import Any, Final, cast
from urllib.parse import quote

from flask import Flask, Request, Response, current_app, request

from api.access.addresses import client_address
from api.access.audit import write_audit_line
from api.access.keyring import KeyRing, TooManyLookups
from api.access.limits import (
    Charge,
    Limiter,
    Standing,
    build_limiter,
    limits_of_a_key,
    limits_of_an_address,
)
from api.access.needs import (
    ACCOUNT_ARGUMENT,
    NEEDS,
    OTHER_VERSIONS,
    Need,
    is_unversioned,
    with_aliases,
)
from api.access.networks import NetworkLists
from api.access.presented import Presented, read_presented
from api.access.versions import (
    alias_fields,
    refuse_unknown_accept,
    refuse_unknown_path,
    successor,
)
from api.problems import RETRY_AFTER_SECONDS, Problem, account_not_found, unavailable
from api.services import Services
from shared import metrics
from shared.access import KEY_PREFIX, AccessKey, Scope, digest_of
from shared.logs import get_logger
from shared.networks import client_of, read_address
from shared.order_store import access
from shared.order_store.errors import StoreUnavailable

EXTENSION: Final = "access"
"""Where an application keeps its gate."""

_VISIT: Final = "orders.visit"
_ID: Final = "orders.request_id"
_ANY_VERSION: Final = frozenset({"", "*/*", "application/json"})
"""What almost everybody accepts, which names none."""
_LOOPBACK: Final = ("127.0.0.1", "::1")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
_PATH_SAFE: Final = "/:@!$&'*+,;=~"

Environ = Mapping[str, Any]

log = get_logger(__name__)


@dataclass(slots=True)
class Visit:
    """What is known of a request's caller. ``orders`` collects what the request made or changed."""

    address: str
    key: AccessKey | None = None
    shown_id: str | None = None
    standing: Standing | None = None
    orders: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a gate is made of; None is what is not configured."""

    keys: KeyRing | None
    networks: NetworkLists | None
    limiter: Limiter | None


def build_parts(services: Services) -> Parts:
    """The parts that the settings ask for."""
    settings, gateway = services.settings, services.gateway
    asks = settings.access_keys == "required"
    return Parts(
        keys=KeyRing(lambda key_id: access.load_key(gateway, key_id)) if asks else None,
        # An API that only its own machine can reach has no networks to tell apart.
        networks=(
            NetworkLists(lambda: access.networks(gateway))
            if asks or not settings.is_private
            else None
        ),
        limiter=build_limiter(settings),
    )


class Gate:
    """Decides who comes in, for one application."""

    def __init__(self, services: Services, parts: Parts, needs: Mapping[str, Need] = NEEDS) -> None:
        """Judge by the settings of ``services`` and what routes need."""
        settings = services.settings
        self._clock = services.clock
        # What is in neither form was declared by nobody, and lets nobody in.
        self._needs = with_aliases(needs)
        self._keys = parts.keys
        self._networks = parts.networks
        self._limiter = parts.limiter
        self._key_limits = limits_of_a_key(settings)
        self._address_limits = limits_of_an_address(settings)
        self._proxies = settings.trusted_proxies
        asks = parts.keys is not None
        self._is_private = not asks and not settings.is_open_to_everyone
        self._audits = asks if settings.audit_log is None else settings.audit_log
        watches = asks or parts.networks or parts.limiter or self._audits
        self.before: Callable[[], None] = self._before if watches else self._before_open
        self._visits = bool(watches)
        self._ids_begin = secrets.token_hex(8)
        self._ids = count(1)
        self._alias_fields = alias_fields(settings.unversioned_sunset)

    # Before the route

    def _before_open(self) -> None:
        """Nothing is asked of anybody on this machine."""
        asked = _asked()
        if self._is_private:
            _require_loopback(asked.environ)
        self._find(asked)

    def _before(self) -> None:
        asked = _asked()
        environ = asked.environ
        if self._is_private:
            _require_loopback(environ)
        visit = environ[_VISIT] = Visit(self._address(environ))
        endpoint = asked.endpoint
        # Where there is no route, strangers are not told so.
        need = self._needs.get(endpoint) if endpoint is not None else Need.KEY
        if need is Need.PROBE:
            return
        if self._networks is not None:
            self._check_network(self._networks, visit)
        presented = read_presented(environ) if self._keys is not None else None
        self._identify(visit, presented)
        if self._keys is not None:
            _require(need, asked, visit, presented)
        self._find(asked)

    def _find(self, asked: Request) -> None:
        """See that there is such a route, of this version, and that somebody said what it needs."""
        endpoint = asked.endpoint
        if endpoint is None:
            refuse_unknown_path(asked.path)
        elif endpoint not in self._needs:
            raise _undeclared()
        accept = asked.environ.get("HTTP_ACCEPT", "")
        if accept not in _ANY_VERSION and endpoint not in OTHER_VERSIONS:
            refuse_unknown_accept(accept)

    def _address(self, environ: Environ) -> str:
        peer = str(environ.get("REMOTE_ADDR") or "")
        return client_address(peer, environ.get("HTTP_X_FORWARDED_FOR"), self._proxies)

    def _check_network(self, networks: NetworkLists, visit: Visit) -> None:
        try:
            is_in = networks.let_in(visit.address)
        except StoreUnavailable:
            raise unavailable("It cannot be told now whether you may call.") from None
        if not is_in:
            raise Problem(403, "NETWORK_DENIED", "Your network may not call.")

    def _identify(self, visit: Visit, presented: Presented | None) -> None:
        """Find the caller's key and count the request, in one call of Redis where that can be."""
        charges: list[Charge] = []
        if self._address_limits:
            client = client_of(visit.address)
            charges = [Charge(limit, client) for limit in self._address_limits]
        if self._keys is not None and presented is not None and presented.key_id is not None:
            visit.shown_id = presented.key_id
            if charges and not self._keys.knows(presented.key_id):
                # Before the store is asked for an id that anybody may have invented.
                self._charge(visit, charges)
                charges = []
            visit.key = self._key(self._keys, presented.key_id, presented.written)
        if visit.key is not None:
            charges += [Charge(limit, visit.key.id) for limit in self._key_limits]
        if charges:
            self._charge(visit, charges)

    def _charge(self, visit: Visit, charges: list[Charge]) -> None:
        if self._limiter is None:
            return
        standing = self._limiter.charge(charges)
        if standing is None:
            return
        visit.standing = standing
        if standing.refused is not None:
            metrics.LIMITED.add(standing.refused.name)
            raise _limited(standing)

    def _key(self, keys: KeyRing, key_id: str, written: str) -> AccessKey | None:
        try:
            key = keys.find(key_id)
        except TooManyLookups:
            raise Problem(
                503,
                "OVERLOADED",
                "Too many unknown keys are being tried; try again shortly.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from None
        except StoreUnavailable:
            raise unavailable("It cannot be told now whether your key is good.") from None
        if key is None or not key.admits(digest_of(written), self._clock()):
            return None
        return key

    # After the route

    def after(self, response: Response) -> Response:
        """Name the request, say how it stands to its limits, and write down what it changed."""
        asked = _asked()
        environ = asked.environ
        request_id = self.request_id(environ)
        headers = response.headers
        headers.add("X-Request-Id", request_id)
        endpoint = asked.endpoint
        if endpoint is not None and is_unversioned(endpoint):
            for name, value in self._alias_fields:
                headers.add(name, value)
            headers.add("Link", successor(quote(asked.path, safe=_PATH_SAFE)))
        if not self._visits:
            return response
        visit: Visit | None = environ.get(_VISIT)
        if visit is None:
            return response
        if self._keys is not None:
            _say_who_was_asked(response)
        if (standing := visit.standing) is not None:
            headers["RateLimit-Policy"] = standing.policy
            headers["RateLimit"] = standing.left
        if self._audits and asked.method not in _SAFE_METHODS:
            write_audit_line(asked, response, visit, request_id)
        return response

    def _new_request_id(self, environ: Environ) -> str:
        given = environ.get("HTTP_X_REQUEST_ID")
        if given is not None and _REQUEST_ID.fullmatch(given) and KEY_PREFIX not in given.lower():
            return str(given)
        return f"{self._ids_begin}-{next(self._ids):x}"

    # For the routes

    def request_id(self, environ: Environ) -> str:
        """The id of a request: its client's, if that is one, else one of ours."""
        known: str | None = environ.get(_ID)
        if known is None:
            # The server's dictionary is one; only its type here says that nobody writes.
            known = cast("dict[str, Any]", environ)[_ID] = self._new_request_id(environ)
        return known

    def origin(self, environ: Environ) -> str:
        """The request's id and, after a blank, its key's id if it has one."""
        visit: Visit | None = environ.get(_VISIT)
        key = visit.key if visit is not None else None
        request_id = self.request_id(environ)
        return f"{request_id} {key.id}" if key is not None else request_id

    def reach(self, environ: Environ) -> Callable[[int], bool]:
        """Which accounts the caller's key is good for."""
        if self._keys is None:
            return _everything
        visit: Visit | None = environ.get(_VISIT)
        return visit.key.reaches if visit is not None and visit.key is not None else _nothing

    def while_admitted(self, environ: Environ, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """``chunks`` as long as the caller's key is good: each is a look at the key."""
        keys, visit = self._keys, environ.get(_VISIT)
        if keys is None or visit is None or visit.key is None:
            return chunks
        return self._while_good(keys, visit.key.id, read_presented(environ).written, chunks)

    def _while_good(
        self, keys: KeyRing, key_id: str, written: str, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        for chunk in chunks:
            try:
                key = self._key(keys, key_id, written)
            except Problem:
                key = None
            if key is None:
                log.info("stream_ended", key=key_id)
                return
            yield chunk

    def is_operator(self, environ: Environ) -> bool:
        """Tell whether the caller may see what is for operators alone."""
        if self._keys is None:
            return True
        presented = read_presented(environ)
        if presented.key_id is None:
            return False
        try:
            key = self._key(self._keys, presented.key_id, presented.written)
        except Problem:
            return False
        return key is not None and key.scope is Scope.OPERATOR

    def spend(self, environ: Environ, requests: int) -> None:
        """Count ``requests`` more against the caller's key, beyond the one that it sent.

        Raises:
            Problem: 429, they are too many.
        """
        visit: Visit | None = environ.get(_VISIT)
        if self._limiter is None or visit is None or visit.key is None:
            return
        charges = [
            Charge(limit, visit.key.id, cost)
            for limit in self._key_limits
            if (cost := limit.further(requests)) > 0
        ]
        if charges:
            self._charge(visit, charges)


def protect(app: Flask, gate: Gate) -> None:
    """Let ``gate`` look at every request of ``app``, before anything else does."""
    app.extensions[EXTENSION] = gate
    app.before_request(gate.before)
    app.after_request(gate.after)


def current_gate() -> Gate:
    """The gate of the application that serves the current request."""
    return cast("Gate", current_app.extensions[EXTENSION])


def note_orders(environ: Environ) -> list[str]:
    """Where to write down the orders that a request makes or changes, for the audit log."""
    visit: Visit | None = environ.get(_VISIT)
    return visit.orders if visit is not None else []


def _asked() -> Request:
    """The current request itself: each look through Flask's proxy costs a little."""
    return cast("Request", request._get_current_object())  # type: ignore[attr-defined]


def _require(need: Need | None, asked: Request, visit: Visit, presented: Presented | None) -> None:
    if need is Need.NOTHING:
        return
    key = visit.key
    if key is None:
        raise _unauthorized(presented)
    if need is None:
        return
    if need is Need.ACCOUNT:
        account_id = (asked.view_args or {}).get(ACCOUNT_ARGUMENT)
        if not isinstance(account_id, int):
            raise _undeclared()
        if not key.reaches(account_id):
            # As if there were none, whether there is one or not.
            raise account_not_found(account_id)
    elif need is Need.ALL_ACCOUNTS and not key.reaches_all:
        raise _forbidden("This takes a key for all accounts.")
    elif need is Need.OPERATOR and key.scope is not Scope.OPERATOR:
        raise _forbidden("This takes an operator's key.")


def _require_loopback(environ: Environ) -> None:
    """An API without keys was put on loopback; whoever bound it elsewhere is not followed."""
    peer = environ.get("REMOTE_ADDR")
    if peer in _LOOPBACK:
        return
    address = read_address(str(peer or ""))
    if address is None or not address.is_loopback:
        raise _forbidden("This API asks for no keys and serves its own machine alone.")


def _unauthorized(presented: Presented | None) -> Problem:
    if presented is None or not presented.is_any:
        return Problem(401, "KEY_REQUIRED", "Send a key: Authorization: Bearer op_live_...")
    return Problem(401, "KEY_REFUSED", "The key is not good: unknown, expired or revoked.")


def _undeclared() -> Problem:
    return _forbidden("Nobody may use this path yet.")


def _forbidden(detail: str) -> Problem:
    return Problem(403, "FORBIDDEN", detail)


def _limited(standing: Standing) -> Problem:
    limit = standing.refused
    name = limit.policy if limit else ""
    return Problem(
        429,
        "TOO_MANY_REQUESTS",
        f"The limit {name} is reached.",
        retry_after_seconds=max(standing.wait_seconds, RETRY_AFTER_SECONDS),
    )


def _say_who_was_asked(response: Response) -> None:
    headers = response.headers
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="orders"'
    # A shared cache knows of Authorization, not of X-API-Key: nothing here is for other callers.
    if "Cache-Control" not in headers:
        headers.add("Cache-Control", "private, no-cache")


def _everything(_account_id: int) -> bool:
    return True


def _nothing(_account_id: int) -> bool:
    return False
