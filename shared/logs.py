"""Logs: one line for each event, ours and the libraries', on standard error."""

import logging
import re
import sys
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Final

import structlog

Step = Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]

_STEPS: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

TEXT_LENGTH_MAX: Final = 16_384
"""Characters of a text in a line: some errors quote whatever they stumbled over."""

# Nothing that is logged should hold one. Should it all the same, in an error of a library, say, it
# ends here.
_SECRETS: Final = (
    (re.compile(r"(op_live_[0-9a-f]{12})\.[A-Za-z0-9_-]{43}"), r"\1.***"),
    (re.compile(r"(\b[a-z]+://[^\s:/@]*):[^\s/@]+@"), r"\1:***@"),
)


def configure_logs(
    log_format: str = "json",
    level: int = logging.INFO,
    libraries: int = logging.WARNING,
    steps: Sequence[Step] = (),
) -> None:
    """Write our events of ``level`` and above, and the libraries' of theirs, as lines.

    Args:
        log_format: ``json``, or ``console`` for a person's eyes.
        level: of our own events.
        libraries: the level of all others.
        steps: what adds to each event, as structlog's processors do.
    """
    common = [*_STEPS, *steps]
    ending = _console() if log_format == "console" else _json()
    structlog.configure(
        processors=[*common, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(level=libraries, handlers=[handler], force=True)


def get_logger(name: str) -> Any:
    """A logger that says where an event came from."""
    return structlog.get_logger(module=name)


def _json() -> list[Any]:
    return [
        structlog.processors.format_exc_info,
        _within_bounds,
        structlog.processors.JSONRenderer(),
        _without_secrets,
    ]


def _console() -> list[Any]:
    renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return [_within_bounds, renderer, _without_secrets]


def _within_bounds(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str) and len(value) > TEXT_LENGTH_MAX:
            # Secrets first: half of one would not be known for what it is.
            event[name] = _without_secrets(_logger, _method, value)[:TEXT_LENGTH_MAX] + "..."
    return event


def _without_secrets(_logger: Any, _method: str, line: str) -> str:
    for secret, mask in _SECRETS:
        line = secret.sub(mask, line)
    return line
