"""Which problems the API answers with: each status, its stable codes and when they come."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from api.problems import FIELD_ERRORS_MAX, PROBLEM_TYPE, FieldError, Problem, document

Json = dict[str, Any]

CODES: Final[Mapping[int, Mapping[str, str]]] = {
    400: {
        "MALFORMED_BODY": "the body cannot be read, names a field twice, or is cut off",
        "MALFORMED_REQUEST": "no HTTP that can be read, or a query that is not percent-encoded",
        "INVALID_IDEMPOTENCY_KEY": "the Idempotency-Key is empty, too long or not printable",
    },
    401: {
        "KEY_REQUIRED": "no access key was sent",
        "KEY_REFUSED": "the access key is unknown, expired or revoked",
    },
    403: {
        "FORBIDDEN": "the key is good, but not for this",
        "NETWORK_DENIED": "the client's network may not call",
    },
    404: {
        "NOT_FOUND": "there is no such path",
        "ACCOUNT_NOT_FOUND": "there is no such account, or the key does not reach it",
        "ORDER_NOT_FOUND": "the account has no such order",
    },
    405: {"METHOD_NOT_ALLOWED": "`Allow` names the methods that the path takes"},
    406: {"NOT_ACCEPTABLE": "`Accept` asks for another version of the API"},
    408: {"REQUEST_TIMEOUT": "the request did not arrive in time"},
    409: {
        "ORDER_DECIDED": "the order is decided and cannot be cancelled any more",
        "IDEMPOTENCY_KEY_IN_FLIGHT": "a request with this Idempotency-Key is on its way",
    },
    413: {"REQUEST_ENTITY_TOO_LARGE": "the body, or its number of fields or lines, is too large"},
    414: {"REQUEST_URI_TOO_LONG": "the request line is too long"},
    415: {"UNSUPPORTED_MEDIA_TYPE": "another media type, not UTF-8, or encoded (gzip)"},
    417: {"EXPECTATION_FAILED": "an `Expect` other than `100-continue`"},
    422: {
        "INVALID_OPERATION": "fields or parameters are invalid; `errors` lists them all",
        "IDEMPOTENCY_KEY_REUSED": "the Idempotency-Key was used before with another body",
    },
    429: {
        "TOO_MANY_REQUESTS": "a limit of the key or of the client's address is reached",
        "TOO_MANY_STREAMS": "the account has too many streams of events",
    },
    431: {"REQUEST_HEADER_FIELDS_TOO_LARGE": "the headers are too large"},
    500: {"INTERNAL_ERROR": "a bug, or a stored item that is damaged"},
    503: {
        "STORE_UNAVAILABLE": "DynamoDB does not answer or is too busy",
        "OVERLOADED": "too many requests, streams or unknown keys at once",
    },
}
"""A unit test reads the API's source: what is raised there and what stands here is the same."""

ANYWHERE: Final = (
    "MALFORMED_REQUEST",
    "REQUEST_TIMEOUT",
    "REQUEST_ENTITY_TOO_LARGE",
    "REQUEST_URI_TOO_LONG",
    "EXPECTATION_FAILED",
    "REQUEST_HEADER_FIELDS_TOO_LARGE",
    "INTERNAL_ERROR",
    "OVERLOADED",
)
GATED: Final = ("NETWORK_DENIED", "NOT_ACCEPTABLE", "TOO_MANY_REQUESTS", "STORE_UNAVAILABLE")
KEYED: Final = ("KEY_REQUIRED", "KEY_REFUSED")
WITH_BODY: Final = ("MALFORMED_BODY", "UNSUPPORTED_MEDIA_TYPE")
REPEATABLE: Final = (
    "INVALID_IDEMPOTENCY_KEY",
    "IDEMPOTENCY_KEY_IN_FLIGHT",
    "IDEMPOTENCY_KEY_REUSED",
)

_WITH_RETRY_AFTER: Final = (429, 503)
_RETRIED_CODES: Final = ("IDEMPOTENCY_KEY_IN_FLIGHT",)

PROBLEM_SCHEMA: Final[Json] = {
    "type": "object",
    "description": "What is wrong with a request (RFC 9457). Programs look at `code`.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"const": "about:blank"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {"enum": sorted({code for codes in CODES.values() for code in codes})},
        "detail": {"type": "string", "description": "For people; may change."},
        "errors": {
            "type": "array",
            "description": "All invalid fields.",
            "minItems": 1,
            "maxItems": FIELD_ERRORS_MAX,
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "pattern": "^/",
                        "description": "A JSON pointer (RFC 6901) into the body, or `/` and the"
                        " parameter's name.",
                    },
                    "detail": {"type": "string"},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}


class ProblemResponses:
    """Collects the error responses that operations name, each set of codes once."""

    def __init__(self) -> None:
        """Begin with none."""
        self.components: dict[str, Json] = {}

    def of(self, codes: Iterable[str]) -> dict[str, Json]:
        """References to the responses with ``codes``, by status."""
        wanted = set(codes)
        unknown = wanted - {code for known in CODES.values() for code in known}
        if unknown:
            raise KeyError(f"no such codes: {', '.join(sorted(unknown))}")
        return {
            str(status): self._reference(status, own)
            for status, known in CODES.items()
            if (own := [code for code in known if code in wanted])
        }

    def _reference(self, status: int, codes: list[str]) -> Json:
        name = f"{status}.{'-'.join(codes)}"
        self.components.setdefault(name, _response(status, codes))
        return {"$ref": f"#/components/responses/{name}"}


def _response(status: int, codes: list[str]) -> Json:
    return {
        "description": "; ".join(f"`{code}`: {CODES[status][code]}" for code in codes),
        "headers": _headers(status, codes),
        "content": {
            PROBLEM_TYPE: {
                "schema": {
                    "allOf": [
                        {"$ref": "#/components/schemas/Problem"},
                        {"properties": {"status": {"const": status}, "code": {"enum": codes}}},
                    ]
                },
                "examples": {code: {"value": _example(status, code)} for code in codes},
            }
        },
    }


def _headers(status: int, codes: list[str]) -> Json:
    names = ["X-Request-Id", "RateLimit-Policy", "RateLimit"]
    if status in _WITH_RETRY_AFTER or any(code in _RETRIED_CODES for code in codes):
        names.append("Retry-After")
    if status == HTTPStatus.UNAUTHORIZED:
        names.append("WWW-Authenticate")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        names.append("Allow")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _example(status: int, code: str) -> Json:
    errors = (FieldError("/total_shares", "must be between 1 and 1000000000000"),)
    is_invalid = code == "INVALID_OPERATION"
    detail = CODES[status][code].replace("`", "")
    sentence = detail[0].upper() + detail[1:] + "."
    shown = Problem(status, code, sentence, errors=errors if is_invalid else ())
    return document(shown)
