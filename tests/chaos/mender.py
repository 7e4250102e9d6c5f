"""Somebody whose orders get damaged, and who mends them: what parking is for.

Now and then a pending order's item is made unreadable, as a bug or a hand could. It gets parked.
Then the item is repaired and the order replayed or cancelled by the operators' own commands, while
everything else is being broken around them.
"""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from local import commands
from tests.chaos.history import CANCEL, DAMAGE, REPLAY, Call, Recorder

DAMAGES_SECONDS = (5.0, 8.0)
AGE_SECONDS_MIN: Final = 6.0
"""By then its client has its answer, in nearly all cases."""
PARKED_SECONDS_MAX: Final = 90.0
_COMMAND_SECONDS_MAX: Final = 60.0
_LOOK_SECONDS: Final = 0.3
_DAMAGED: Final = {"S": "damaged"}

T = TypeVar("T")

Key = dict[str, Any]


class Mender:
    """Damages and mends in threads of its own."""

    def __init__(
        self, dynamodb: Any, table_name: str, env: dict[str, str], random: Random, history: Path
    ) -> None:
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._env = env
        self._random = random
        self._file = history.open("w", encoding="utf-8")
        self._recorder = Recorder(self._file)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._mending: list[threading.Thread] = []
        self._taken: set[str] = set()
        """Orders that were damaged: each once, or its damage would be what it is mended with."""
        self.errors: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Damage nothing more, and wait until all is mended."""
        self._stop.set()
        self._thread.join(PARKED_SECONDS_MAX)
        for thread in (self._thread, *self._mending):
            thread.join(PARKED_SECONDS_MAX + _COMMAND_SECONDS_MAX)
            if thread.is_alive():
                self.errors.append("a damaged order was not mended")
        self._file.close()

    def _work(self) -> None:
        while not self._stop.wait(self._random.uniform(*DAMAGES_SECONDS)):
            try:
                self._damage_one()
            except (BotoCoreError, ClientError):
                continue  # broken just now: another time

    def _damage_one(self) -> None:
        for key in self._old_pending():
            price = self._item(key)["share_price"]
            self._taken.add(_name(key))
            # It may be damaged whatever is answered: even what is refused may be boto's own
            # repetition of what was done before.
            with suppress(BotoCoreError, ClientError):
                self._set_price(key, _DAMAGED, "pending")
            self._note(DAMAGE, key)
            # Every other one is cancelled: no chance, so that a short run has both.
            action = (REPLAY, CANCEL)[len(self._mending) % 2]
            mending = threading.Thread(target=self._mend, args=(key, price, action), daemon=True)
            self._mending.append(mending)
            mending.start()
            return

    def _old_pending(self) -> Iterator[Key]:
        answer = self._dynamodb.scan(
            TableName=self._table_name,
            IndexName="undecided",
            FilterExpression="undecided_shard <> :parked",
            ExpressionAttributeValues={":parked": {"S": "parked"}},
        )
        found = [{name: item[name] for name in ("pk", "sk")} for item in answer["Items"]]
        self._random.shuffle(found)
        now = time.time()
        return (
            key
            for key in found
            if now - _accepted_at(key) > AGE_SECONDS_MIN and _name(key) not in self._taken
        )

    def _mend(self, key: Key, price: Key, action: str) -> None:
        try:
            if not self._until(lambda: self._status(key) != "pending", PARKED_SECONDS_MAX):
                self.errors.append(f"{_name(key)} was damaged and not parked")
            status = self._until(lambda: self._repair(key, price), _COMMAND_SECONDS_MAX)
            if status != "failed":
                return  # its client cancelled it
            self._note(action, key)
            if not self._until(lambda: self._is_done(key, action), _COMMAND_SECONDS_MAX):
                self.errors.append(f"parked {action} of {_name(key)} did not succeed")
        except Exception as error:  # noqa: BLE001 - told at the end of the run, which then fails
            self.errors.append(f"mending {_name(key)}: {error!r}")

    def _repair(self, key: Key, price: Key) -> str:
        """Give the order its price back; returns the status in which it is."""
        status = self._status(key)
        self._set_price(key, price, status)
        return status

    def _is_done(self, key: Key, action: str) -> bool:
        ended = subprocess.run(
            commands.ops("parked", action, _name(key), "--yes"),
            cwd=commands.ROOT,
            env=self._env,
            capture_output=True,
            timeout=_COMMAND_SECONDS_MAX,
            check=False,
        )
        # The answer to an earlier try may have been lost.
        return ended.returncode == 0 or self._status(key) != "failed"

    def _until(self, look: Callable[[], T], seconds: float) -> T | None:
        """The first true answer of ``look``, whatever is broken meanwhile; None: there is none."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if found := look():
                    return found
            except (BotoCoreError, ClientError):
                pass  # broken just now
            time.sleep(_LOOK_SECONDS)
        return None

    def _status(self, key: Key) -> str:
        return str(self._item(key)["status"]["S"])

    def _item(self, key: Key) -> Key:
        item: Key = self._dynamodb.get_item(
            TableName=self._table_name, Key=key, ConsistentRead=True
        )["Item"]
        return item

    def _set_price(self, key: Key, price: Key, status: str) -> None:
        """Set an order's price if it is in ``status``."""
        self._dynamodb.update_item(
            TableName=self._table_name,
            Key=key,
            UpdateExpression="SET share_price = :price",
            ConditionExpression="#status = :status",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":price": price, ":status": {"S": status}},
        )

    def _note(self, op: str, key: Key) -> None:
        now = time.monotonic()
        account, order = _ids(key)
        self._recorder.add(Call(op, "operator", now, now, account=account, order=order))


def _ids(key: Key) -> tuple[int, str]:
    return int(key["pk"]["S"].removeprefix("ACCOUNT#")), key["sk"]["S"].removeprefix("ORDER#")


def _name(key: Key) -> str:
    account, order = _ids(key)
    return f"{account}/{order}"


def _accepted_at(key: Key) -> float:
    """Unix seconds, from the order's id (UUIDv7)."""
    return int(_ids(key)[1].replace("-", "")[:12], 16) / 1000
