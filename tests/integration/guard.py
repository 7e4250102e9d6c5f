"""Doors in front of the engines that are as narrow as AWS's: IAM's policies and TLS.

``Guard`` lets a call to DynamoDB pass if the template's policies for its caller allow it. Who
calls is read from the access key; the engine checks no signature. ``Tls`` ends TLS in front of
Redis, whose build here knows none.
"""

import asyncio
import http.client
import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.chaos.proxy import HOST, Loop

TABLE, INDEX = "table", "index"

Permission = tuple[str, str]
"""``dynamodb:Query``, and what it is on: ``TABLE`` or ``INDEX``."""

_ACTIONS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
_CALLER = re.compile(r"Credential=([^/]+)/")
_ENGINE_SECONDS = 20.0
_DENIED = "com.amazon.coral.service#AccessDeniedException"


class Guard:
    """A proxy before DynamoDB that knows who may do what; ``allowed`` is by access key id."""

    def __init__(self, engine_port: int, allowed: Mapping[str, frozenset[Permission]]) -> None:
        self.engine_port = engine_port
        self.used: dict[str, set[Permission]] = {caller: set() for caller in allowed}
        self.denied: list[tuple[str, Permission]] = []
        self._allowed = allowed
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"guard": self})
        self._server = ThreadingHTTPServer((HOST, 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="guard", daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_ENGINE_SECONDS)

    def refusal(self, caller: str, operation: str, body: dict[str, Any]) -> str | None:
        """Why the call may not pass, or None if it may."""
        needed = set(permissions(operation, body))
        if caller not in self._allowed:
            return None  # whoever deploys: the templates give nobody that role
        with self._lock:
            missing = needed - self._allowed[caller]
            if missing:
                self.denied += [(caller, one) for one in sorted(missing)]
                return f"{caller} is not authorized to perform: {sorted(missing)}"
            self.used[caller] |= needed
        return None


def permissions(operation: str, body: dict[str, Any]) -> Iterator[Permission]:
    """What IAM asks for, for a call."""
    if operation == "TransactWriteItems":
        for action in body["TransactItems"]:
            (kind,) = action
            yield f"dynamodb:{_ACTIONS[kind]}", TABLE
        return
    yield f"dynamodb:{operation}", INDEX if body.get("IndexName") else TABLE


class _Handler(BaseHTTPRequestHandler):
    """Asks the guard, then the engine."""

    guard: ClassVar[Guard]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        caller = _CALLER.search(self.headers.get("Authorization", ""))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        why = self.guard.refusal(caller[1] if caller else "", operation, json.loads(raw))
        if why is None:
            self._answer(*self._ask_engine(raw))
        else:
            self._answer(400, json.dumps({"__type": _DENIED, "message": why}).encode())

    def _ask_engine(self, raw: bytes) -> tuple[int, bytes]:
        port = self.guard.engine_port
        connection = http.client.HTTPConnection(HOST, port, timeout=_ENGINE_SECONDS)
        headers = {name: value for name, value in self.headers.items() if name != "Connection"}
        try:
            connection.request("POST", "/", raw, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: what was refused is kept by the guard."""


class Tls:
    """A port that speaks TLS and passes what it reads on to ``target_port``."""

    def __init__(self, target_port: int, folder: Path) -> None:
        self.authority = folder / "authority.pem"
        self.connections = 0
        self._target_port = target_port
        self._loop = Loop()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(_certificate(self.authority, folder))
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server
        return int(self._server.sockets[0].getsockname()[1])

    def __enter__(self) -> Self:
        self._server = self._loop.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._close())
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, HOST, 0, ssl=self._context)

    async def _close(self) -> None:
        assert self._server
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        from_engine, to_engine = await asyncio.open_connection(HOST, self._target_port)
        try:
            await asyncio.gather(_pass(reader, to_engine), _pass(from_engine, writer))
        finally:
            writer.close()
            to_engine.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        return
    finally:
        writer.close()


def _certificate(authority: Path, folder: Path) -> Path:
    """A certificate of this machine, its own authority, with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address(HOST))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    authority.write_bytes(written)
    both = folder / "server.pem"
    both.write_bytes(secret + written)
    return both
