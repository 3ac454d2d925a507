"""Logging through structlog: one event a line, on standard error, secrets never in it.

What libraries log, and errors that nobody caught, take the same way: the same form, the same redaction.
Within a trace every line says which (``trace_id``, ``span_id``).
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Final, TextIO, cast

import structlog

from kernel import tracing
from kernel.errors import BadInput
from kernel.redaction import redact, show_uncaught

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
PLAIN: Final = frozenset({"level", "timestamp", "trace_id", "span_id"})
"""Keys that are ours: nothing of what is logged is in them."""


class _StandardError:
    """Standard error as it is when a line is written: whoever runs the process may exchange it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(level: str = "info", *, as_json: bool = False) -> None:
    """Set up structlog for this process; called once, by whoever starts it."""
    if level not in LEVELS:
        raise BadInput(f"{level!r} is not a log level", remedy=f"Use one of {', '.join(LEVELS)}")
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_trace,
        structlog.processors.format_exc_info,
        redact_event,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", _StandardError())),
        cache_logger_on_first_use=True,
    )
    _take_over_libraries(shared, renderer)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def add_trace(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Say in which trace this was logged."""
    found = tracing.current()
    if found is not None:
        event["trace_id"] = f"{found.trace_id:032x}"
        event["span_id"] = f"{found.span_id:016x}"
    return event


def redact_event(
    _: structlog.typing.WrappedLogger, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Take secrets out of a line: see `kernel.redaction`."""
    for name, value in event.items():
        if name not in PLAIN:
            event[name] = redact(name, value)
    return event


class OfLibraries(logging.StreamHandler[TextIO]):
    """What libraries log from a warning on."""


def _take_over_libraries(
    shared: list[structlog.typing.Processor], renderer: structlog.typing.Processor
) -> None:
    handler = OfLibraries(cast("TextIO", _StandardError()))
    handler.setLevel(logging.WARNING)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [item for item in root.handlers if not isinstance(item, OfLibraries)]
    root.addHandler(handler)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        show_uncaught(kind, error, trace)
        return
    structlog.get_logger("uncaught").critical(
        "an error that nobody foresaw", exc_info=(kind, error, trace)
    )


def _log_uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None:
        _log_uncaught(told.exc_type, told.exc_value, told.exc_traceback)
