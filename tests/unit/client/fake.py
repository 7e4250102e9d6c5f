"""A service of a few lines behind a real HTTP server, that fails on command.

It keeps the contract where the client relies on it: keys, bulk lines, waiting, events. It decides
an order when it is asked to wait for it; every BUY is executed, every SELL rejected.
"""

import json
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.integration.client import Json

FINAL_BY_OPERATION = {"BUY": "executed", "SELL": "rejected"}
RECEIVED_AT = "2026-03-02T15:04:05.123456Z"
DECIDED_AT = "2026-03-02T15:04:05.223456Z"

Serve = Callable[[], Response]
Fault = Callable[[Request, Serve], Response]


def answer(status: int, body: Json | None = None, **headers: str) -> Fault:
    """Answer this, and do nothing."""

    def fault(request: Request, serve: Serve) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(json.dumps(body or {}), status, named, mimetype="application/json")

    return fault


def problem(status: int, code: str = "CODE", **more: Any) -> Json:
    return {"status": status, "code": code, "detail": "so it is", **more}


def drop_before(request: Request, serve: Serve) -> Response:
    """Close the connection, with nothing done."""
    raise _dropped(request)


def drop_after(request: Request, serve: Serve) -> Response:
    """Do it, and close the connection instead of the answer."""
    serve().get_data()
    raise _dropped(request)


def raw(body: bytes, status: int = 200, mimetype: str = "application/json") -> Fault:
    """Answer these bytes, and do nothing."""

    def fault(request: Request, serve: Serve) -> Response:
        return Response(body, status, mimetype=mimetype)

    return fault


def no_fault(request: Request, serve: Serve) -> Response:
    """Do and answer as asked."""
    return serve()


