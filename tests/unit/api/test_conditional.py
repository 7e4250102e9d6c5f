"""ETag and If-None-Match (RFC 9110): what a client holds already is not sent again."""

from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.unit.api.parts import Api, json_of, order_body, problem_of
from tests.unit.factories import make_order, make_settler

UNKNOWN_ORDER = make_order().id


@pytest.fixture(name="account_id")
def _account_id(api: Api) -> int:
    return api.open_account()


@pytest.fixture(name="order_path")
def _order_path(api: Api, account_id: int) -> str:
    answer = api.post(f"/v1/accounts/{account_id}/orders", order_body())
    return str(answer.headers["Location"])


def settle(api: Api, order_path: str) -> None:
    parts = order_path.split("/")
    assert make_settler(api.gateway).settle([(int(parts[-3]), parts[-1])]) == []


def get(api: Api, path: str, held: str | None = None, method: str = "GET") -> TestResponse:
    headers = {} if held is None else {"If-None-Match": held}
    return api.http.open(path, method=method, headers=headers)


def is_strong(tag: str) -> bool:
    return tag.startswith('"') and tag.endswith('"') and len(tag) > 8


def not_modified(answer: TestResponse) -> bool:
    """Tell whether it is a 304, which must say what a 200 would say of its freshness."""
    if answer.status_code != 304:
        return False
    assert answer.data == b""
    assert is_strong(answer.headers["ETag"])
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert "Content-Type" not in answer.headers
    return True


def test_every_kind_of_answer_has_a_strong_tag_that_is_the_same_again(
    api: Api, account_id: int, order_path: str
) -> None:
    tags = set()
    for path in (order_path, f"/v1/accounts/{account_id}", f"/v1/accounts/{account_id}/orders"):
        answer = get(api, path)
        assert is_strong(answer.headers["ETag"])
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.mimetype == "application/json"
        assert "Link" not in answer.headers
        assert get(api, path).headers["ETag"] == answer.headers["ETag"]
        tags.add(answer.headers["ETag"])
    assert len(tags) == 3


def test_what_did_not_change_is_not_sent_again(api: Api, account_id: int, order_path: str) -> None:
    for path in (order_path, f"/v1/accounts/{account_id}", f"/v1/accounts/{account_id}/orders"):
        tag = get(api, path).headers["ETag"]
        assert not_modified(get(api, path, tag))
    settle(api, order_path)
    tag = get(api, order_path).headers["ETag"]
    api.store.is_down = True
    assert not_modified(get(api, order_path, tag))


def test_what_changed_is_sent(api: Api, account_id: int, order_path: str) -> None:
    paths = (order_path, f"/v1/accounts/{account_id}", f"/v1/accounts/{account_id}/orders")
    tags = {path: get(api, path).headers["ETag"] for path in paths}
    settle(api, order_path)
    for path in paths:
        answer = get(api, path, tags[path])
        assert answer.status_code == 200
        assert answer.headers["ETag"] != tags[path]
    assert json_of(get(api, order_path, tags[order_path]))["status"] == "executed"


def test_the_tag_is_the_same_from_the_store_and_from_the_cache(api: Api, order_path: str) -> None:
    settle(api, order_path)
    from_store = get(api, order_path)
    api.store.calls.clear()
    from_cache = get(api, order_path)
    assert api.store.calls == []
    assert from_cache.headers["ETag"] == from_store.headers["ETag"]


@pytest.mark.parametrize(
    ("held", "is_known"),
    [
        ("{tag}", True),
        ("W/{tag}", True),
        ('"other", {tag}', True),
        ('{tag},"other"', True),
        ('W/"other" , W/{tag}', True),
        ("*", True),
        ('"other"', False),
        ('W/"other"', False),
        ('"a", "b"', False),
        ("", False),
        (",,,", False),
        ('"', False),
    ],
)
def test_tags_are_compared_weakly_and_one_of_a_list_is_enough(
    api: Api, order_path: str, held: str, is_known: bool
) -> None:
    tag = get(api, order_path).headers["ETag"]
    answer = get(api, order_path, held.format(tag=tag))
    assert not_modified(answer) is is_known
    if not is_known:
        assert answer.status_code == 200


def test_head_answers_as_get_does_without_a_body(api: Api, order_path: str) -> None:
    whole = get(api, order_path)
    head = get(api, order_path, method="HEAD")
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["ETag"] == whole.headers["ETag"]
    assert head.headers["Content-Length"] == str(len(whole.data))
    assert not_modified(get(api, order_path, whole.headers["ETag"], method="HEAD"))


@pytest.mark.parametrize("path", ["/v1/accounts/7", f"/v1/accounts/1/orders/{UNKNOWN_ORDER}"])
def test_what_is_not_there_is_not_found_whatever_is_held(
    api: Api, account_id: int, path: str
) -> None:
    problem_of(get(api, path, "*"), 404)


def test_a_pending_order_s_tag_changes_once_it_is_cancelled(api: Api, order_path: str) -> None:
    tag = get(api, order_path).headers["ETag"]
    api.http.delete(order_path)
    answer: Any = get(api, order_path, tag)
    assert json_of(answer)["status"] == "cancelled"
