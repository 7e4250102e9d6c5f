"""The page as a person uses it, in a real browser on a real stack."""

import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Request, Route, expect

from local import commands
from local.processes import Process
from tests.browser.conftest import Opens
from tests.browser.person import PHONE, Person
from tests.integration.client import Client, until
from tests.stack import Engines, Stack, is_ok

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

READY_SECONDS = 30.0
EVIL = '<img src=x onerror="document.title=1">'


def test_an_account_is_opened_and_its_orders_turn_without_reloading(person: Person) -> None:
    person.go()
    account = person.open_account("1000")
    person.sees_live()
    person.cash_is("1000")
    expect(person.page.get_by_text("No orders yet.")).to_be_visible()
    assert person.page.url.endswith(f"#/accounts/{account}")
    person.page.evaluate("window.neverReloaded = true")

    person.fill("GBM", "10", "50.5")
    expect(person.page.locator("#estimate")).to_have_text("505")
    expect(person.page.locator("#estimate-note")).to_have_text("Leaves 495 of 1000.")
    person.submit()
    expect(person.row("GBM")).to_contain_text("Executed")
    person.cash_is("495")
    expect(person.page.locator("#positions-rows tr")).to_have_text(re.compile("GBM.*10.*50.5"))

    person.order("AAPL", "10", "50.5")
    expect(person.row("AAPL")).to_contain_text(
        "Not enough cash: the order costs 505, the account holds 495."
    )
    expect(person.row("AAPL")).to_contain_text("Rejected")
    expect(person.page.locator("#blotter-live")).to_contain_text("Rejected: buy 10 AAPL at 50.5.")

    person.order("GBM", "50", "60", side="Sell")
    expect(person.rows.first).to_contain_text(
        "Not enough shares: the order sells 50, the account holds 10."
    )
    person.order("GBM", "10", "50.5")
    expect(person.rows.first).to_contain_text("A duplicate: the same purchase was executed")
    person.sees_rows(4)
    person.cash_is("495")
    assert person.page.evaluate("window.neverReloaded") is True


def test_orders_of_others_show_up_and_a_reload_shows_the_same(
    person: Person, client: Client
) -> None:
    account = client.open_account("12345678901234567890.12345678")
    client.settled(client.order(account, issuer_name="OLD", total_shares=1, share_price=1))
    person.follow(account)
    # Exact, though no floating-point number is; set in groups for the eye alone.
    person.cash_is("12345678901234567889.12345678")
    person.sees_rows(1)
    client.order(account, issuer_name="NEW", total_shares=3, share_price="0.1")
    expect(person.row("NEW")).to_contain_text("Executed")
    person.cash_is("12345678901234567888.82345678")
    before = person.rows.all_inner_texts()

    person.page.reload()
    person.sees_live()
    person.sees_rows(2)
    assert person.rows.all_inner_texts() == before


def test_a_pending_order_is_cancelled_and_the_focus_stays(
    person: Person, client: Client, paused_worker: Process
) -> None:
    account = client.open_account(1000)
    person.follow(account)
    person.order("GBM", "10", "50")
    expect(person.row("GBM")).to_contain_text("Pending")
    person.page.get_by_role("button", name="Cancel: buy 10 GBM at 50").press("Enter")
    expect(person.row("GBM")).to_contain_text("Cancelled")
    expect(person.row("GBM").get_by_role("button")).to_have_count(0)
    expect(person.row("GBM")).to_be_focused()
    person.cash_is("1000")


def test_a_cancellation_that_comes_too_late_says_so(
    person: Person, client: Client, paused_worker: Process
) -> None:
    account = client.open_account(1000)
    person.follow(account)

    def decide_first(route: Route) -> None:
        """The order is executed while the cancellation is on its way."""
        if route.request.method == "DELETE":
            paused_worker.resume()
            client.settled(order)
        route.continue_()

    order = client.order(account, total_shares=4)
    person.page.reload()
    person.page.route("**/orders/*", decide_first)
    person.page.get_by_role("button", name=re.compile("^Cancel: buy 4")).click()
    expect(person.page.locator("#toast")).to_have_text("Too late to cancel: it is executed.")
    expect(person.row("GBM")).to_contain_text("Executed")


