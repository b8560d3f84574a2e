"""Exports spans without what could be personal. Imported only if traces are configured."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext
from opentelemetry.trace.status import Status

ATTRIBUTES = frozenset(
    {
        *("http.method", "http.request.method", "http.status_code", "http.response.status_code", "http.route"),
        *("http.scheme", "url.scheme", "net.peer.name", "net.peer.port", "server.address", "server.port"),
        *("celery.action", "celery.state", "celery.task_name", "celery.retries"),
        *("messaging.message.id", "messaging.message_id", "messaging.destination", "error.type"),
    }
)
OWN_PREFIX = "voicecare."


class SafeSpanExporter(SpanExporter):
    """Passes spans on to another exporter: without events, links, descriptions, and attributes that are not listed."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_safe(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _safe(span: ReadableSpan) -> ReadableSpan:
    attributes = span.attributes or {}
    return ReadableSpan(
        name=span.name,
        context=_without_state(span.context),
        parent=_without_state(span.parent),
        resource=span.resource,
        attributes={k: v for k, v in attributes.items() if k in ATTRIBUTES or k.startswith(OWN_PREFIX)},
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _without_state(context: SpanContext | None) -> SpanContext | None:
    """The state of a trace comes from the client, in a header."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)
