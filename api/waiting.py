"""Who waits in this process: for an order to be decided, or for an account's next decisions.

Nobody polls. The process hears on one connection of Redis what was decided (``shared.notices``) and
wakes whom it concerns. Who waits registers first and looks afterwards, so that nothing falls in
between. A notice may be lost all the same, so everybody looks once more at the end; and while it is
known that none can be heard, every few seconds.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Final, Protocol

from shared.ids import OrderRef
from shared.logs import get_logger
from shared.notices import Notice, NoticesLost

LISTEN_SECONDS_MAX: Final = 0.25
"""How long the first who waits lets the connection come about, before it looks."""

LOOK_AGAIN_SECONDS: Final = 5.0
"""Between two looks while no notices can be heard; more or less, so that not all look at once."""

IDLE_SECONDS: Final = 60.0
"""How long the process listens on when nobody waits."""

BACKOFF_SECONDS_FIRST: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0

_SPREAD: Final = 0.2

log = get_logger(__name__)


class Feed(Protocol):
    """Where notices are heard."""

    def listen(self) -> Iterator[Sequence[Notice] | None]:
        """As ``shared.notices.NoticeFeed``."""


class TooManyStreams(Exception):
    """The process, or the account in it, has as many streams as it may."""

    def __init__(self, *, is_accounts_own: bool) -> None:
        """Keep whose limit it is."""
        super().__init__()
        self.is_accounts_own = is_accounts_own


class Ticket:
    """Of one who waits: what became known. One side writes, the other notes what it has read."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.decided = 0
        """The largest ``decided`` of the notices so far."""
        self._event = threading.Event()
        self._news = self._news_taken = 0
        self._gaps = self._gaps_taken = 0

    def wake(self, decided: int) -> None:
        """Pass a notice on."""
        self.decided = max(self.decided, decided)
        self._news += 1
        self._event.set()

    def wake_to_look(self) -> None:
        """Say that notices may have been missed."""
        self._gaps += 1
        self._news += 1
        self._event.set()

    def wake_to_reckon(self) -> None:
        """Say that it is to be reckoned anew how long to wait."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait to be woken; tells whether it was."""
        if not self._event.wait(seconds):
            return False
        # Before anything is read: a call that comes from here on is not overlooked.
        self._event.clear()
        return True

    def take_news(self) -> bool:
        """Whether there may be news since this was asked before."""
        seen, self._news_taken = self._news_taken, self._news
        return seen != self._news_taken

    def take_gaps(self) -> bool:
        """Whether notices may have been missed since this was asked before."""
        seen, self._gaps_taken = self._gaps_taken, self._gaps
        return seen != self._gaps_taken


