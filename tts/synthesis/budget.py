"""The part of the budgets of a patient and their clinic (`usage.clinic_budgets`) that is reserved for one speech."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine
from datetime import date
from itertools import accumulate
from typing import Any

import structlog
from django.db import Error

from tts.conversations.context import SpeechContext
from tts.resilience.error_reporter import ErrorReporter
from tts.speech import Speech
from tts.text.segmenter import normalise, split
from tts.text.speakable import is_speakable
from tts.text.stream import Segment
from tts.text.tags import strip_tags
from usage import budgets, clinic_budgets
from usage.clinic_budgets import Refusal
from voicecare.core.database import run_in_db_thread

DATABASE_TIMEOUT_S = 3.0  # then the offline voice speaks, so that the patient does not wait

log = structlog.get_logger(__name__)


class BudgetUnknown(Exception):
    """The database did not answer, or not in time, so nobody knows whether the budget has room."""


class BudgetReservation:
    """Reserves characters before they are requested, for a speech to a patient who, or whose clinic, has a budget.

    For a complete text, one reservation covers all characters that are not expected in the phrase cache. It is made
    when the first segment needs the provider. A text that is still being written is reserved segment by segment.

    If the database does not answer, nothing more is requested for this speech: many speeches that continue without a
    reservation would exceed the budget together. `spawn` runs work in the background.
    """

    def __init__(
        self,
        speech: Speech,
        patient_id: uuid.UUID,
        context: SpeechContext,
        error_reporter: ErrorReporter,
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
        *,
        sends_tags: bool,
    ) -> None:
        self._speech = speech
        self._patient_id = patient_id
        self._error_reporter = error_reporter
        self._spawn = spawn
        self._clinic_id = context.budgeted_clinic_id
        self._day: date  # of the first reservation
        self._billed_before = speech.progress.characters
        self._reserved = 0
        self._reserved_at = time.monotonic()
        self._is_unknown = False
        self._reserve_task: asyncio.Task[bool] | None = None
        # For each segment, the number of characters in later segments that will be requested from the provider. Empty
        # for a text that is still being written.
        self._characters_after: list[int] = []
        if speech.text_stream.complete:
            # Known phrases are assumed to be cached and count as zero. On a cache miss the phrase is reserved when it
            # is reached.
            phrases = context.phrases
            pronunciation = context.pronunciation
            segments = split(speech.text_stream.text, pronunciation.language, phrases)
            said = [pronunciation.spoken(one) if sends_tags else pronunciation.plain(one) for one in segments]
            requested = [
                len(text) if is_speakable(strip_tags(text)) and normalise(written) not in phrases else 0
                for written, text in zip(segments, said, strict=True)
            ]
            self._characters_after = list(accumulate(reversed(requested[1:]), initial=0))[::-1]

    async def reserve_for(self, segment: Segment) -> bool:
        """Reserve the characters that one request of this segment still needs.

        Returns False if the budget does not allow them. Raises BudgetUnknown if the database does not answer, and then
        for each later segment, without a wait, unless the reservation that was under way has succeeded since.

        If this is cancelled or fails, `settle` still releases the characters of the reservation that was under way.
        """
        if self._reserved and self._age_s() > budgets.RESERVATION_TTL.total_seconds():
            await self._settle()
        later = self._characters_after[segment.index] if segment.index < len(self._characters_after) else 0
        missing = len(segment.text) + later - (self._reserved - self._billed())
        if missing <= 0:
            return True
        if self._is_unknown:
            raise BudgetUnknown
        self._reserve_task = asyncio.create_task(self._reserve(missing))
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_S):
                return await asyncio.shield(self._reserve_task)
        except TimeoutError as error:
            self._fail(error)
            raise BudgetUnknown from error

    def settle(self) -> None:
        """Release the unused part of the reservation, in the background. Call this when the speech has ended."""
        if self._reserve_task is not None:
            self._spawn(self._settle())

    def _billed(self) -> int:
        return self._speech.progress.characters - self._billed_before

    def _age_s(self) -> float:
        return time.monotonic() - self._reserved_at

    async def _reserve(self, characters: int) -> bool:
        if not self._reserved:
            self._day = budgets.today()
        try:
            refusal = await run_in_db_thread(
                clinic_budgets.reserve, self._patient_id, self._clinic_id, self._day, characters
            )
        except Error as error:
            self._fail(error)
            raise BudgetUnknown from error
        if refusal is None:
            self._reserved += characters
            self._reserved_at = time.monotonic()
        elif refusal is Refusal.PATIENT or self._clinic_id is None:
            self._error_reporter.report_over_budget(self._patient_id)
        else:
            self._error_reporter.report_clinic_over_budget(self._clinic_id, refusal)
        return refusal is None

    async def _settle(self) -> None:
        """Move billed characters from `reserved` to `used`, and release the others.

        A reservation that is too old or cannot be written is left to the periodic repair of the budget.
        """
        if self._reserve_task is not None:
            await asyncio.wait({self._reserve_task})
        reserved, billed = self._reserved, self._billed()
        self._reserved, self._billed_before = 0, self._speech.progress.characters
        if self._age_s() > budgets.STALE_AFTER.total_seconds() or not (reserved or billed):
            return
        try:
            await run_in_db_thread(
                clinic_budgets.settle, self._patient_id, self._clinic_id, self._day, reserved=reserved, used=billed
            )
        except Error as error:
            log.warning("reservation.settle_failed", error=type(error).__name__)

    def _fail(self, error: Exception) -> None:
        self._is_unknown = True
        log.warning("reservation.failed", error=type(error).__name__)
