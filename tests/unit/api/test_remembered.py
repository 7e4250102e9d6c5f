"""Final answers that a process remembers."""

from api.remembered import ANSWER_BYTES_MAX, ANSWERS_MAX, Remembered
from tests.unit.api.parts import Api, order_body


def test_an_answer_is_remembered_and_no_other() -> None:
    answers = Remembered()
    answers.add((1, "a"), b"one")
    assert answers.get((1, "a")) == b"one"
    assert answers.get((2, "a")) is None
    assert answers.get((1, "b")) is None


def test_as_many_are_remembered_and_no_more() -> None:
    answers = Remembered()
    for number in range(ANSWERS_MAX + 1):
        answers.add((number, "a"), b"")
    assert answers.get((0, "a")) is None
    assert answers.get((1, "a")) == b""
    assert answers.get((ANSWERS_MAX, "a")) == b""


def test_a_long_answer_is_not_remembered() -> None:
    answers = Remembered()
    answers.add((1, "a"), b"x" * ANSWER_BYTES_MAX)
    answers.add((2, "a"), b"x" * (ANSWER_BYTES_MAX + 1))
    assert answers.get((1, "a")) is not None
    assert answers.get((2, "a")) is None


def test_a_pending_order_is_not_remembered_and_a_final_one_asks_nobody(
    api: Api,
) -> None:
    account_id = api.open_account()
    placed = api.post(f"/v1/accounts/{account_id}/orders", order_body())
    path = placed.headers["Location"]
    assert b'"pending"' in api.get(path).data
    order_id = path.rpartition("/")[2]
    api.services.cache.put([(account_id, order_id, b'{"status":"executed"}')])
    assert api.get(path).data == b'{"status":"executed"}'
    api.store.calls.clear()
    api.redis.flushall()
    assert api.get(path).data == b'{"status":"executed"}'
    assert api.store.calls == []
