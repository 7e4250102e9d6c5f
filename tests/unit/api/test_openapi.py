"""The document says what the code does: its routes, its codes, its fields, its page."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask

from api.access.needs import NEEDS
from api.openapi import swagger
from api.openapi.__main__ import written
from api.openapi.calls import CALLS
from api.openapi.document import build, path_of
from api.openapi.problems import CODES
from tests.unit.api.parts import Api

ROOT = Path(__file__).parents[3]
DEAD_LINKS = re.compile(r"https?://|//")

Json = dict[str, Any]

OF_THE_FRAMEWORK = {("NOT_FOUND", 404), ("METHOD_NOT_ALLOWED", 405)}
"""Codes that are made of the names of Werkzeug's exceptions."""


@pytest.fixture(name="app")
def _app(api: Api) -> Flask:
    return api.http.application


@pytest.fixture(name="shown")
def _shown(app: Flask) -> Json:
    return build(app.url_map, asks_keys=True)


def operations(shown: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in shown["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def resolved(shown: Json, part: Json) -> Json:
    while "$ref" in part:
        found: Any = shown
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def test_every_route_is_in_the_document_and_nothing_else(app: Flask, shown: Json) -> None:
    routes = {
        (path_of(rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {(path, method) for path, method, _ in operations(shown)} == routes


def test_every_call_that_is_described_has_a_route_and_a_need(app: Flask) -> None:
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert set(CALLS) <= endpoints
    assert set(CALLS) == set(NEEDS)


def test_the_document_in_docs_is_current(shown: Json) -> None:
    kept = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert kept == written(shown), "run `make openapi`"


def test_paths_name_the_parameters_that_they_hold(shown: Json) -> None:
    for path, _, operation in operations(shown):
        parts = [resolved(shown, part) for part in operation["parameters"]]
        named = {part["name"] for part in parts if part["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), path


def test_operations_have_names_of_their_own_and_links_lead_to_them(shown: Json) -> None:
    names = [operation["operationId"] for *_, operation in operations(shown)]
    assert len(names) == len(set(names))
    for link in shown["components"]["links"].values():
        assert link["operationId"] in names


def test_every_reference_leads_somewhere_and_every_component_is_used(shown: Json) -> None:
    text = json.dumps(shown)
    used = set(re.findall(r'"\$ref": "#/components/(\w+)/([^"]+)"', text))
    parts = {
        (kind, name)
        for kind, named in shown["components"].items()
        for name in named
        if kind != "securitySchemes"
    }
    # 405 is the answer to what the document does not name.
    assert used == parts - {("headers", "Allow")}


def test_the_codes_of_the_document_are_those_that_the_code_raises() -> None:
    raised = set(raised_codes()) | OF_THE_FRAMEWORK
    assert {(code, status) for status, known in CODES.items() for code in known} == raised


def raised_codes() -> Iterator[tuple[str, int]]:
    """Status and code of each ``Problem(...)`` in the API's source."""
    for file in (ROOT / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Problem":
                continue
            status, code = node.args[:2]
            if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                assert isinstance(status.value, int)
                yield str(code.value), status.value


def test_every_example_is_as_its_schema_says(shown: Json) -> None:
    checked = 0
    for path, _, operation in operations(shown):
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for part in parts:
            for media_type, content in resolved(shown, part).get("content", {}).items():
                for value in values(media_type, content):
                    schema = content["schema"]
                    is_stream = "contentSchema" in schema
                    checked += 1
                    require(shown, schema["contentSchema"] if is_stream else schema, value, path)
    assert checked > 100


def values(media_type: str, content: Json) -> Iterator[Any]:
    for example in content.get("examples", {}).values():
        if media_type == "application/x-ndjson":
            yield from map(json.loads, example["value"].splitlines())
        elif media_type != "text/event-stream":
            yield example["value"]


def require(shown: Json, schema: Json, value: Any, where: str) -> None:
    whole = {**schema, "components": shown["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    assert validator.is_valid(value), (where, value)


def test_every_call_shows_what_it_answers(shown: Json) -> None:
    for path, method, operation in operations(shown):
        for status, response in operation["responses"].items():
            for media_type, content in resolved(shown, response).get("content", {}).items():
                if media_type in ("application/json", "application/problem+json"):
                    is_document = path == "/openapi.json"
                    assert is_document or content["examples"], (path, method, status)


@pytest.mark.parametrize(
    ("changes", "schemes"),
    [
        ({"access_keys": "required"}, [{"bearer": []}, {"apiKey": []}]),
        ({"access_keys": "off"}, [{}, {"bearer": []}, {"apiKey": []}]),
    ],
)
def test_the_served_document_says_whether_keys_are_asked_for(
    make_api: Callable[..., Api], changes: Json, schemes: list[Json]
) -> None:
    served = make_api(**changes).http.get("/openapi.json")
    assert served.status_code == 200
    assert served.get_json()["paths"]["/v1/accounts"]["post"]["security"] == schemes
    assert served.get_json()["paths"]["/healthz"]["get"]["security"] == []


def test_the_document_is_not_sent_twice_to_who_has_it(api: Api) -> None:
    tag = api.http.get("/openapi.json").headers["ETag"]
    again = api.http.get("/openapi.json", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")


def test_calls_without_a_version_are_deprecated(shown: Json) -> None:
    old = shown["paths"]["/accounts"]["post"]
    assert old["deprecated"]
    assert "Deprecation" in old["responses"]["201"]["headers"]
    assert "deprecated" not in shown["paths"]["/v1/accounts"]["post"]


def test_the_page_loads_nothing_from_elsewhere(api: Api) -> None:
    page = api.http.get("/docs")
    assert page.status_code == 200
    assert page.content_type == "text/html; charset=utf-8"
    assert not DEAD_LINKS.search(page.text)
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == len(swagger.NAMES) + 1
    for name in loaded:
        answer = api.http.get(f"/{name}")
        assert answer.status_code == 200, name
        assert answer.data
        if name != "openapi.json":
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_may_run_no_script_but_its_own(api: Api) -> None:
    policy = api.http.get("/docs").headers["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    assert "<script>" not in swagger.HTML.decode()


@pytest.mark.parametrize(
    "name", ["index.html", "..%2f__init__.py", "VERSION", "oauth2-redirect.js"]
)
def test_the_page_has_no_other_files(api: Api, name: str) -> None:
    assert api.http.get(f"/docs/{name}").status_code == 404


def test_the_page_is_swagger_ui_for_openapi_3_1() -> None:
    bundle = swagger.asset("swagger-ui-bundle.js")
    assert bundle is not None
    assert b"OpenAPI31" in bundle.content or b"oas31" in bundle.content.lower()
