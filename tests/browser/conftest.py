"""A browser, and a stack whose page it opens."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from local.processes import Process
from tests.browser.browser import ARGUMENTS, NoBrowser, find_chromium
from tests.browser.person import DESKTOP, Person
from tests.integration.client import Client
from tests.stack import Engines, Stack

WAIT_MS = 10_000

Opens = Callable[..., Person]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; without one they fail, and say why."""
    try:
        program, environment = find_chromium()
    except NoBrowser as error:
        pytest.exit(str(error), returncode=1)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=ARGUMENTS, env=dict(environment), timeout=60_000
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def stack(engines: Engines) -> Iterator[Stack]:
    with Stack(engines, api_processes=1, workers=1, env={"WORKER_PROCESSES": "1"}) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Client:
    return Client(stack.url)


@pytest.fixture
def paused_worker(stack: Stack) -> Iterator[Process]:
    """The only worker: nothing is decided until it is resumed."""
    (worker,) = stack.workers
    worker.pause()
    yield worker
    worker.resume()


@pytest.fixture
def opens(chromium: Browser) -> Iterator[Opens]:
    """Opens a browser's window on an API's page, for a person with nothing remembered.

    At the end the page must have raised no error and broken none of its own rules.
    """
    windows: list[tuple[Any, Person]] = []

    def open_page(url: str, **options: Any) -> Person:
        context = chromium.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **options})
        context.set_default_timeout(WAIT_MS)
        person = Person(_watched(context.new_page()), url)
        windows.append((context, person))
        return person

    yield open_page
    for context, person in windows:
        faults = person.faults
        context.close()
        assert faults == [], "the page's own errors"


def _watched(page: Page) -> Page:
    # Before any script of the page: what the Content-Security-Policy stops is a fault.
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (event) =>"
        " console.error('policy: ' + event.violatedDirective + ' ' + event.blockedURI))"
    )
    return page


@pytest.fixture
def person(opens: Opens, stack: Stack) -> Person:
    return opens(stack.url)
