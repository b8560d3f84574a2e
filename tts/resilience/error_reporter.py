"""Reports failed requests: in the log and the metrics, as incidents, and to the circuit breaker.

A voice that the provider refuses is marked as gone, so that no new conversation uses it.
"""

import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.retry_policy import Strategy, incident_kind
from usage.alerts import incidents
from voicecare.core import metrics
from voicecare.core.database import run_in_db_thread
from voicecare.patients.models import Voice
from voicecare.providers.errors import ProviderError

REPORT_INTERVAL_S = 60.0  # one process writes the same incident at most once in this time

log = structlog.get_logger(__name__)


class ErrorReporter:
    """There is one for each process. `spawn` runs work in the background, so that no speech waits for a report."""

    def __init__(self, circuit: CircuitBreaker, spawn: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        self._circuit = circuit
        self._spawn = spawn
        self._last_reports: dict[tuple[str, str], float] = {}

    def report_failure(
        self, error: ProviderError, strategy: Strategy, conversation_id: uuid.UUID | None, voice_id: uuid.UUID
    ) -> None:
        """Report a failed request. The log has what the provider's support needs to find it, never the text."""
        metrics.PROVIDER_ERRORS.labels(type(error).__name__, strategy.value).inc()
        log.warning(
            "speech.request_failed",
            error=type(error).__name__,
            code=error.code,
            status=error.status,
            request_id=error.request_id,
            trace_id=error.trace_id,
            strategy=strategy.value,
            conversation=str(conversation_id),
        )
        kind = incident_kind(error)
        if kind is not None:
            self._report_incident(incidents.Kind(kind), str(voice_id) if kind == "voice" else "", error.support_details)

    def report_exhausted(self, error: ProviderError, since: float) -> None:
        """Report that all requests for a segment that was needed at `since` (monotonic seconds) have failed.

        `error` is the last one.
        """
        if self._circuit.record_failure(error, since):
            self._spawn(self._circuit.publish_open(since))

    def report_over_budget(self, patient_id: uuid.UUID) -> None:
        """Report that the patient's monthly budget has no room for a speech."""
        self._report_incident(incidents.Kind.BUDGET, str(patient_id), f"Patient {patient_id}.")

    def report_no_voice(self, conversation_id: uuid.UUID | None) -> None:
        """Report that neither the provider nor the offline voice could speak."""
        log.error("speech.no_voice", conversation=str(conversation_id))
        self._report_incident(incidents.Kind.NO_VOICE, "", "the offline voice failed twice")

    def _report_incident(self, kind: incidents.Kind, key: str, detail: str) -> None:
        now = time.monotonic()
        if now - self._last_reports.get((kind, key), -REPORT_INTERVAL_S) >= REPORT_INTERVAL_S:
            self._last_reports[kind, key] = now
            self._spawn(run_in_db_thread(record_incident, kind, key, detail))


def record_incident(kind: incidents.Kind, key: str, detail: str) -> None:
    """Open an incident. For the kind `voice`, `key` is the voice's id, and the voice is marked as gone for everyone."""
    if kind == incidents.Kind.VOICE:
        Voice.objects.filter(pk=key, state=Voice.State.USABLE).update(state=Voice.State.GONE)
    incidents.open_incident(kind, key, detail)
