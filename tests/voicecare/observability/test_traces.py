"""Traces: what an exporter gets of a span, and which spans there are."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from tests.voicecare.test_settings import run_code
from voicecare.observability.span_exporter import SafeSpanExporter
from voicecare.observability.traces import MISSING

CANARY = "xylophone-canary"


def test_a_span_is_exported_without_what_could_be_personal():
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(SafeSpanExporter(memory)))
    client = SpanContext(
        1, 2, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED), trace_state=TraceState([("client", CANARY)])
    )
    with provider.get_tracer("trial").start_as_current_span(
        "GET patients/<uuid:pk>/",
        context=set_span_in_context(NonRecordingSpan(client)),
        links=[Link(client, {"text": CANARY})],
    ) as span:
        span.set_attributes({"http.route": "patients/<uuid:pk>/", "http.target": f"/patients/?q={CANARY}"})
        span.set_attributes({"http.status_code": 200, "http.user_agent": CANARY, "voicecare.source": "live"})
        span.record_exception(ValueError(CANARY))
        span.set_status(Status(StatusCode.ERROR, CANARY))
    (exported,) = memory.get_finished_spans()
    assert CANARY not in exported.to_json()
    assert CANARY not in str(exported.context) + str(exported.parent)
    assert exported.name == "GET patients/<uuid:pk>/"
    assert dict(exported.attributes or {}) == {
        "http.route": "patients/<uuid:pk>/",
        "http.status_code": 200,
        "voicecare.source": "live",
    }
    assert exported.status.status_code is StatusCode.ERROR
    assert exported.parent is not None
    assert exported.parent.span_id == 2
    assert (exported.end_time or 0) >= (exported.start_time or 0) > 0


def test_without_the_packages_the_process_ends_with_one_line():
    code = """
import sys
sys.modules["opentelemetry"] = None
import voicecare.asgi
"""
    process = run_code(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert process.returncode == 1
    assert process.stderr == f"voicecare cannot start. {MISSING}\n"
