"""The page's files as they are served: which, as what, and what a browser is told of them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import api.routes.page as module
from tests.unit.api.parts import Api, problem_of

FOLDER = Path(module.__file__).parents[1] / "web"
PATHS = ["/", *(f"/web/{name}" for name in module.CONTENT_TYPES if name != module.INDEX)]


@pytest.mark.parametrize("path", PATHS)
def test_every_file_is_served_under_the_same_strict_rules(api: Api, path: str) -> None:
    answer = api.http.get(path)
    assert answer.status_code == 200
    headers = answer.headers
    policy = dict(
        rule.partition(" ")[::2] for rule in headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-cache"
    assert headers["Content-Type"] == module.CONTENT_TYPES[path.rpartition("/")[2] or "index.html"]


def test_all_files_of_the_folder_are_served_and_no_others() -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(module.CONTENT_TYPES)


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_is_held_already_is_not_sent_again(api: Api, path: str) -> None:
    answer = api.http.get(path)
    again = api.http.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == answer.headers["ETag"]
    assert again.headers["Content-Security-Policy"] == answer.headers["Content-Security-Policy"]
    other = api.http.get(path, headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.data) == (200, answer.data)


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web",
        "/web/app.py",
        "/web/index.html",
        "/web/../app.py",
        "/web/..%2fapp.py",
        "/web/%2e%2e/app.py",
        "/web/..%5capp.py",
        "/web/%00page.js",
        "/web/page.js/",
        "/web//page.js",
        "/web/PAGE.JS",
        "//web/page.js",
        "/index.html",
        "/favicon.ico",
    ],
)
def test_no_other_path_leads_to_a_file(api: Api, path: str) -> None:
    problem_of(api.http.get(path), 404, "NOT_FOUND")


def test_nothing_but_get_is_taken(api: Api) -> None:
    assert api.http.head("/").status_code == 200
    for path in ("/", "/web/page.js"):
        problem_of(api.http.post(path, json={}), 405, "METHOD_NOT_ALLOWED")


def test_the_page_is_open_and_says_that_keys_are_asked_for(make_api: Callable[..., Api]) -> None:
    closed, opened = make_api(access_keys="required"), make_api()
    assert b'data-keys="required"' in closed.http.get("/").data
    assert b'data-keys="off"' in opened.http.get("/").data
    tags = {one.http.get("/").headers["ETag"] for one in (closed, opened)}
    assert len(tags) == 2
    assert closed.http.get("/web/page.js").status_code == 200


def test_nothing_is_loaded_from_elsewhere_and_no_text_becomes_markup() -> None:
    for file in FOLDER.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"//\w", text), file.name
        if file.suffix == ".js":
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
            assert not re.search(r"parseFloat|toFixed", text), file.name
        if file.suffix == ".html":
            assert not re.search(r"\sstyle=|\son[a-z]+=|<style|<script>", text)


def test_each_file_that_another_one_names_is_served() -> None:
    named = set(re.findall(r'"/web/([^"]+)"', (FOLDER / module.INDEX).read_text()))
    for file in FOLDER.glob("*.js"):
        named |= set(re.findall(r'from "\./([^"]+)"', file.read_text()))
    assert named == set(module.CONTENT_TYPES) - {module.INDEX}
