"""Whoever damages orders in the run must mend each of them, with what was there before."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.chaos.history import DAMAGE, read_calls
from tests.chaos.mender import Mender
from tests.unit.factories import accept, make_order, moto_client, new_table, open_account


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked to be mended: key, price and what to do afterwards."""
    asked: list[Any] = []
    monkeypatch.setattr(Mender, "_mend", lambda _, *arguments: asked.append(arguments))
    return asked


@pytest.fixture
def mender(tmp_path: Path, asked: list[Any]) -> Iterator[Mender]:
    with moto_client() as client:
        gateway = new_table(client)
        open_account(gateway)
        accept(gateway, make_order(share_price="7.25"))
        mender = Mender(client, gateway.table_name, {}, Random(1), tmp_path / "by-hand")
        mender.start()
        yield mender
        mender.finish()


def damage(mender: Mender) -> None:
    mender._damage_one()
    for thread in mender._mending:
        thread.join(5)


def test_an_order_is_damaged_once_and_mended_with_its_own_price(
    mender: Mender, asked: list[Any]
) -> None:
    damage(mender)
    damage(mender)

    assert [price for _, price, _ in asked] == [{"N": "7.25"}]


def test_what_may_have_been_damaged_is_mended(
    mender: Mender, asked: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> None:
        refused = mender._dynamodb.exceptions.ConditionalCheckFailedException
        raise refused({"Error": {"Code": "ConditionalCheckFailedException"}}, "UpdateItem")

    monkeypatch.setattr(mender, "_set_price", refuse)
    damage(mender)
    mender.finish()

    assert [price for _, price, _ in asked] == [{"N": "7.25"}]
    assert [call.op for call in read_calls([tmp_path / "by-hand"])] == [DAMAGE]
