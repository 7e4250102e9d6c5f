"""What a person does with the page, and what they see."""

import re
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, expect

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}

# The browser itself writes these for answers that say no and for a service that is away.
_BROWSERS_OWN = re.compile(r"Failed to load resource|net::ERR_")


class Person:
    """Looks at one page through its texts and labels, as a person does."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.expected: str | None = None
        """What a test provokes is no fault: a pattern."""
        self._heard_of: list[str] = []
        page.on("pageerror", lambda error: self._heard_of.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not _BROWSERS_OWN.search(message.text):
            self._heard_of.append(message.text)

    @property
    def faults(self) -> list[str]:
        """Errors of the page's own, and whatever its policy stopped."""
        if self.expected is None:
            return self._heard_of
        return [fault for fault in self._heard_of if not re.search(self.expected, fault)]

    # Doing

    def go(self, account: int | None = None) -> None:
        self.page.goto(self.url + "/" + ("" if account is None else f"#/accounts/{account}"))

    def follow(self, account: int) -> None:
        """Open an account and see it live."""
        self.go(account)
        self.sees_live()

    def open_account(self, cash: str) -> int:
        self.page.get_by_role("textbox", name="Cash").fill(cash)
        self.page.get_by_role("button", name="Open the account").click()
        heading = self.page.get_by_role("heading", name=re.compile(r"^Account \d+$"))
        expect(heading).to_be_visible()
        return int(heading.inner_text().removeprefix("Account "))

    def fill(self, issuer: str, shares: str, price: str, side: str = "Buy") -> None:
        self.page.get_by_role("radio", name=side).check(force=True)
        self.page.get_by_role("combobox", name="Issuer").fill(issuer)
        self.page.get_by_role("textbox", name="Shares").fill(shares)
        self.page.get_by_role("textbox", name="Price of a share").fill(price)

    def submit(self) -> None:
        self.page.get_by_role("button", name=re.compile("Place the (buy|sell) order")).click()

    def order(self, issuer: str, shares: str, price: str, side: str = "Buy") -> None:
        self.fill(issuer, shares, price, side)
        self.submit()

    # Seeing

    @property
    def rows(self) -> Locator:
        return self.page.locator("#blotter-rows tr")

    def row(self, text: str) -> Locator:
        return self.rows.filter(has_text=text)

    def cash_is(self, text: str) -> None:
        expect(self.page.locator("#cash")).to_have_text(text)

    def sees_live(self) -> None:
        expect(self.page.locator("#connection")).to_have_text("Live")

    def sees_rows(self, count: int) -> None:
        expect(self.rows).to_have_count(count)

    def focused(self) -> Any:
        return self.page.evaluate(
            "() => document.activeElement.id || document.activeElement.textContent.trim()"
        )