def test_errors_are_shown_beside_their_fields(person: Person, client: Client) -> None:
    person.go()
    person.page.get_by_role("button", name="Open the account").click()
    expect(person.page.locator("#open-cash-error")).to_have_text("Cash is missing.")
    expect(person.page.get_by_role("textbox", name="Cash")).to_be_focused()

    person.follow(client.open_account(1000))
    person.order("", "1.5", "-3")
    expect(person.page.locator("#order-issuer-error")).to_have_text("Issuer is missing.")
    expect(person.page.locator("#order-shares-error")).to_have_text(
        "Shares must be a whole number."
    )
    expect(person.page.locator("#order-price-error")).to_have_text("Price must be more than 0.")
    issuer = person.page.get_by_role("combobox", name="Issuer")
    expect(issuer).to_be_focused()
    expect(issuer).to_have_attribute("aria-invalid", "true")
    person.order("GBM", "1", "3")
    expect(person.row("GBM")).to_contain_text("Executed")
    expect(person.page.locator("[aria-invalid]")).to_have_count(0)


def test_an_account_that_is_not_there_is_told(person: Person, client: Client) -> None:
    person.go(999_999)
    expect(person.page.get_by_role("alert").filter(has_text="no account 999999")).to_be_visible()
    expect(person.page.locator("#order-form")).to_be_hidden()
    person.page.get_by_role("link", name="Other account").click()
    person.page.get_by_role("textbox", name="Account number").fill("x1")
    person.page.get_by_role("button", name="Show the account").click()
    expect(person.page.locator("#go-id-error")).to_have_text("An account's number has digits only.")
    account = client.open_account(7)
    person.page.get_by_role("textbox", name="Account number").fill(str(account))
    person.page.get_by_role("button", name="Show the account").click()
    person.cash_is("7")


def test_an_issuer_that_is_markup_is_text(person: Person, client: Client) -> None:
    account = client.open_account(1000)
    person.follow(account)
    person.order(EVIL, "1", "2")
    row = person.row("Executed")
    expect(row.get_by_role("rowheader")).to_have_text(EVIL)
    expect(person.page.locator("#positions-rows th")).to_have_text(EVIL)
    expect(person.page.locator("#blotter-live")).to_contain_text(EVIL)
    person.page.reload()
    expect(row.get_by_role("rowheader")).to_have_text(EVIL)
    assert person.page.locator("main img").count() == 0
    assert person.page.title() == f"Account {account} - Order processor"
    # And the browser itself would refuse what the scripts do not do.
    person.expected = "trusted-types|TrustedHTML"
    refused = person.page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return ''; }"
        " catch (error) { return error.name; } }"
    )
    assert refused == "TypeError"


def test_a_stream_goes_on_where_it_was_when_the_api_comes_back(
    person: Person, client: Client, stack: Stack, paused_worker: Process
) -> None:
    asked: list[Request] = []
    person.page.on("request", lambda one: asked.append(one))
    account = client.open_account(1000)
    person.follow(account)
    orders = [client.order(account, issuer_name=f"I{number}", total_shares=1) for number in (1, 2)]
    person.order("I3", "1", "50")
    expect(person.row("I3")).to_contain_text("Pending")

    stack.api.kill()
    expect(person.page.locator("#connection")).to_have_text("Not connected, trying again")
    paused_worker.resume()
    time.sleep(1)  # the orders are decided while nobody can be told
    stack.api.start()
    until(lambda: is_ok(f"{stack.url}/readyz"), bool, READY_SECONDS)

    person.sees_live()
    person.sees_rows(3)
    for name in ("I1", "I2", "I3"):
        expect(person.row(name)).to_have_count(1)
        expect(person.row(name)).to_contain_text("Executed")
    person.cash_is("850")
    assert [client.settled(order)["status"] for order in orders] == ["executed"] * 2
    streams = [one for one in asked if one.url.endswith("/events")]
    assert "last-event-id" not in streams[0].headers
    assert streams[-1].headers["last-event-id"]


