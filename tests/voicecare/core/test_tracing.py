"""Our own spans."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from voicecare.core import tracing


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", None)
    tracing.enable(provider.get_tracer("trial"))
    return exporter


def test_a_span_has_the_attributes_that_are_set_when_it_ends(exporter: InMemorySpanExporter):
    with tracing.span("speech", {"voicecare.utterance_id": "u1"}) as attributes:
        attributes["voicecare.source"] = "live"
        attributes["voicecare.first_chunk_ms"] = None
    (span,) = exporter.get_finished_spans()
    assert span.name == "speech"
    assert dict(span.attributes or {}) == {"voicecare.utterance_id": "u1", "voicecare.source": "live"}


def test_an_exception_is_recorded_as_its_type_and_raised(exporter: InMemorySpanExporter):
    with pytest.raises(ValueError, match="secret"), tracing.span("speech", {}):
        raise ValueError("secret")
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {"error.type": "ValueError"}
    assert not span.events
    assert "secret" not in span.to_json()


def test_without_a_tracer_the_block_runs():
    assert tracing._tracer is None
    with tracing.span("speech", {}) as attributes:
        attributes["voicecare.source"] = "live"
