"""Requests that wait for their order: answered once it is decided, or when their time is over."""

import time
from collections.abc import Callable

from api.places import Places, places
from api.problems import Problem
from api.status import Seen, StatusReader
from api.waiting import Ticket, Waiting
from shared.logs import get_logger
from shared.order_store.errors import StoreError

log = get_logger(__name__)


class LongPoll:
    """Waits for orders. Safe to share between threads.

    An order counts as decided once it is not pending, so also when it was parked: nobody knows
    when an operator will do something about it.
    """

    def __init__(
        self,
        status: StatusReader,
        waiting: Waiting,
        seconds_max: int,
        *,
        places: Places = places,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at orders through ``status``; nobody waits longer than ``seconds_max``."""
        self._status = status
        self._waiting = waiting
        self._seconds_max = seconds_max
        self._places = places
        self._monotonic = monotonic

    def allowed(self, seconds: int) -> int:
        """For how long one may wait who asks for ``seconds``."""
        return min(seconds, self._seconds_max)

    def deadline(self, seconds: int) -> float:
        """``seconds`` from now, on the monotonic clock."""
        return self._monotonic() + seconds

    def order(self, account_id: int, order_id: str, deadline: float) -> bytes:
        """The order as JSON, once it is decided or ``deadline`` has passed.

        Raises:
            Problem: 404, there is no such order.
            StoreUnavailable: it is not cached and the store does not answer.
        """
        with self._waiting.for_order((account_id, order_id)) as ticket:
            seen = self._status.look(account_id, order_id)
            if ticket is not None and seen.is_pending:
                seen = self._until_decided(account_id, order_id, ticket, deadline) or seen
        return seen.body

    def decision(
        self, account_id: int, order_id: str, deadline: float, *, is_new: bool
    ) -> bytes | None:
        """The order as JSON if it is decided by ``deadline``; None: it may be pending still.

        ``is_new``: it was recorded just now. Whoever decided it since has cached it before giving
        notice, so that a first look at the store is saved.
        """
        try:
            with self._waiting.for_order((account_id, order_id)) as ticket:
                if ticket is None:
                    return None
                body = self._status.cached(account_id, order_id)
                if body is not None:
                    return body
                seen = None if is_new else self._status.look(account_id, order_id)
                if seen is None or seen.is_pending:
                    seen = self._until_decided(account_id, order_id, ticket, deadline)
        except (Problem, StoreError) as error:
            # It is recorded, and that is what the answer says then.
            log.warning("wait_given_up", order_id=order_id, error=str(error))
            return None
        return None if seen is None or seen.is_pending else seen.body

    def _until_decided(
        self, account_id: int, order_id: str, ticket: Ticket, deadline: float
    ) -> Seen | None:
        """Wait and look whenever there may be news, and once at the end; None: it is the end."""
        while not self._waiting.is_over:
            with self._places.left():
                is_news = self._waiting.wait(ticket, deadline)
            seen = self._status.look(account_id, order_id)
            if not is_news or not seen.is_pending:
                return seen
        return None