class Waiting:
    """All who wait in this process. Safe to share between threads."""

    def __init__(
        self,
        feed: Feed,
        *,
        waits_max: int,
        streams_max: int,
        streams_per_account_max: int,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Random | None = None,
    ) -> None:
        """Hear of decisions from ``feed``, as long as somebody waits for one."""
        self._feed = feed
        self._waits_max = waits_max
        self._streams_max = streams_max
        self._streams_per_account_max = streams_per_account_max
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random or Random()  # noqa: S311 - jitter is no secret
        self._lock = threading.Lock()
        self._orders: dict[OrderRef, set[Ticket]] = {}
        self._accounts: dict[int, set[Ticket]] = {}
        self._waits = self._streams = 0
        self._listener: threading.Thread | None = None
        self._hears = threading.Event()
        self._tried = threading.Event()
        """Whether it can hear is known."""
        self._needed_at = 0.0
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Nobody waits any more: the process is about to stop."""
        return self._is_over

    @contextmanager
    def for_order(self, ref: OrderRef) -> Iterator[Ticket | None]:
        """Be woken, within this block, when the order is decided; None: there is no room to wait.

        Look at the order after entering it, not before.
        """
        self._begin_to_hear()
        ticket = self._enter_order(ref)
        try:
            yield ticket
        finally:
            if ticket is not None:
                self._leave_order(ref, ticket)

    def enter_stream(self, account_id: int) -> Ticket:
        """Be woken by the account's decisions, until ``leave_stream``.

        Raises:
            TooManyStreams: there is no room for another one.
        """
        self._begin_to_hear()
        with self._lock:
            if self._streams >= self._streams_max:
                raise TooManyStreams(is_accounts_own=False)
            if len(self._accounts.get(account_id, ())) >= self._streams_per_account_max:
                raise TooManyStreams(is_accounts_own=True)
            ticket = Ticket()
            self._accounts.setdefault(account_id, set()).add(ticket)
            self._streams += 1
            self._require_listener()
        return ticket

    def leave_stream(self, account_id: int, ticket: Ticket) -> None:
        """Be woken no more; again changes nothing."""
        with self._lock:
            tickets = self._accounts.get(account_id, set())
            if ticket not in tickets:
                return
            self._streams -= 1
            tickets.discard(ticket)
            if not tickets:
                del self._accounts[account_id]

    def wait(self, ticket: Ticket, deadline: float) -> bool:
        """Wait until there may be news (True), or until ``deadline`` (monotonic) or the end."""
        while not self._is_over:
            left = deadline - self._monotonic()
            if left <= 0:
                return False
            seconds = left if self._hears.is_set() else min(left, self._until_next_look())
            if ticket.wait(seconds):
                if ticket.take_news():
                    return True
            elif seconds < left:
                return True
        return False

    @property
    def open_waits(self) -> int:
        """Requests that wait now."""
        return self._waits

    @property
    def open_streams(self) -> int:
        """Event streams that are open now."""
        return self._streams

    def end(self) -> None:
        """Let everybody's wait end now."""
        self._is_over = True
        for ticket in self._all():
            ticket.wake_to_reckon()

    def end_after(self, seconds: float) -> None:
        """``end`` after ``seconds``; returns at once."""
        timer = threading.Timer(seconds, self.end)
        timer.daemon = True
        timer.start()

    def _enter_order(self, ref: OrderRef) -> Ticket | None:
        with self._lock:
            if self._waits >= self._waits_max or self._is_over:
                return None
            self._waits += 1
            ticket = Ticket()
            self._orders.setdefault(ref, set()).add(ticket)
            self._require_listener()
        return ticket

    def _leave_order(self, ref: OrderRef, ticket: Ticket) -> None:
        with self._lock:
            self._waits -= 1
            tickets = self._orders[ref]
            tickets.discard(ticket)
            if not tickets:
                del self._orders[ref]

    def _until_next_look(self) -> float:
        return LOOK_AGAIN_SECONDS * self._random.uniform(1 - _SPREAD, 1 + _SPREAD)

    # Hearing

    def _begin_to_hear(self) -> None:
        """Have the channel heard, if that can be: what is said from now on is not missed then."""
        if self._hears.is_set() or self._is_over:
            return
        with self._lock:
            self._require_listener()
        self._tried.wait(LISTEN_SECONDS_MAX)

    def _require_listener(self) -> None:
        self._needed_at = self._monotonic()
        if self._listener is None:
            self._tried.clear()
            self._listener = threading.Thread(target=self._listen, name="notices", daemon=True)
            self._listener.start()

    def _listen(self) -> None:
        """Hear and pass on, until nobody has waited for a while."""
        failures = 0
        while self._is_needed():
            try:
                for heard in self._feed.listen():
                    if heard is None:
                        failures = 0
                        self._hear_again()
                    else:
                        self._pass_on(heard)
                    if not self._is_needed():
                        return
            except NoticesLost as error:
                if not failures:
                    log.warning("notices_lost", error=str(error))
            except Exception:
                log.exception("notices_failed")
            failures += 1
            self._go_deaf()
            self._sleep(self._backoff(failures))

    def _is_needed(self) -> bool:
        """Tell whether to listen on; if not, the next one who waits begins anew."""
        with self._lock:
            now = self._monotonic()
            if self._orders or self._accounts:
                self._needed_at = now
            if now - self._needed_at < IDLE_SECONDS and not self._is_over:
                return True
            self._hears.clear()
            self._listener = None
            return False

    def _hear_again(self) -> None:
        """From here on nothing is missed; what was said before may have been."""
        self._hears.set()
        self._tried.set()
        for ticket in self._all():
            ticket.wake_to_look()

    def _go_deaf(self) -> None:
        could_hear = self._hears.is_set()
        self._hears.clear()
        self._tried.set()
        for ticket in self._all() if could_hear else ():
            ticket.wake_to_reckon()

    def _pass_on(self, notices: Sequence[Notice]) -> None:
        with self._lock:
            for notice in notices:
                for order_id in notice.order_ids if self._orders else ():
                    for ticket in self._orders.get((notice.account_id, order_id), ()):
                        ticket.wake(notice.decided)
                for ticket in self._accounts.get(notice.account_id, ()):
                    ticket.wake(notice.decided)

    def _all(self) -> list[Ticket]:
        with self._lock:
            sets = (*self._orders.values(), *self._accounts.values())
            return [ticket for tickets in sets for ticket in tickets]

    def _backoff(self, failures: int) -> float:
        """Seconds to wait after ``failures`` in a row: doubling, capped, with full jitter."""
        ceiling = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_FIRST * 2.0 ** min(failures, 10))
        return self._random.uniform(BACKOFF_SECONDS_FIRST, ceiling)
