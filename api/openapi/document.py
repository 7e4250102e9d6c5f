"""The whole document, made from the routes of the application: none is left out, none invented."""

import re
from typing import Any, Final

from werkzeug.routing import Map, Rule

from api.access.needs import UNVERSIONED, is_unversioned
from api.access.versions import VERSION
from api.openapi.calls import CALLS
from api.openapi.operations import operation
from api.openapi.parts import headers, links, parameters, security_schemes
from api.openapi.problems import ProblemResponses
from api.openapi.schemas import schemas

Json = dict[str, Any]

OPENAPI_VERSION: Final = "3.1.1"

_VARIABLE: Final = re.compile(r"<(?:[a-z_]+:)?([a-z_]+)>")
_IMPLICIT_METHODS: Final = frozenset({"HEAD", "OPTIONS"})
_DESCRIPTION: Final = (
    "Orders are accepted at once and decided a moment later, in the sequence of their acceptance."
    " Poll the order, wait for it, or follow the account's events.\n\n"
    "Money is exact: sent as a number or a string, answered as a string. Unknown fields are"
    " ignored. Errors are RFC 9457 problem documents with a stable `code`. The paths without"
    " `/v1` are deprecated aliases. `HEAD` works wherever `GET` does."
)


def build(routes: Map, *, asks_keys: bool) -> Json:
    """The OpenAPI document of ``routes``; ``asks_keys``: the API asks for access keys."""
    problems = ProblemResponses()
    paths: dict[str, Json] = {}
    for rule in sorted(routes.iter_rules(), key=_sequence):
        methods = (rule.methods or set()) - _IMPLICIT_METHODS
        path = paths.setdefault(path_of(rule), {})
        for method in sorted(methods):
            path[method.lower()] = _operation(rule, problems, asks_keys=asks_keys)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "Order processor",
            "version": VERSION,
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("Accounts", "Orders", "Health", "Documentation")],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "parameters": parameters(),
            "headers": headers(),
            "links": links(),
            "responses": problems.components,
            "securitySchemes": security_schemes(),
        },
    }


def path_of(rule: Rule) -> str:
    """The rule's path as OpenAPI writes it: ``/accounts/{account_id}``."""
    return _VARIABLE.sub(r"{\1}", rule.rule)


def _sequence(rule: Rule) -> tuple[bool, int, str]:
    """As the calls are listed, those without a version last."""
    endpoint = rule.endpoint.removeprefix(UNVERSIONED)
    place = list(CALLS).index(endpoint) if endpoint in CALLS else len(CALLS)
    return is_unversioned(rule.endpoint), place, rule.rule


def _operation(rule: Rule, problems: ProblemResponses, *, asks_keys: bool) -> Json:
    endpoint = rule.endpoint.removeprefix(UNVERSIONED)
    shown = operation(endpoint, CALLS[endpoint], problems, asks_keys=asks_keys)
    return _as_alias(shown) if is_unversioned(rule.endpoint) else shown


def _as_alias(shown: Json) -> Json:
    """The same call on a path without a version: its answers say that it is deprecated."""
    responses: dict[str, Json] = {}
    for status, response in shown["responses"].items():
        responses[status] = response if "$ref" in response else _deprecated(response)
    return {
        **shown,
        "operationId": f"{UNVERSIONED}{shown['operationId']}",
        "deprecated": True,
        "responses": responses,
    }


def _deprecated(response: Json) -> Json:
    names = {"Deprecation": "Deprecation", "Sunset": "Sunset"}
    added = {name: {"$ref": f"#/components/headers/{part}"} for name, part in names.items()}
    own = response["headers"]
    link = {} if "Link" in own else {"Link": {"$ref": "#/components/headers/Successor"}}
    return {**response, "headers": {**own, **added, **link}}
