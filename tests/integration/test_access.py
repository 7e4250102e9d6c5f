"""Keys, limits and networks on real processes: made by the operators' commands, lost with Redis."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from local import commands
from local.ports import free_port
from local.processes import Process
from tests.integration.client import order_body, until
from tests.stack import Engines, Stack

pytestmark = [pytest.mark.integration, pytest.mark.fault]

KNOWN_SECONDS = 8.0
"""By when each process knows of a change: five seconds, and some for a busy machine."""

ANSWER_SECONDS = 1.5


@pytest.fixture(scope="module")
def stack(own_engines: Engines) -> Iterator[Stack]:
    """An API that asks for keys and counts requests; nothing comes back while a test runs."""
    env = {
        "ACCESS_KEYS": "required",
        "KEY_RATE": "0.001",
        "KEY_BURST": "40",
        "WORKER_PROCESSES": "1",
    }
    with Stack(own_engines, api_processes=2, workers=1, env=env) as running:
        yield running


def ops(stack: Stack, *arguments: str) -> str:
    """What an operators' command writes to standard output."""
    done = subprocess.run(
        commands.ops(*arguments),
        env=stack.env,
        cwd=commands.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def make_key(stack: Stack, *scope: str) -> str:
    return ops(stack, "keys", "create", "--name", "a test's", *scope)


def get(stack: Stack, path: str, key: str | None = None) -> requests.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return requests.get(stack.url + path, headers=headers, timeout=10)


def post(stack: Stack, path: str, body: object, key: str) -> requests.Response:
    return requests.post(stack.url + path, json=body, headers={"X-API-Key": key}, timeout=10)


def test_an_order_is_placed_with_a_key_from_its_creation_to_its_revocation(stack: Stack) -> None:
    opener = make_key(stack, "--all-accounts")
    account_id = post(stack, "/v1/accounts", {"cash": 1000}, opener).json()["id"]
    key = make_key(stack, "--account", str(account_id))
    orders = f"/v1/accounts/{account_id}/orders"
    placed = post(stack, orders, order_body(), key)
    assert placed.status_code == 202, placed.text
    final = until(
        lambda: get(stack, f"{orders}/{placed.json()['id']}", opener).json(),
        lambda shown: shown["status"] == "executed",
        20,
    )
    assert final["account_id"] == account_id
    assert get(stack, f"/v1/accounts/{account_id}").status_code == 401
    assert get(stack, f"/v1/accounts/{account_id + 1}", key).status_code == 404
    assert post(stack, "/v1/accounts", {"cash": 1}, key).status_code == 403

    key_id = json.loads(ops(stack, "keys", "list", "--json").splitlines()[-1])["id"]
    assert key_id in ops(stack, "keys", "list")
    own_id = key.removeprefix("op_live_").partition(".")[0]
    new = ops(stack, "keys", "rotate", own_id, "--grace", "0")
    until_known(lambda: get(stack, orders, new).status_code == 200)
    until_known(lambda: get(stack, orders, key).status_code == 401)
    ops(stack, "keys", "revoke", own_id)
    until_known(lambda: get(stack, orders, new).status_code == 401)


def until_known(holds: Callable[[], bool]) -> None:
    """See that ``holds`` several times in a row, so that both processes have said so."""
    deadline = time.monotonic() + KNOWN_SECONDS
    in_a_row = 0
    while in_a_row < 8:
        in_a_row = in_a_row + 1 if holds() else 0
        if not in_a_row:
            assert time.monotonic() < deadline
            time.sleep(0.3)


def test_a_network_is_kept_out_while_the_api_runs(stack: Stack) -> None:
    key = make_key(stack, "--operator")
    assert get(stack, "/v1/accounts/1", key).status_code in (200, 404)
    ops(stack, "networks", "deny", "127.0.0.0/8")
    try:
        until_known(lambda: get(stack, "/v1/accounts/1", key).status_code == 403)
        assert get(stack, "/healthz").status_code == 200
        lie = {"X-Forwarded-For": "192.0.2.1", "X-API-Key": key}
        lied = requests.get(stack.url + "/v1/accounts/1", headers=lie, timeout=10)
        assert lied.status_code == 403
    finally:
        ops(stack, "networks", "remove", "127.0.0.0/8")
    until_known(lambda: get(stack, "/v1/accounts/1", key).status_code in (200, 404))


def test_limits_are_counted_for_all_processes_and_lost_with_redis(stack: Stack) -> None:
    key = make_key(stack, "--operator")
    seen = [get(stack, "/v1/accounts/999999", key).status_code for _ in range(42)]
    assert seen == [404] * 40 + [429] * 2
    refused = get(stack, "/v1/accounts/999999", key)
    assert refused.headers["RateLimit"].startswith('"key";r=0;t=')
    assert int(refused.headers["Retry-After"]) > 900

    stack.engines.flush_redis()
    again = get(stack, "/v1/accounts/999999", key)
    assert again.status_code == 404
    assert again.headers["RateLimit"].startswith('"key";r=39;')

    stack.engines.redis.pause()
    try:
        started = time.monotonic()
        for _ in range(45):
            answer = get(stack, "/v1/accounts/999999", key)
            assert answer.status_code == 404
            assert "RateLimit" not in answer.headers
        # A few that wait for Redis, each a quarter of a second; the others do not even ask.
        assert time.monotonic() - started < 45 * 0.25 / 2
    finally:
        stack.engines.redis.resume()
    until(
        lambda: get(stack, "/v1/accounts/999999", key),
        lambda answer: "RateLimit" in answer.headers,
        10,
    )


def test_the_audit_log_names_keys_and_no_secrets(stack: Stack) -> None:
    opener = make_key(stack, "--all-accounts")
    opened = post(stack, "/v1/accounts", {"cash": 5}, opener)
    key_id, _, secret = opener.removeprefix("op_live_").partition(".")
    log = stack.folder / "api.log"
    line = until(
        lambda: next(
            (one for one in log.read_text().splitlines() if opened.headers["X-Request-Id"] in one),
            "",
        ),
        bool,
        10,
    )
    written = json.loads(line)
    assert written["key"] == key_id
    assert written["account"] == opened.json()["id"]
    assert written["status"] == 201
    assert secret not in log.read_text()


@pytest.mark.parametrize("said", [{}, {"OPEN_TO_EVERYONE_WITHOUT_KEYS": "true"}])
def test_an_api_without_keys_refuses_to_start_on_a_public_address(
    stack: Stack, said: dict[str, str]
) -> None:
    env = stack.env | {"ACCESS_KEYS": "off", "API_HOST": "0.0.0.0", "API_PORT": str(free_port())}
    log = stack.folder / f"refused-{len(said)}.log"
    api = Process("api", commands.api(), log, env=env | said, cwd=commands.ROOT)
    api.start()
    try:
        assert api.wait(30), "it runs"
        assert api.exit_code not in (0, None)
        assert "everybody could trade" in log.read_text()
    finally:
        api.kill()


def test_an_api_bound_elsewhere_than_its_setting_says_serves_no_strangers(stack: Stack) -> None:
    own = own_address()
    port = free_port()
    command = [*commands.api()[:-1], "--bind", f"0.0.0.0:{port}", commands.api()[-1]]
    env = stack.env | {"ACCESS_KEYS": "off"}
    api = Process("api", command, stack.folder / "bound.log", env=env, cwd=commands.ROOT)
    api.start()
    try:
        local = until(lambda: _status(f"http://127.0.0.1:{port}/v1/accounts/1"), bool, 30)
        assert local in (200, 404)
        assert _status(f"http://{own}:{port}/v1/accounts/1") == 403
    finally:
        api.stop()


def own_address() -> str:
    """An address of this machine that others could use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def _status(url: str) -> int:
    try:
        return requests.get(url, timeout=2).status_code
    except requests.ConnectionError:
        return 0
