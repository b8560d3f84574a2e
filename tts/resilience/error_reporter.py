"""What a failed request means beyond the speech that met it: for the circuit, the administrators and the voice."""

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

REPORT_INTERVAL_S = 60.0  # an incident that this process has reported is not written again so soon

log = structlog.get_logger(__name__)


class ErrorReporter:
    """One for each process. `own` runs work in the background: nobody who speaks waits for a report."""

    def __init__(self, circuit: CircuitBreaker, own: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        self._circuit = circuit
        self._spawn = own
        self._last_reports: dict[tuple[str, str], float] = {}

    def report_failure(
        self, error: ProviderError, rung: Strategy, conversation: uuid.UUID | None, voice: uuid.UUID
    ) -> None:
        """A request failed. Logged with what the provider needs to find it, never with the text."""
        metrics.PROVIDER_ERRORS.labels(type(error).__name__, rung.value).inc()
        log.warning(
            "speech.request_failed",
            error=type(error).__name__,
            code=error.code,
            status=error.status,
            request_id=error.request_id,
            trace_id=error.trace_id,
            rung=rung.value,
            conversation=str(conversation),
        )
        kind = incident_kind(error)
        if kind is not None:
            self._report_incident(incidents.Kind(kind), str(voice) if kind == "voice" else "", error.support_details)

    def report_exhausted(self, error: ProviderError, since: float) -> None:
        """No request for a segment that was wanted at `since` (monotonic seconds) has helped; `error` was the last."""
        if self._circuit.record_failure(error, since):
            self._spawn(self._circuit.publish_open(since))

    def report_over_budget(self, patient: uuid.UUID) -> None:
        """Their monthly budget has no room for what was to be said."""
        self._report_incident(incidents.Kind.BUDGET, str(patient), f"Patient {patient}.")

    def report_no_voice(self, conversation: uuid.UUID | None) -> None:
        """A patient heard nothing at all: neither the provider nor this server could speak."""
        log.error("speech.no_voice", conversation=str(conversation))
        self._report_incident(incidents.Kind.NO_VOICE, "", "the offline voice failed twice")

    def _report_incident(self, kind: incidents.Kind, key: str, detail: str) -> None:
        now = time.monotonic()
        if now - self._last_reports.get((kind, key), -REPORT_INTERVAL_S) >= REPORT_INTERVAL_S:
            self._last_reports[kind, key] = now
            self._spawn(run_in_db_thread(record_incident, kind, key, detail))


def record_incident(kind: incidents.Kind, key: str, detail: str) -> None:
    """For administrators; `key` is the voice's id where a voice is the trouble, which is then gone for everybody."""
    if kind == incidents.Kind.VOICE:
        usable = Voice.objects.filter(pk=key, state=Voice.State.USABLE)
        usable.update(state=Voice.State.GONE)
    incidents.open_incident(kind, key, detail)
