"""TCP ports of this machine: which are free, and which to take."""

import random
import socket

# Below the ports that the kernel hands to outgoing connections (32768 and up on Linux), so that no
# client socket takes a port between the moment it was picked and the moment its server binds it,
# nor while a killed server is away.
_FIRST_PORT = 20_000
_LAST_PORT = 32_000
_TRIES_MAX = 1_000

# Seeded by the system, so that parallel runs look at different ports first.
_RANDOM = random.SystemRandom()


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections that a former server left in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on, different at almost every call."""
    for _ in range(_TRIES_MAX):
        port = _RANDOM.randint(_FIRST_PORT, _LAST_PORT)
        if is_free(host, port):
            return port
    raise OSError(f"no free port between {_FIRST_PORT} and {_LAST_PORT}")
