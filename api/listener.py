"""Closing a listening socket without cutting off a client that it has let in.

The kernel completes connections by itself and keeps them until they are accepted. Closing the
socket resets those that wait, and their clients cannot tell whether their request was served. So
newcomers are turned away first: with a filter that drops the opening segment (SYN) and nothing
else, on Linux without any privilege. Whoever is dropped tries again after a second, as TCP does by
itself, and is then refused by the closed port: nothing was sent, so any request may be repeated.
"""

import ctypes
import socket
import sys
from typing import Final

_ATTACH_FILTER: Final = 26  # SO_ATTACH_FILTER on Linux; Python's socket module does not name it

_FLAGS_OFFSET: Final = 13
_FLAG_SYN: Final = 0x02
_LOAD_BYTE: Final = 0x30
_JUMP_IF_SET: Final = 0x45
_RETURN: Final = 0x06
_WHOLE_SEGMENT: Final = 0xFFFFFFFF


class _Instruction(ctypes.Structure):
    """One instruction of a classic BPF program (``struct sock_filter``)."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """A program and its length (``struct sock_fprog``)."""

    _fields_ = (
        ("length", ctypes.c_uint16),
        ("instructions", ctypes.POINTER(_Instruction)),
    )


_DROP_SYN: Final = (
    (_LOAD_BYTE, 0, 0, _FLAGS_OFFSET),
    (_JUMP_IF_SET, 0, 1, _FLAG_SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _WHOLE_SEGMENT),
)


def turn_away_newcomers(listener: socket.socket) -> bool:
    """Let no new connection begin at ``listener``; those that wait or are half open go on.

    It holds for every process that shares the socket, and is not undone. Returns whether the
    system can do it.
    """
    if sys.platform != "linux":
        return False
    instructions = (_Instruction * len(_DROP_SYN))(*(_Instruction(*one) for one in _DROP_SYN))
    program = _Program(len(_DROP_SYN), instructions)
    try:
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, bytes(program))
    except OSError:
        return False
    return True
