"""Final answers that this process gave or read lately, so that asking again asks nobody.

A final answer never changes, so what is remembered is never old. Asking Redis costs a GET more
processor time than all of its route: a round trip wakes two processes.
"""

from typing import Final

from shared.ids import OrderRef

ANSWERS_MAX: Final = 4096
"""Answers that a process remembers; one more, and the one that came first is forgotten."""

ANSWER_BYTES_MAX: Final = 4096
"""The longest answer that is remembered: all together stay below 16 MiB."""


class Remembered:
    """Final answers by order. Safe to share between threads."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._answers: dict[OrderRef, bytes] = {}

    def get(self, ref: OrderRef) -> bytes | None:
        """The final answer for ``ref``, if it is remembered."""
        return self._answers.get(ref)

    def add(self, ref: OrderRef, body: bytes) -> None:
        """Remember a final answer."""
        if len(body) > ANSWER_BYTES_MAX:
            return
        self._answers[ref] = body
        if len(self._answers) > ANSWERS_MAX:
            # Another thread may have taken the same one out.
            self._answers.pop(next(iter(self._answers)), None)
