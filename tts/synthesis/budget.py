"""What one speech may ask the provider for out of its patient's monthly budget (`usage.budgets`)."""

import asyncio
import time
import uuid
from collections.abc import Callable, Container, Coroutine
from datetime import date
from itertools import accumulate
from typing import Any

import structlog
from django.db import Error

from tts.conversations.context import SpeechContext
from tts.resilience.error_reporter import ErrorReporter
from tts.speech import Speech
from tts.text.segmenter import normalise, split
from tts.text.stream import Segment
from usage import budgets
from voicecare.core.database import run_in_db_thread

DATABASE_TIMEOUT_S = 3.0  # a patient is spared the silence of a database that is away

log = structlog.get_logger(__name__)


class BudgetReservation:
    """For patients without a budget it does nothing, and asks nobody.

    Taken when the first segment needs the provider: for all of a complete text that will not come from the cache, and
    segment by segment for one that is being written. A database that does not answer makes nobody silent: the speech
    goes on without a reservation, and the sweep counts it. `own` runs work in the background.
    """

    def __init__(
        self,
        speech: Speech,
        context: SpeechContext,
        trouble: ErrorReporter,
        own: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self._speech = speech
        self._patient_id = context.patient_id if context.has_budget else None
        self._error_reporter = trouble
        self._spawn = own
        self._month: date
        self._billed_before = speech.progress.characters
        self._reserved = 0
        self._reserved_at = time.monotonic()
        self._is_skipped = False
        self._reserve_task: asyncio.Task[bool] | None = None
        complete = speech.text_stream.complete and context.has_budget
        self._characters_after = (
            _remaining_characters(speech.text_stream.text, context.speech_settings.language, context.phrases)
            if complete
            else []
        )

    async def reserve_for(self, segment: Segment) -> bool:
        """Whether this segment may be asked for, once. Cancelled, what is being reserved is given back by `settle`."""
        if self._is_skipped or self._patient_id is None:
            return True
        if self._reserved and self._age_s() > budgets.RESERVATION_TTL.total_seconds():
            await self._settle(self._patient_id)
        lacking = len(segment.text) + self._after(segment) - (self._reserved - self._billed())
        if lacking <= 0:
            return True
        self._reserve_task = asyncio.create_task(self._reserve(self._patient_id, lacking))
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_S):
                return await asyncio.shield(self._reserve_task)
        except TimeoutError:
            self._skip("TimeoutError")
            return True

    def settle(self) -> None:
        """The speech has ended, however. In the background."""
        if self._patient_id is not None and self._reserve_task is not None:
            self._spawn(self._settle(self._patient_id))

    def _billed(self) -> int:
        return self._speech.progress.characters - self._billed_before

    def _age_s(self) -> float:
        return time.monotonic() - self._reserved_at

    def _after(self, segment: Segment) -> int:
        return self._characters_after[segment.index] if segment.index < len(self._characters_after) else 0

    async def _reserve(self, patient_id: uuid.UUID, characters: int) -> bool:
        if not self._reserved:
            self._month = budgets.current_month()
        try:
            fits = await run_in_db_thread(budgets.reserve, patient_id, self._month, characters)
        except Error as error:
            self._skip(type(error).__name__)
            return True
        if fits:
            self._reserved += characters
            self._reserved_at = time.monotonic()
        else:
            self._error_reporter.report_over_budget(patient_id)
        return fits

    async def _settle(self, patient_id: uuid.UUID) -> None:
        """What is too old, or cannot be written, the sweep mends."""
        if self._reserve_task is not None:
            await asyncio.wait({self._reserve_task})
        held, counted = self._reserved, self._billed()
        self._reserved, self._billed_before = 0, self._speech.progress.characters
        if self._age_s() > budgets.STALE_AFTER.total_seconds() or not (held or counted):
            return
        try:
            await run_in_db_thread(budgets.settle, patient_id, self._month, reserved=held, used=counted)
        except Error as error:
            log.warning("reservation.not_settled", error=type(error).__name__)

    def _skip(self, error: str) -> None:
        self._is_skipped = True
        log.warning("reservation.not_taken", error=error)


def _remaining_characters(text: str, language: str, phrases: Container[str]) -> list[int]:
    """For each segment, how many characters of those behind it will be asked for: no phrases, which are in the cache.

    One that is not there is reserved when its turn comes.
    """
    asked = [0 if normalise(segment) in phrases else len(segment) for segment in split(text, language, phrases)]
    return list(accumulate(reversed(asked[1:]), initial=0))[::-1]
