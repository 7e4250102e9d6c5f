"""axe-core on every view, light and dark, wide and narrow: no violations, no exceptions."""

from typing import Any

import pytest
from playwright.sync_api import expect

from local.processes import Process
from tests.browser.browser import AXE
from tests.browser.conftest import Opens
from tests.browser.person import DESKTOP, PHONE, Person
from tests.integration.client import Client
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

RULES_MIN = 20


def violations(person: Person) -> list[str]:
    """What axe-core finds, rules of best practice included."""
    person.page.evaluate(AXE.read_text())
    found: dict[str, Any] = person.page.evaluate("() => axe.run(document)")
    assert len(found["passes"]) >= RULES_MIN, "axe-core did not look"
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    opens: Opens,
    stack: Stack,
    client: Client,
    paused_worker: Process,
    viewport: dict[str, int],
    scheme: str,
) -> None:
    # axe writes what it found into the page's own world, which the page's policy would refuse.
    options = {"viewport": viewport, "color_scheme": scheme, "reduced_motion": "reduce"}
    person = opens(stack.url, bypass_csp=True, **options)
    person.go()
    assert violations(person) == []

    account = client.open_account(1000)
    person.follow(account)
    expect(person.page.locator("#blotter-empty")).to_be_visible()
    assert violations(person) == []

    client.order(account, total_shares=3)
    client.order(account, issuer_name="AAPL", total_shares=10**6)
    paused_worker.resume()
    person.page.reload()
    expect(person.row("AAPL")).to_contain_text("Rejected")
    expect(person.page.locator("#positions-rows")).to_contain_text("GBM")
    paused_worker.pause()
    person.order("GBM", "4", "50")
    expect(person.row("Pending")).to_be_visible()
    person.order("", "x", "y")
    expect(person.page.locator("#order-issuer-error")).to_be_visible()
    assert violations(person) == []

    person.go(999_999)
    expect(person.page.locator("#account-trouble")).to_be_visible()
    person.page.evaluate("document.getElementById('key-dialog').showModal()")
    assert violations(person) == []


def test_motion_stops_where_it_is_not_wanted(opens: Opens, stack: Stack) -> None:
    person = opens(stack.url, reduced_motion="reduce")
    person.go()
    moving = (
        "() => [...document.querySelectorAll('*')].filter((one) =>"
        " getComputedStyle(one).animationName !== 'none').length"
    )
    assert person.page.evaluate(moving) == 0
