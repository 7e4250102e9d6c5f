"""Logs: one JSON line for each event, ours and the libraries', on standard error."""

import logging
import sys
from typing import Any

import structlog

_STEPS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure_logs(level: int = logging.INFO, libraries: int = logging.WARNING) -> None:
    """Write our events of ``level`` and above, and the libraries' of theirs, as lines of JSON."""
    structlog.configure(
        processors=[*_STEPS, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_STEPS,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=libraries, handlers=[handler], force=True)


def get_logger(name: str) -> Any:
    """A logger that says where an event came from."""
    return structlog.get_logger(module=name)
