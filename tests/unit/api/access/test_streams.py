"""A stream that is open when its key ends."""

from collections.abc import Callable, Iterator

import pytest
from flask import request
from structlog.testing import capture_logs

from api.access.keyring import FRESH_SECONDS, STALE_SECONDS_MAX
from shared.access import Scope
from shared.order_store import access
from tests.unit.api.access.parts import Guarded, bearer, guard, id_of, rotate
from tests.unit.api.parts import Api
from tests.unit.factories import NOON, seconds


def stream(guarded: Guarded, key: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What the caller of a stream gets; its request is over by then."""
    app = guarded.http.application
    peer = {"REMOTE_ADDR": "127.0.0.1"}
    with app.test_request_context("/v1/accounts/1", headers=bearer(key), environ_base=peer):
        guarded.gate.before()
        return guarded.gate.while_admitted(request.environ, chunks)


def endless() -> Iterator[bytes]:
    while True:
        yield b"x"


def test_a_stream_goes_on_while_its_key_is_good(guarded: Guarded) -> None:
    got = stream(guarded, guarded.make_key(1), endless())
    for _ in range(100):
        guarded.monotonic.now += FRESH_SECONDS
        assert next(got) == b"x"


def test_a_stream_comes_to_its_own_end(guarded: Guarded) -> None:
    assert list(stream(guarded, guarded.make_key(1), iter([b"a", b"b"]))) == [b"a", b"b"]


def _revoke(guarded: Guarded, key: str) -> None:
    access.revoke_key(guarded.api.gateway, id_of(key), NOON)


def _rotate(guarded: Guarded, key: str) -> None:
    rotate(guarded.api, key, NOON, seconds(0))


def _expire(guarded: Guarded, key: str) -> None:
    del key
    guarded.api.clock.forward(seconds(60))


def _lose_the_store(guarded: Guarded, key: str) -> None:
    del key
    guarded.api.store.is_down = True
    guarded.monotonic.now += STALE_SECONDS_MAX


@pytest.mark.parametrize("end", [_revoke, _rotate, _expire, _lose_the_store])
def test_a_stream_ends_with_its_key(guarded: Guarded, end: Callable[[Guarded, str], None]) -> None:
    key = guarded.make_key(1, expires_at=NOON + seconds(60))
    got = stream(guarded, key, endless())
    assert next(got) == b"x"
    end(guarded, key)
    guarded.monotonic.now += FRESH_SECONDS
    with capture_logs() as logged, pytest.raises(StopIteration):
        next(got)
    assert logged[-1]["event"] == "stream_ended"


def test_without_keys_a_stream_is_left_as_it_is(make_api: Callable[..., Api]) -> None:
    guarded = guard(make_api(access_keys="off"))
    chunks = iter([b"a"])
    assert stream(guarded, guarded.make_key(scope=Scope.OPERATOR), chunks) is chunks
