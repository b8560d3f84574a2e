"""One log format for our own events and for those of Django, Celery, daphne and other libraries.

Our own events have fields that never contain a name, a text or a token. The messages of libraries can: Django's have
paths, Celery's have errors of tasks, asyncio's have whole exceptions. So of a library's message only the first line of
its template is logged, with the numbers among its arguments. Text arguments are kept for the loggers in
`TRUSTED_LOGGERS`. Exceptions are logged without their texts (`tracebacks.describe`).
"""

import logging
import sys
import threading
from collections.abc import Mapping
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor

from voicecare.core import tracebacks

OWN_LOGGERS = ("voicecare", "tts", "usage", "cloning")
TRUSTED_LOGGERS = ("celery", "kombu", "daphne", "py.warnings")
UNTRUSTED_KEYS = {"exc", "traceback", "args", "kwargs", "return_value"}  # of celery.app.trace
HIDDEN = "..."

log = structlog.get_logger(__name__)


def configuration(log_format: str, level: str) -> dict[str, Any]:
    """Return the dictionary for `logging.config`. `log_format` is `plain` or `json`; `level` is that of our events."""
    is_json = log_format == "json"
    colors = not is_json and sys.stderr.isatty()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"daphne": {"()": _DaphneFilter}},
        "formatters": {
            "all": {
                "()": structlog.stdlib.ProcessorFormatter,
                "use_get_message": False,
                "pass_foreign_args": True,
                "foreign_pre_chain": [_describe_record, *_shared(is_json)],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _format_exception,
                    _put_first,
                    structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer(colors=colors),
                ],
            }
        },
        # Standard error, because some commands write data to their standard output.
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "all"}},
        "root": {"handlers": ["console"], "level": "WARNING"},
        "loggers": {
            **{name: {"level": level.upper()} for name in OWN_LOGGERS},
            "django": {"handlers": [], "level": "WARNING", "propagate": True},
            "django.request": {"level": "ERROR"},  # a warning for each 4xx says nothing that an operator can act on
            "django.server": {"handlers": [], "level": "INFO", "propagate": True},
            "daphne.server": {"level": "INFO", "filters": ["daphne"]},
            "celery": {"level": "INFO"},  # --loglevel of the command replaces it
        },
    }


def configure_structlog(log_format: str) -> None:
    """Send our events through `logging`, which adds them to those of the libraries."""
    logging.raiseExceptions = False  # the report of a failed log call would print its arguments
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            *_shared(log_format == "json"),
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            _make_record,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def log_uncaught_errors() -> None:
    """Log warnings, and exceptions that nothing catches, in the same format. For web, worker and beat.

    Python would print them with their texts. Commands keep that, because somebody reads their output.
    """
    logging.captureWarnings(True)
    sys.excepthook = lambda kind, error, trace: log.error("process.crashed", exc_info=error)
    threading.excepthook = lambda args: log.error("thread.crashed", exc_info=args.exc_value)
    sys.unraisablehook = lambda args: log.error("error.ignored", exc_info=args.exc_value)


def library_message(logger: str, template: object, arguments: object) -> str:
    """Return what may be logged of a library's message. See the docstring of this module.

    `template` and `arguments` are those of the log call: a format for `%`, and a tuple or one mapping.
    """
    if isinstance(template, BaseException):
        return tracebacks.name(template)
    first_line = str(template).strip().split("\n", 1)[0].replace("%r", "%s")
    is_trusted = any(logger == name or logger.startswith(f"{name}.") for name in TRUSTED_LOGGERS)
    safe: Any
    if isinstance(arguments, Mapping):
        safe = {key: _argument(value, is_trusted and key not in UNTRUSTED_KEYS) for key, value in arguments.items()}
    else:
        safe = tuple(_argument(value, is_trusted) for value in cast(tuple[object, ...], arguments or ()))
    try:
        return first_line % safe if safe else first_line
    except (TypeError, ValueError):  # the first line has fewer places than there are arguments
        return first_line


def _argument(value: object, is_trusted: bool) -> object:
    if isinstance(value, BaseException):
        return tracebacks.name(value)
    if isinstance(value, int | float) or (is_trusted and isinstance(value, str)):
        return value
    return HIDDEN


def _shared(is_json: bool) -> list[Processor]:
    time_format = "iso" if is_json else "%Y-%m-%d %H:%M:%S"
    return [structlog.stdlib.add_log_level, structlog.processors.TimeStamper(fmt=time_format, utc=True)]


def _make_record(logger: Any, name: str, event: EventDict) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
    """Return the arguments for `logging`. The record also has the exception, for error reports."""
    arguments, keywords = structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, name, event)
    return arguments, {**keywords, "exc_info": event.get("exc_info")}


def _describe_record(_: object, __: str, event: EventDict) -> EventDict:
    """Replace the message of a library by what may be logged of it, and add its logger, status and route."""
    record: logging.LogRecord = event["_record"]
    event["event"] = library_message(record.name, record.msg, event.pop("positional_args"))
    event["logger"] = record.name
    if hasattr(record, "status_code"):
        event["status"] = record.status_code
    if match := getattr(getattr(record, "request", None), "resolver_match", None):
        event["route"] = match.route
    return event


def _format_exception(_: object, __: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = tracebacks.describe(error)
    return event


def _put_first(_: object, __: str, event: EventDict) -> EventDict:
    return {**{key: event.pop(key) for key in ("timestamp", "level", "event")}, **event}


class _DaphneFilter(logging.Filter):
    """Of what daphne says when it starts, keeps the address and the port. The rest are hints for its developers."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO or str(record.msg).startswith("Listening")
