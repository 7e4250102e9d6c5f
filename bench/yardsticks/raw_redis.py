"""What the Redis itself takes from one client.

Usage: ``python -m bench.yardsticks.raw_redis PORT SECONDS``

One line of JSON for SET and GET, one at a time and in pipelines.
"""

import json
import socket
import sys
import time

from local.engines import HOST

_PIPELINE = 100
_VALUE = b"x" * 300
_SET = b"*3\r\n$3\r\nSET\r\n$6\r\nbench1\r\n$%d\r\n%b\r\n" % (len(_VALUE), _VALUE)
_GET = b"*2\r\n$3\r\nGET\r\n$6\r\nbench1\r\n"
_SET_ANSWER = len(b"+OK\r\n")
_GET_ANSWER = len(b"$%d\r\n%b\r\n" % (len(_VALUE), _VALUE))
_TIMEOUT_SECONDS = 10


def main() -> None:
    """Measure all four."""
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    with socket.create_connection((HOST, port), _TIMEOUT_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = {
            "set": _rate(connection, _SET, _SET_ANSWER, 1, seconds),
            "get": _rate(connection, _GET, _GET_ANSWER, 1, seconds),
            "set_pipelined": _rate(connection, _SET, _SET_ANSWER, _PIPELINE, seconds),
            "get_pipelined": _rate(connection, _GET, _GET_ANSWER, _PIPELINE, seconds),
        }
    print(json.dumps(found))


def _rate(
    connection: socket.socket, command: bytes, answer_bytes: int, together: int, seconds: float
) -> float:
    """Commands a second."""
    batch, expected = command * together, answer_bytes * together
    started, done = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        connection.sendall(batch)
        left = expected
        while left:
            received = connection.recv(1 << 16)
            if not received:
                raise ConnectionError("the server closed the connection")
            left -= len(received)
        done += together
    return done / (time.monotonic() - started)


if __name__ == "__main__":
    main()
