"""Traces to a collector of OpenTelemetry: HTTP requests, tasks, speeches, and requests to the provider.

A span is exported with the attributes that `span_exporter` lists only. It has no address, no header, and no text
of an exception. The library reads its other variables itself, such as OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME and
OTEL_TRACES_SAMPLER.
"""

import os
import sys

from voicecare.core import tracing

MIDDLEWARE_POSITION = 2  # after the answers to health checks, and inside of what turns errors of REST calls into JSON

# They are no part of requirements.txt: if they are installed, redis-py loads a part of them in every process.
MISSING = "OTEL_EXPORTER_OTLP_ENDPOINT needs more packages: pip install -r requirements-traces.txt"


def set_up(endpoint: str) -> None:
    """Send spans to this address from now on. Does nothing if it is empty."""
    if not endpoint:
        return
    os.environ.setdefault("OTEL_SERVICE_NAME", "voicecare")
    try:
        from opentelemetry import propagate, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.instrumentation.django import DjangoInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from voicecare.observability.span_exporter import SafeSpanExporter
    except ImportError:
        sys.exit(f"voicecare cannot start. {MISSING}")

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(SafeSpanExporter(OTLPSpanExporter())))
    trace.set_tracer_provider(provider)
    propagate.set_global_textmap(TraceContextTextMapPropagator())  # without the baggage of clients
    DjangoInstrumentor().instrument(middleware_position=MIDDLEWARE_POSITION)
    CeleryInstrumentor().instrument()
    AioHttpClientInstrumentor().instrument()
    tracing.enable(provider.get_tracer("voicecare"))
