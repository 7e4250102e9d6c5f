"""Pictures of the page for its documents, with SCREENSHOTS=folder; else to a folder of the test."""

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from local.processes import Process
from tests.browser.conftest import Opens
from tests.browser.person import DESKTOP, PHONE
from tests.integration.client import Client
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

PNG = b"\x89PNG\r\n"
ON_A_PHONE = {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("page", {"viewport": DESKTOP}),
        ("page-dark", {"viewport": DESKTOP, "color_scheme": "dark"}),
        ("page-phone", ON_A_PHONE),
        ("page-start", {"viewport": DESKTOP}),
    ],
)
def test_pictures_of_the_page(
    opens: Opens,
    stack: Stack,
    client: Client,
    paused_worker: Process,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    person = opens(stack.url, reduced_motion="reduce", **options)
    if name == "page-start":
        person.go()
    else:
        account = client.open_account("25000")
        paused_worker.resume()
        for changes in (
            {"issuer_name": "GBM", "total_shares": 120, "share_price": "50.5"},
            {"issuer_name": "AAPL", "total_shares": 40, "share_price": "212.25"},
            {"issuer_name": "NFLX", "total_shares": 30, "share_price": "690"},
            {"issuer_name": "GBM", "total_shares": 20, "share_price": "51.75", "operation": "SELL"},
        ):
            client.settled(client.order(account, **changes))
        paused_worker.pause()
        client.order(account, issuer_name="AMZN", total_shares=5, share_price="181.1")
        person.follow(account)
        expect(person.row("AMZN")).to_contain_text("Pending")
        person.fill("GBM", "50", "51.5")
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{name}.png"
    person.page.screenshot(path=picture, full_page=name == "page-phone")
    assert picture.read_bytes().startswith(PNG)