def torn(lines: int) -> Fault:
    """Do it, answer so many lines and a half, and close the connection."""

    def fault(request: Request, serve: Serve) -> Response:
        whole = serve().get_data().splitlines(keepends=True)

        cut = min(lines, len(whole) - 1)

        def parts() -> Iterator[bytes]:
            yield b"".join(whole[:cut]) + whole[cut][: len(whole[cut]) // 2]
            raise _dropped(request)

        return Response(parts(), mimetype="application/x-ndjson")

    return fault


def slow(seconds: float, given_up: threading.Event) -> Fault:
    """Do it, and answer after a while."""

    def fault(request: Request, serve: Serve) -> Response:
        response = serve()
        given_up.wait(seconds)
        return response

    return fault


def spoil_line(number: int, shown: Json | bytes) -> Fault:
    """Answer in place of one line's result; what the line asked for is left undone."""

    def fault(request: Request, serve: Serve) -> Response:
        lines = request.get_data().splitlines(keepends=True)
        if len(lines) < number:
            return serve()
        lines[number - 1] = b""
        request.environ["fake.lines"] = lines
        answers = serve().get_data().splitlines(keepends=True)
        text = shown if isinstance(shown, bytes) else json.dumps(shown).encode()
        answers.insert(number - 1, text + b"\n")
        return Response(b"".join(answers), mimetype="application/x-ndjson")

    return fault


def _dropped(request: Request) -> ConnectionResetError:
    """Close the connection, and make the server forget it."""
    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return ConnectionResetError("on command")


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    params: dict[str, str]
    body: bytes


@dataclass
class FakeService:
    """The service. ``faults`` are taken one by one, each for the next request."""

    faults: deque[Fault] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    keeps_orders: bool = True
    """False accepts every line of a bulk request and forgets it: for many of them."""
    accounts: dict[int, Json] = field(default_factory=dict)
    orders: dict[str, Json] = field(default_factory=dict)
    posted: dict[tuple[object, str], tuple[Json, Json]] = field(default_factory=dict)
    recorded: Counter[str] = field(default_factory=Counter)
    """How many orders each key made."""
    streams: deque[list[bytes]] = field(default_factory=deque)
    """What each connection for events is sent; with none left, 204."""
    waits: bool = True
    bulk_bytes_max: int = 1_000_000

    def __post_init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self._server = make_server("127.0.0.1", 0, self._app, threaded=True, request_handler=_Quiet)
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def keys(self) -> list[str]:
        return [seen.headers["Idempotency-Key"] for seen in self.seen if seen.method == "POST"]

    def _app(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        data = request.get_data()
        if self.keeps_orders:
            self.seen.append(
                Seen(
                    request.method,
                    request.path,
                    dict(request.headers),
                    request.args.to_dict(),
                    data,
                )
            )
        fault = self.faults.popleft() if self.faults else None
        response = fault(request, lambda: self._serve(request)) if fault else self._serve(request)
        return response(environ, start_response)

    def _serve(self, request: Request) -> Response:
        with self._lock:
            match request.method, request.path.strip("/").split("/"):
                case "POST", ["v1", "accounts"]:
                    return self._open(request)
                case "POST", ["v1", "orders", "bulk"]:
                    return self._bulk(request)
                case "GET", ["v1", "accounts", account_id] if int(account_id) in self.accounts:
                    return _json(self.accounts[int(account_id)])
                case "GET", ["v1", "accounts", _, "events"]:
                    return self._events()
                case "POST", ["v1", "accounts", account_id, "orders"]:
                    return self._place(request, int(account_id))
                case "GET", ["v1", "accounts", account_id, "orders"]:
                    return self._page(request, int(account_id))
                case method, ["v1", "accounts", _, "orders", order_id] if order_id in self.orders:
                    return self._order(request, method, order_id)
        return _json(problem(404, "ORDER_NOT_FOUND"), 404)

    def _open(self, request: Request) -> Response:
        body = json.loads(request.get_data())
        shown, replayed = self._once("accounts", request.headers["Idempotency-Key"], body, _account)
        if not replayed:
            shown["id"] = len(self.accounts) + 1
            self.accounts[shown["id"]] = shown
        return _json(shown, 201)

    def _place(self, request: Request, account_id: int) -> Response:
        body = json.loads(request.get_data())
        outcome = self._record(account_id, body, request.headers["Idempotency-Key"])
        if outcome is None:
            return _json(problem(422, "IDEMPOTENCY_KEY_REUSED"), 422)
        order, replayed = outcome
        if "wait" in request.headers.get("Prefer", "") and self.waits and not replayed:
            return _json(self._decide(order["id"]), 200)
        return _json(order, 202)

    def _bulk(self, request: Request) -> Response:
        data = request.get_data()
        if len(data) > self.bulk_bytes_max:
            return _json(problem(413, "REQUEST_ENTITY_TOO_LARGE"), 413)
        if not self.keeps_orders:
            return Response(map(_ACCEPTED.__mod__, range(1, data.count(b"\n") + 1)))
        lines = request.environ.get("fake.lines") or data.splitlines()
        shown = [self._line(n, line) for n, line in enumerate(lines, 1) if line]
        return Response(
            b"".join(json.dumps(one).encode() + b"\n" for one in shown),
            mimetype="application/x-ndjson",
        )

    def _line(self, number: int, line: bytes) -> Json:
        body = json.loads(line)
        account_id, key = body.pop("account_id"), body.pop("idempotency_key")
        if body["operation"] not in FINAL_BY_OPERATION:
            errors = [{"pointer": "/operation", "detail": "must be BUY or SELL"}]
            refused = problem(422, "INVALID_OPERATION", errors=errors)
            return {"line": number, "status": 422, "problem": refused}
        outcome = self._record(account_id, body, key)
        if outcome is None:
            refused = problem(422, "IDEMPOTENCY_KEY_REUSED")
            return {"line": number, "status": 422, "problem": refused}
        order, replayed = outcome
        shown = {"line": number, "status": 202, "order": order}
        return {**shown, "replayed": True} if replayed else shown

    def _record(self, account_id: int, body: Json, key: str) -> tuple[Json, bool] | None:
        made = self._once(account_id, key, body, lambda sent: self._new_order(account_id, sent))
        shown, replayed = made
        if shown is None:
            return None
        if not replayed:
            self.recorded[key] += 1
            self.orders[shown["id"]] = dict(shown)
        return shown, replayed

    def _once(
        self, scope: object, key: str, body: Json, make: Callable[[Json], Json]
    ) -> tuple[Any, bool]:
        """The first answer to a key, or None if it came with another body."""
        known = self.posted.get((scope, key))
        if known is not None:
            return (known[1] if known[0] == body else None), True
        shown = make(body)
        self.posted[scope, key] = (body, shown)
        return shown, False

    def _new_order(self, account_id: int, body: Json) -> Json:
        return order_json(
            id=f"01a20d16-{len(self.orders):012}",
            account_id=account_id,
            operation=body["operation"],
            issuer_name=body["issuer_name"],
            total_shares=int(body["total_shares"]),
            share_price=body["share_price"],
        )

    def _decide(self, order_id: str) -> Json:
        order = self.orders[order_id]
        if order["status"] == "pending":
            order["status"] = FINAL_BY_OPERATION[order["operation"]]
            order["decided_at"] = DECIDED_AT
            order["current_balance"] = {"cash": "1", "issuers": []}
            if order["status"] == "rejected":
                order["business_errors"] = ["INSUFFICIENT_STOCKS", "CLOSED_MARKET"]
        return order

    def _order(self, request: Request, method: str, order_id: str) -> Response:
        order = self.orders[order_id]
        if method == "DELETE":
            if order["status"] != "pending":
                return _json(problem(409, "ORDER_ALREADY_DECIDED"), 409)
            order.update(status="cancelled", decided_at=DECIDED_AT)
        elif "wait" in request.args and self.waits:
            self._decide(order_id)
        return _json(order)

    def _page(self, request: Request, account_id: int) -> Response:
        wanted = request.args.get("status")
        before = request.args.get("cursor", "~")
        limit = int(request.args["limit"])
        found = [
            order
            for order in sorted(self.orders.values(), key=lambda order: order["id"], reverse=True)
            if order["account_id"] == account_id
            and order["id"] < before
            and wanted in (None, order["status"])
        ]
        last = found[limit - 1]["id"] if len(found) > limit else None
        return _json({"orders": found[:limit], "next_cursor": last})

    def _events(self) -> Response:
        if not self.streams:
            return Response(status=204)
        return Response(iter(self.streams.popleft()), mimetype="text/event-stream")


class _Quiet(WSGIRequestHandler):
    """Keeps connections, streams in chunks, says nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Say nothing of requests that are dropped on purpose."""


def order_json(**changes: Any) -> Json:
    """An order as the service shows it."""
    return {
        "id": "01a20d16-000000000000",
        "account_id": 1,
        "status": "pending",
        "operation": "BUY",
        "issuer_name": "GBM",
        "total_shares": 10,
        "share_price": "50.5",
        "timestamp": 1795515934,
        "received_at": RECEIVED_AT,
        "decided_at": None,
        "business_errors": [],
        "current_balance": None,
        **changes,
    }


_ACCEPTED = b'{"line": %d, "status": 202, "order": ' + json.dumps(order_json()).encode() + b"}\n"


def event(event_id: str | None, **changes: Any) -> bytes:
    """One event of a stream, as the service sends it."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    shown = json.dumps(order_json(status="executed", decided_at=DECIDED_AT, **changes))
    return f"{head}event: order\ndata: {shown}\n\n".encode()


def _account(body: Json) -> Json:
    return {"id": 0, "cash": body["cash"], "issuers": []}


def _json(shown: Json, status: int = 200) -> Response:
    kind = "application/json" if status < 400 else "application/problem+json"
    return Response(json.dumps(shown), status, mimetype=kind)
