"""Which networks may call: lists that operators change while the API runs."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.logs import get_logger
from shared.networks import ALLOW, DENY, Network, read_address, read_network
from shared.order_store.errors import StoreUnavailable

REREAD_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
VERDICTS_MAX: Final = 10_000
"""Addresses that are remembered as being in or out."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Lists:
    allowed: Sequence[Network]
    denied: Sequence[Network]
    only_allowed: bool
    """Some network was allowed, so all others are not (even if its entry cannot be read)."""
    verdicts: dict[str, bool] = field(default_factory=dict)


class NetworkLists:
    """The lists as they were last read. Safe to share between threads.

    While the store does not answer, the last lists hold for as long as it takes; a process that has
    never read them lets nobody in.
    """

    def __init__(
        self,
        load: Callable[[], Iterable[tuple[str, str]]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read verdicts and networks with ``load`` (raises ``StoreUnavailable``)."""
        self._load = load
        self._monotonic = monotonic
        self._lists: _Lists | None = None
        self._read_at = 0.0
        self._reading = threading.Lock()

    def let_in(self, address: str) -> bool:
        """Tell whether ``address`` may call: denied wins; allowed, if any, are the only ones.

        Raises:
            StoreUnavailable: the lists were never read, and the store does not answer.
        """
        lists = self._current()
        if not lists.only_allowed and not lists.denied:
            return True
        verdict = lists.verdicts.get(address)
        if verdict is None:
            verdict = _judge(lists, address)
            if len(lists.verdicts) >= VERDICTS_MAX:
                lists.verdicts.clear()
            lists.verdicts[address] = verdict
        return verdict

    def _current(self) -> _Lists:
        lists = self._lists
        if self._monotonic() < self._read_at and lists is not None:
            return lists
        return self._read(lists)

    def _read(self, before: _Lists | None) -> _Lists:
        # One thread reads; the others go on with the lists before, if there are any.
        if not self._reading.acquire(blocking=before is None):
            assert before is not None  # noqa: S101 - the lock was waited for without lists
            return before
        try:
            now = self._monotonic()
            if now < self._read_at:
                return self._lists_or_fail()
            self._lists = _sorted(self._load())
            self._read_at = self._monotonic() + REREAD_SECONDS
        except StoreUnavailable as error:
            # From now on, not from before the call: those who waited must not wait again.
            self._read_at = self._monotonic() + RETRY_SECONDS
            log.warning("networks_unavailable", error=str(error))
        finally:
            self._reading.release()
        return self._lists_or_fail()

    def _lists_or_fail(self) -> _Lists:
        if self._lists is None:
            raise StoreUnavailable("the lists of networks were never read")
        return self._lists


def _sorted(entries: Iterable[tuple[str, str]]) -> _Lists:
    found: dict[str, list[Network]] = {ALLOW: [], DENY: []}
    only_allowed = False
    for verdict, text in entries:
        only_allowed = only_allowed or verdict == ALLOW
        try:
            found[verdict].append(read_network(text))
        except (ValueError, KeyError):
            # Written by no command of ours; the lists that can be read still hold.
            log.exception("network_unreadable", verdict=verdict, network=text)
    return _Lists(found[ALLOW], found[DENY], only_allowed)


def _judge(lists: _Lists, text: str) -> bool:
    address = read_address(text)
    if address is None:
        return not lists.only_allowed
    if any(address in network for network in lists.denied):
        return False
    return not lists.only_allowed or any(address in network for network in lists.allowed)
