"""Distinguishes an outage of the provider from a text that the provider cannot speak.

All requests for one segment can fail because of its text alone. That says nothing about the provider, even if many
people send the text many times. Each of three observations is evidence of an outage, if no request has succeeded since
the segment was needed:

1. A call that the provider does not bill, such as its list of models, got no response either. The call is made as soon
   as a request gets no response. So its result is known when the retry and the backup voice have failed, too.
2. A second, different text got no response at all.
3. The provider cannot speak a text that is known to be speakable: the probe fails, too.
"""

import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, Protocol

import structlog

from tts.resilience.circuit_breaker import CircuitBreaker, is_outage
from tts.text.segmenter import normalise
from voicecare.providers.errors import ProviderError

SAME_FAILURE_S = 10.0  # a text that has failed alone is not probed for again in this time
OTHER_TEXT_WITHIN_S = 30.0  # two failures that are further apart are not one outage

log = structlog.get_logger(__name__)


class OutageProbe(Protocol):
    """Requests that show whether the provider works. Both methods raise ProviderError if it does not."""

    async def check(self) -> None:
        """Make a call to the provider that costs nothing."""

    async def speak(self, *, avoid: str) -> None:
        """Request a text that is known to be speakable, within a time limit.

        The text differs from `avoid`, the text that has just failed. Otherwise the probe could fail for the same
        reason.
        """


class _Failure(NamedTuple):
    """A text for which all requests have failed. Only its hash is kept.

    `at` is the time of the failure (monotonic seconds).
    """

    text_hash: int
    at: float
    is_unanswered: bool


class OutageDetector:
    """Opens the circuit when there is evidence of an outage. Each process has one.

    `spawn` runs work in the background. The runtime sets `probe`. Without a probe, only the second observation of the
    module opens the circuit.
    """

    def __init__(self, circuit: CircuitBreaker, spawn: Callable[[Coroutine[Any, Any, Any]], None]) -> None:
        self.probe: OutageProbe | None = None
        self._circuit = circuit
        self._spawn = spawn
        self._is_checking = self._is_probing = False
        self._unreachable_at = -1.0  # when a free call failed for the last time
        self._last_failure = _Failure(0, -OTHER_TEXT_WITHIN_S, False)
        self._failed_alone = _Failure(0, -SAME_FAILURE_S, False)

    def request_failed(self, error: ProviderError) -> None:
        """Report one failed request. If it got no response, a free call is made in the background."""
        if error.is_unanswered and self.probe is not None and not self._is_checking and not self._circuit.is_open:
            self._is_checking = True
            self._spawn(self._check(self.probe))

    def segment_failed(self, error: ProviderError, since: float, text: str) -> None:
        """Report that every request for this text has failed, the last one with `error`.

        The segment was needed at `since` (monotonic seconds). Opens the circuit if there is evidence of an outage.
        """
        if not is_outage(error) or self._circuit.is_open or self._circuit.has_succeeded_since(since):
            return
        failure = _Failure(hash(normalise(text)), time.monotonic(), error.is_unanswered)
        if self._unreachable_at > since:
            self._open(since)
            return
        if failure.text_hash == self._failed_alone.text_hash and failure.at - self._failed_alone.at < SAME_FAILURE_S:
            return
        previous, self._last_failure = self._last_failure, failure
        both_unanswered = (
            previous.is_unanswered
            and failure.is_unanswered
            and previous.text_hash != failure.text_hash
            and failure.at - previous.at < OTHER_TEXT_WITHIN_S
            and not self._circuit.has_succeeded_since(previous.at)
        )
        if both_unanswered:
            self._open(since)
        elif self.probe is not None and not self._is_probing:
            self._is_probing = True
            self._spawn(self._probe_for(self.probe, failure, error, since, text))

    async def _check(self, probe: OutageProbe) -> None:
        try:
            await probe.check()
        except ProviderError as error:
            if is_outage(error):
                self._unreachable_at = time.monotonic()
        finally:
            self._is_checking = False

    async def _probe_for(
        self, probe: OutageProbe, failure: _Failure, error: ProviderError, since: float, text: str
    ) -> None:
        """Find out whether the provider fails for this text only. If not, open the circuit."""
        try:
            await probe.speak(avoid=text)
        except ProviderError as probe_error:
            if is_outage(probe_error):
                self._open(since)
                return
        finally:
            self._is_probing = False
        self._failed_alone = failure._replace(at=time.monotonic())
        self._circuit.record_success()
        log.warning("circuit.text_failed_alone", error=type(error).__name__, code=error.code)

    def _open(self, since: float) -> None:
        if self._circuit.record_outage(since):
            self._spawn(self._circuit.publish_open(since))
