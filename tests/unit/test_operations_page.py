"""The operators' page tells of every event that the code logs and every command that there is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click

from ops.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
ACCESS_PAGE = (ROOT / "docs" / "access.md").read_text()
LEVELS = {"info", "warning", "error", "exception"}


def logged() -> Iterator[str]:
    for package in ("api", "worker", "shared"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="log"), attr=level),
                        args=[ast.Constant(value=str(event)), *_],
                    ) if level in LEVELS:
                        yield event


def test_every_event_of_the_log_is_explained() -> None:
    table = PAGE[PAGE.index("## Logs") : PAGE.index("## Flower")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    explained = set(re.findall(r"`(\w+)`", " ".join(rows)))
    events = set(logged())
    assert {"request", "decided", "queue"} <= events
    assert events - explained == set()
    assert explained - events == set()


def test_every_command_of_the_operators_is_explained() -> None:
    pages = PAGE + ACCESS_PAGE
    names = [
        f"{name} {inner}"
        for name, command in main.commands.items()
        for inner in (command.commands if isinstance(command, click.Group) else [""])
    ]
    assert len(names) > 8
    assert [one for one in names if not re.search(rf"(`|ops ){one.strip()}\b", pages)] == []


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    places = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links
    assert links - places == set()


def test_links_to_other_pages_lead_somewhere() -> None:
    for page, place in re.findall(r"\]\(([\w./-]+\.md)(?:#([^)]+))?\)", PAGE):
        found = (ROOT / "docs" / page).read_text()
        headings = re.findall(r"^#+ (.+)$", found, re.MULTILINE)
        places = {re.sub(r"[^a-z0-9 _-]", "", one.lower()).replace(" ", "-") for one in headings}
        assert not place or place in places, f"{page}#{place}"
