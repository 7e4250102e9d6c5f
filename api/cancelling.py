"""Cancelling: a pending order becomes cancelled as its account's next decision, or not at all.

Whoever comes first decides, a worker or the client: both commit under the account's version and
the order's status, so the other one is refused and looks again.
"""

import time
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Final

from api.acceptance import ATTEMPT_SECONDS, PAUSE_SECONDS_MAX
from api.problems import Problem, account_not_found, unavailable
from api.status import StatusReader
from shared import metrics
from shared.domain.order import OrderStatus
from shared.order_store import commits, reads
from shared.order_store.commits import CommitConflict
from shared.order_store.errors import StoreUnavailable
from shared.order_store.gateway import Gateway

OVERTAKEN_SECONDS_MAX: Final = 0.02
"""Rest after somebody else decided on the account meanwhile: about what one transaction takes."""


class Canceller:
    """Cancels orders for clients. Safe to share between threads."""

    def __init__(
        self,
        gateway: Gateway,
        status: StatusReader,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Random | None = None,
    ) -> None:
        """Cancel in ``gateway``; ``status`` tells how orders stand, and caches what is final."""
        self._gateway = gateway
        self._status = status
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random or Random()  # noqa: S311 - jitter is no secret

    def cancel(self, account_id: int, order_id: str, deadline: float) -> bytes:
        """Cancel a pending order and return it as JSON, also if it was cancelled before.

        ``deadline`` (monotonic) is for repetitions: what the store refuses for now, or does not
        answer, is looked at again until then.

        Raises:
            Problem: 404, there is no such order; 409, it is decided; 503, not cancelled in time.
            StoreError: the order or its account cannot be read.
        """
        is_tried = False
        while True:
            order = self._status.stored(account_id, order_id, is_news=is_tried)
            if order.status is OrderStatus.CANCELLED:
                return order.body
            if order.status is not OrderStatus.PENDING:
                raise _decided(order.status)
            is_tried = True
            pause = self._random.uniform(0, self._try(account_id, order_id))
            if not pause:
                continue
            if self._monotonic() + pause + ATTEMPT_SECONDS > deadline:
                raise unavailable(
                    "The order may or may not have been cancelled: look at it, or try again."
                )
            self._sleep(pause)

    def _try(self, account_id: int, order_id: str) -> float:
        """Try once; returns how long to wait, at most, before another look, in seconds."""
        account = reads.load_account(self._gateway, account_id)
        if account is None:
            raise account_not_found(account_id)
        try:
            commits.cancel_pending(self._gateway, account, order_id, self._clock())
        except CommitConflict:
            return OVERTAKEN_SECONDS_MAX
        except StoreUnavailable:
            return PAUSE_SECONDS_MAX
        metrics.DECIDED.add("cancelled")
        return 0.0


def _decided(status: OrderStatus | None) -> Problem:
    return Problem(409, "ORDER_DECIDED", f"The order cannot be cancelled: it is {status}.")
