"""Error reports to Sentry, or to a server that speaks its protocol.

A report is built from a list of what it may have, not by removing what it must not have, so a new version of the
library adds nothing. It has types of exceptions, frames without variables, the name of the log event with its fields,
and the route of a page or the name of a task. It has no text of an exception, no address, header, cookie, body, user or
argument of a task.
"""

import logging
from typing import TYPE_CHECKING, Any

from voicecare.observability.logs import library_message

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

FIELDS = ("event_id", "timestamp", "platform", "level", "logger", "release", "environment", "server_name", "sdk")
FRAME_FIELDS = (
    "filename",
    "abs_path",
    "function",
    "module",
    "lineno",
    "in_app",
    "pre_context",
    "context_line",
    "post_context",
)
SAFE_TRANSACTIONS = {"route", "task"}  # the others can be an address


def set_up(dsn: str) -> None:
    """Send errors to this address from now on. Does nothing if it is empty."""
    if not dsn:
        return
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.integrations.dedupe import DedupeIntegration
    from sentry_sdk.integrations.django import DjangoIntegration
    from sentry_sdk.integrations.logging import LoggingIntegration

    sentry_sdk.init(
        dsn=dsn,
        integrations=[
            DjangoIntegration(middleware_spans=False, signals_spans=False),
            CeleryIntegration(propagate_traces=False),
            LoggingIntegration(level=None, event_level=logging.ERROR),
            DedupeIntegration(),
            AtexitIntegration(callback=lambda pending, timeout: None),  # the default prints to standard error
        ],
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        trace_propagation_targets=[],
        before_send=safe_report,
    )


def safe_report(event: "Event", hint: "Hint") -> "Event":
    """Return a report with what it may have of this one."""
    source: Any = event
    safe: Any = {key: source[key] for key in FIELDS if key in source}
    if exceptions := source.get("exception", {}).get("values"):
        safe["exception"] = {"values": [_exception(value) for value in exceptions]}
    if source.get("transaction_info", {}).get("source") in SAFE_TRANSACTIONS:
        safe["transaction"] = source["transaction"]
        safe["transaction_info"] = {"source": source["transaction_info"]["source"]}
    if record := hint.get("log_record"):
        is_ours = isinstance(record.msg, dict)
        message = record.msg["event"] if is_ours else library_message(record.name, record.msg, record.args)
        safe["logentry"] = {"message": message}
        if is_ours:
            safe["extra"] = {key: value for key, value in record.msg.items() if key not in ("event", "exc_info")}
    report: Event = safe
    return report


def _exception(value: dict[str, Any]) -> dict[str, Any]:
    mechanism = value.get("mechanism") or {}
    frames = (value.get("stacktrace") or {}).get("frames", [])
    return {
        "type": value.get("type"),
        "module": value.get("module"),
        "value": "",
        "mechanism": {key: mechanism[key] for key in ("type", "handled") if key in mechanism},
        "stacktrace": {"frames": [{key: frame[key] for key in FRAME_FIELDS if key in frame} for frame in frames]},
    }
