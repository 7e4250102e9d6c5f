"""A client that follows an account: it is told of every decision once, and in sequence."""

from typing import TYPE_CHECKING, Final

from api.event_ids import read_event_id, write_event_id
from shared.domain.order import FINAL_STATUSES, OrderStatus
from shared.order_store.decisions import BEGINNING, Window
from shared.order_store.records import RecordedOrder
from tests.simulation.checks import Answer, Audit
from tests.simulation.redis import brief

if TYPE_CHECKING:
    from tests.simulation.world import ApiProcess, World

_LOOKS: Final = 8
_BROKEN_OFF: Final = 0
_SECONDS_MAX: Final = 60.0
"""A stream lives long, and may have many pages to read."""

_CATCH_UP_TRIES_MAX: Final = 20


class Follower:
    """One client. It reads through other processes again and again, each time from where it was."""

    def __init__(self, world: "World", name: str) -> None:
        """Follow some account of ``world``, from its beginning."""
        self._world = world
        self._name = name
        self._account_id = 0
        self._event_id = ""
        self._told: list[tuple[int, str, str]] = []
        """Number in the sequence, order id and status."""

    def follow(self) -> None:
        """Look now and then while things go wrong."""
        world = self._world
        for _ in range(_LOOKS):
            # Into the quiet time after the faults, too: then operators are still at work.
            world.clients.sleep(world.scenario.span / 2 * world.rng.random())
            self._look()

    def catch_up(self) -> None:
        """Look until nothing is left to be told."""
        for _ in range(_CATCH_UP_TRIES_MAX):
            if self._look():
                return
            self._world.clients.sleep(0.5)

    def _look(self) -> bool:
        world = self._world
        if not self._account_id:
            if not world.accounts:
                return False
            self._account_id = world.rng.choice(world.accounts)
            self._event_id = write_event_id(BEGINNING, self._account_id)
        answer = world.http(
            self._name, self._read, "follows", self._account_id, seconds_max=_SECONDS_MAX
        )
        return answer is not None and answer.status == 200

    def _read(self, api: "ApiProcess") -> Answer:
        since = read_event_id(self._event_id, self._account_id)
        for window in api.news(self._account_id, since):
            if not self._take(window):
                return Answer(_BROKEN_OFF)
        return Answer(200)

    def _take(self, window: Window) -> bool:
        """Be told of some decisions; false if the stream breaks off between two of them."""
        world, account_id = self._world, self._account_id
        breaks_off = world.rng.random() < world.scenario.answers_lost
        for place, order in window.decided:
            if breaks_off and world.rng.random() < 0.5:
                return False
            self._event_id = write_event_id(place, account_id)
            assert isinstance(order, RecordedOrder)
            self._told.append((order.sequence or 0, order.order.id, order.status))
            world.hub.counts["events"] += 1
        self._event_id = write_event_id(window.end, account_id)
        return True

    def check(self, audit: Audit) -> None:
        """Hold what was told against what is there."""
        numbers = [number for number, _, _ in self._told]
        if numbers != sorted(set(numbers)):
            self._say(f"was told of the decisions {numbers}")
        told = {number: (order_id, status) for number, order_id, status in self._told}
        for order_id, item in audit.by_account.get(self._account_id, []):
            status = OrderStatus(item["status"]["S"])
            number = int(item["sequence"]["N"]) if "sequence" in item else None
            if number is None or status is OrderStatus.PENDING:
                continue
            heard = told.get(number)
            # A parked order keeps its number when it is cancelled.
            is_right = heard == (order_id, status) or (
                heard == (order_id, OrderStatus.FAILED) and status is OrderStatus.CANCELLED
            )
            if not is_right:
                self._say(
                    f"heard {heard} of {brief(self._account_id, order_id)}, {number} {status}"
                )
        final = [order_id for _, order_id, status in self._told if status in FINAL_STATUSES]
        if len(final) != len(set(final)):
            self._say("was told of a final decision twice")

    def _say(self, problem: str) -> None:
        self._world.say(f"{self._name} of account {self._account_id} {problem}")
