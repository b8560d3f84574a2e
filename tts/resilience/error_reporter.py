"""Reports failed requests: in the log and the metrics, as incidents, and to the outage detector.

If the provider refuses a voice, it is asked in the background whether it still has this voice. If it no longer has it,
the voice is marked as gone, so that no new conversation uses it (`usage.alerts.lost_voices`).
"""

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from tts.resilience.circuit_breaker import CircuitBreaker
from tts.resilience.outage_detector import OutageDetector
from tts.resilience.retry_policy import Strategy, incident_kind
from usage import clinic_budgets
from usage.alerts import incidents, lost_voices
from usage.alerts.voices import default_voice
from usage.clinic_budgets import Refusal
from usage.provider_state import access
from voicecare.core import metrics
from voicecare.core.database import run_in_db_thread
from voicecare.providers.errors import ProviderError

REPORT_INTERVAL_S = 60.0  # one process writes the same incident at most once in this time

log = structlog.get_logger(__name__)


class ErrorReporter:
    """Reports errors of speech. Each process has one.

    `spawn` runs work in the background, so that no speech waits for a report.
    """

    def __init__(self, circuit: CircuitBreaker, spawn: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        self.outages = OutageDetector(circuit, spawn)
        self.access_refused_at = -math.inf
        """When the provider last refused our key, plan or permissions, in seconds of `time.monotonic`."""
        self._spawn = spawn
        self._last_reports: dict[tuple[str, str], float] = {}
        self._voice_check = asyncio.Lock()  # one check at a time, because each occupies a database thread

    def report_failure(
        self, error: ProviderError, strategy: Strategy, conversation_id: uuid.UUID | None, voice_id: uuid.UUID
    ) -> None:
        """Report a failed request.

        The log has the ids with which the provider's support can find the request, never its text.
        """
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
        self.outages.request_failed(error)
        kind = incident_kind(error)
        if kind == incidents.Kind.VOICE:
            if self._is_due(kind, str(voice_id)):
                self._spawn(self._check_voice(voice_id, error))
        elif kind == incidents.Kind.ACCESS:
            self.access_refused_at = time.monotonic()
            if self._is_due(kind, ""):
                self._spawn(run_in_db_thread(access.report_refused, error))
        elif kind is not None:
            self._report_incident(incidents.Kind(kind), "", error.support_details)

    def report_over_budget(self, patient_id: uuid.UUID) -> None:
        """Report that a speech would exceed the patient's monthly budget."""
        self._report_incident(incidents.Kind.BUDGET, str(patient_id), f"Patient {patient_id}.")

    def report_clinic_over_budget(self, clinic_id: uuid.UUID, refusal: Refusal) -> None:
        """Report that a speech would exceed a budget of the patient's clinic."""
        if self._is_due(incidents.Kind.BUDGET, str(clinic_id)):
            self._spawn(run_in_db_thread(clinic_budgets.report_exceeded, clinic_id, refusal))

    def report_no_voice(self, conversation_id: uuid.UUID | None) -> None:
        """Report that neither the provider nor the offline voice could speak."""
        log.error("speech.no_voice", conversation=str(conversation_id))
        self._report_incident(incidents.Kind.NO_VOICE, "", "the offline voice failed twice")

    def report_no_usable_voice(self, conversation_id: uuid.UUID) -> None:
        """Report that a conversation starts in the offline voice because the provider has no voice for it."""
        log.error("speech.no_usable_voice", conversation=str(conversation_id))
        if self._is_due(incidents.Kind.NO_USABLE_VOICE, ""):
            self._spawn(run_in_db_thread(default_voice.check))

    async def _check_voice(self, voice_id: uuid.UUID, error: ProviderError) -> None:
        async with self._voice_check:
            await run_in_db_thread(lost_voices.check_refused, voice_id, error)

    def _report_incident(self, kind: incidents.Kind, key: str, detail: str) -> None:
        if self._is_due(kind, key):
            self._spawn(run_in_db_thread(incidents.open_incident, kind, key, detail))

    def _is_due(self, kind: str, key: str) -> bool:
        now = time.monotonic()
        is_due = now - self._last_reports.get((kind, key), -REPORT_INTERVAL_S) >= REPORT_INTERVAL_S
        if is_due:
            self._last_reports[kind, key] = now
        return is_due