@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_order_whose_answer_is_lost_is_sent_again_and_counts_once(
    person: Person, client: Client, is_recorded: bool
) -> None:
    account = client.open_account(1000)
    keys: list[str] = []

    def lose_the_first(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            route.continue_()
            return
        if is_recorded:
            route.fetch()
        route.abort()

    person.page.route("**/orders", lose_the_first)
    person.follow(account)
    person.order("GBM", "2", "50")
    expect(person.page.locator("#toast")).to_have_text("Placed: buy 2 GBM at 50.")
    expect(person.row("GBM")).to_contain_text("Executed")
    person.sees_rows(1)
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert len(client.orders(account)) == 1


def test_an_unanswered_order_is_remembered_over_a_reload(person: Person, client: Client) -> None:
    account = client.open_account(1000)
    sent: list[tuple[str, Any]] = []

    def lose(route: Route) -> None:
        if route.request.method == "POST":
            sent.append((route.request.headers["idempotency-key"], route.request.post_data_json))
            route.fetch()
            route.abort()
        else:
            route.continue_()

    person.page.route("**/orders", lose)
    person.follow(account)
    person.order("GBM", "2", "50")
    notice = person.page.get_by_role("alert").filter(has_text="No answer came to this order")
    expect(notice).to_contain_text("buy 2 GBM at 50")
    assert len(sent) == 3

    person.page.reload()
    person.page.unroute("**/orders")
    with person.page.expect_request(lambda one: one.method == "POST") as again:
        notice.get_by_role("button", name="Send it again").click()
    assert {key for key, _ in sent} == {again.value.headers["idempotency-key"]}
    assert [body for _, body in sent] == [again.value.post_data_json] * 3
    expect(notice).to_be_hidden()
    assert len(client.orders(account)) == 1


def test_a_page_without_a_secure_context_names_its_requests_too(
    person: Person, client: Client
) -> None:
    person.page.add_init_script("delete Crypto.prototype.randomUUID")
    person.follow(client.open_account(1000))
    assert person.page.evaluate("typeof crypto.randomUUID") == "undefined"
    with person.page.expect_request(lambda one: one.method == "POST") as placed:
        person.order("GBM", "2", "50")
    assert re.fullmatch("[0-9a-f]{32}", placed.value.headers["idempotency-key"])
    expect(person.row("GBM")).to_contain_text("Executed")


@pytest.mark.parametrize(("hours", "words"), [(1, "60 min ahead of"), (-1, "60 min behind")])
def test_a_clock_that_is_off_is_told(
    person: Person, client: Client, hours: int, words: str
) -> None:
    account = client.open_account(1000)
    person.page.clock.install(time=time.time() + 3600 * hours)
    person.follow(account)
    expect(person.page.locator("#clock-notice")).to_contain_text(words)
    person.order("GBM", "2", "50")
    row = person.row("GBM")
    expect(row).to_contain_text("Rejected")
    expect(row).to_contain_text(re.compile("Not allowed: its time is 60 min (ahead|behind)"))


def test_everything_can_be_done_with_the_keyboard_alone(
    person: Person, paused_worker: Process
) -> None:
    press, write = person.page.keyboard.press, person.page.keyboard.type
    person.go()
    press("Tab")
    assert person.focused() == "Skip to the content"
    press("Enter")
    assert person.focused() == "main"
    press("Tab")
    write("1000")
    press("Enter")
    person.sees_live()
    expect(person.page.locator("#account-title")).to_be_focused()
    press("Tab")  # the side
    press("ArrowRight")
    expect(person.page.get_by_role("radio", name="Sell")).to_be_checked()
    press("ArrowLeft")
    for text in ("GBM", "10", "50"):
        press("Tab")
        write(text)
    press("Tab")
    assert person.focused() == "order-submit"
    press("Space")
    expect(person.row("GBM")).to_contain_text("Pending")
    expect(person.page.get_by_role("combobox", name="Issuer")).to_be_focused()
    for _ in range(4):
        press("Tab")
    assert person.focused() == "Cancel"
    press("Enter")
    expect(person.row("GBM")).to_contain_text("Cancelled")


def test_a_phone_shows_all_of_it_without_scrolling_sideways(
    opens: Opens, stack: Stack, client: Client
) -> None:
    person = opens(stack.url, viewport=PHONE, has_touch=True, is_mobile=True)
    person.go()
    assert _overflow(person) <= 0
    person.follow(client.open_account("123456789012345678901234"))
    person.order("W" * 64, "1000000000000", "100000000000.12345678")
    expect(person.row("W" * 64)).to_contain_text("Executed")
    person.order("GBM", "900000000000", "1000000000000")
    expect(person.row("GBM")).to_contain_text("Not enough cash")
    assert _overflow(person) <= 0
    assert _is_seen(person, "#blotter-rows tr:first-child .badge")


def _overflow(person: Person) -> int:
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(person.page.evaluate(wide))


def _is_seen(person: Person, selector: str) -> bool:
    box = person.page.locator(selector).bounding_box()
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def test_older_orders_are_fetched_when_asked_for(person: Person, client: Client) -> None:
    account = client.open_account(10**6)
    for number in range(53):
        client.order(account, total_shares=number + 1, share_price=1)
    client.all_settled([account], 60)
    person.follow(account)
    person.sees_rows(50)
    person.page.get_by_role("button", name="Older orders").click()
    person.sees_rows(53)
    expect(person.page.locator("#older")).to_be_hidden()
    ids = person.page.locator("#blotter-rows tr").evaluate_all(
        "rows => rows.map((row) => row.dataset.order)"
    )
    assert ids == [order["id"] for order in reversed(client.orders(account))]


@pytest.fixture(scope="module")
def guarded(engines: Engines) -> Iterator[Stack]:
    """A stack that asks for keys."""
    env = {"ACCESS_KEYS": "required", "WORKER_PROCESSES": "1"}
    with Stack(engines, api_processes=1, workers=1, env=env) as running:
        yield running


def make_key(stack: Stack, *scope: str) -> str:
    done = subprocess.run(
        commands.ops("keys", "create", "--name", "a test's", *scope),
        env=stack.env,
        cwd=commands.ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_a_key_is_asked_for_kept_in_the_tab_and_forgotten(opens: Opens, guarded: Stack) -> None:
    person = opens(guarded.url)
    person.go()
    dialog = person.page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("textbox", name="Key").fill("op_live_0123456789ab.wrong")
    dialog.get_by_role("button", name="Use this key").click()
    person.page.get_by_role("textbox", name="Cash").fill("1000")
    person.page.get_by_role("button", name="Open the account").click()
    expect(dialog).to_contain_text("The key is not good")

    key = make_key(guarded, "--all-accounts")
    dialog.get_by_role("textbox", name="Key").fill(key)
    dialog.get_by_role("button", name="Use this key").click()
    account = person.open_account("1000")
    person.sees_live()
    person.order("GBM", "2", "50")
    expect(person.row("GBM")).to_contain_text("Executed")
    person.page.reload()
    person.sees_live()
    person.sees_rows(1)
    assert person.page.evaluate("[...Object.values(localStorage)].length") == 0
    assert key not in person.page.url

    person.page.get_by_role("button", name="Access key").click()
    dialog.get_by_role("button", name="Forget it").click()
    expect(person.page.get_by_role("dialog")).to_be_visible()
    assert person.page.evaluate("sessionStorage.getItem('orders.key')") is None
    answer = requests.get(f"{guarded.url}/v1/accounts/{account}", timeout=5)
    assert answer.status_code == 401


def test_a_key_that_may_not_open_accounts_is_told_so(opens: Opens, guarded: Stack) -> None:
    person = opens(guarded.url)
    person.go()
    dialog = person.page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Key").fill(make_key(guarded, "--account", "77"))
    dialog.get_by_role("button", name="Use this key").click()
    person.page.get_by_role("textbox", name="Cash").fill("1000")
    person.page.get_by_role("button", name="Open the account").click()
    expect(person.page.locator("#open-form .form-error")).to_contain_text("Your key may not do")
