"""The usage ledger: one event for each attempt, counted once (docs/protocol.md, rule 9).

`characters` and `credits` count once the 2xx headers of a request have arrived, even if the request then fails. A
request whose response was never seen stays `unknown` and counts nothing. Speech from the cache or in the offline voice
counts as `saved_characters`. Daily totals (`usage/ledger/rollup.py`) are written in the same transaction.
"""

import operator
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial, reduce

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from usage.ledger import rollup
from usage.models import BudgetMonth, UsageEvent
from usage.models.ledger import REGION_LENGTH
from voicecare.providers.errors import ProviderError, Unreachable

Kind = UsageEvent.Kind
Outcome = UsageEvent.Outcome

BILLED, NOT_BILLED = "billed", "not_billed"
MAX_CREDITS_PER_CHARACTER = 100  # a higher price is not plausible
REQUEST_ID_UNIQUE_WITHIN = timedelta(minutes=10)
RESOLUTION_LOCK = 7_312_026_001  # key of a PostgreSQL advisory lock; no other lock of this database may have it


def billed_credits(characters: int, stated: int | None) -> int:
    """Return the number of credits that the provider billed for a request.

    `stated` is the number in the provider's response. If it is missing or implausible, one credit per character is
    assumed.
    """
    return characters if stated is None or stated > characters * MAX_CREDITS_PER_CHARACTER else stated


@dataclass(slots=True)
class Attempt:
    """One attempt to produce the audio of one segment, as far as the process that makes the attempt knows.

    It is recorded when it starts and after each change. (`source_id`, `segment`, `attempt`) identifies it, so that
    recording it again updates the same event. `source_id` is the id of the utterance, or a random id for a cache fill
    or a probe. `text_digest` is the keyed digest of a text whose repetitions are counted.
    """

    source_id: uuid.UUID
    segment: int
    attempt: int
    kind: str
    requested_characters: int
    conversation_id: uuid.UUID | None = None
    patient_id: uuid.UUID | None = None
    voice_id: uuid.UUID | None = None
    model: str = ""
    outcome: str = Outcome.UNKNOWN.value
    code: str = ""
    characters: int = 0
    credits: int = 0
    saved_characters: int = 0
    request_id: str = ""
    region: str = ""
    first_byte_ms: float | None = None
    first_chunk_ms: float | None = None
    text_digest: str = field(default="", repr=False)
    started_at: datetime = field(default_factory=partial(datetime.now, UTC))

    @property
    def key(self) -> tuple[uuid.UUID, int, int]:
        return self.source_id, self.segment, self.attempt

    def mark_answered(self, request_id: str | None, cost: int | None, region: str | None = None) -> None:
        """Count the attempt: the 2xx headers have arrived, so the provider bills it.

        `cost` is in credits. An implausible `cost` is replaced (`billed_credits`), because the database refuses a
        number that is too large for the column. `region` is where the provider has handled the request.
        """
        self.outcome = Outcome.COMPLETED.value
        self.characters = self.requested_characters
        self.credits = billed_credits(self.requested_characters, cost)
        self.request_id = request_id or ""
        self._set_region(region)

    def mark_failed(self, error: ProviderError) -> None:
        """Set the outcome after an error.

        Without a response, it is not known whether the provider billed the attempt, so its outcome is unknown. An
        attempt that was never sent (Unreachable) has failed.
        """
        is_known = error.status is not None or isinstance(error, Unreachable)
        self.outcome = (Outcome.FAILED if is_known else Outcome.UNKNOWN).value
        self.code = error.code
        self._set_region(error.region)

    def _set_region(self, region: str | None) -> None:
        self.region = region[:REGION_LENGTH] if region else self.region


_UPDATED = [
    "outcome",
    "code",
    "characters",
    "credits",
    "saved_characters",
    "request_id",
    "region",
    "first_byte_ms",
    "first_chunk_ms",
]


@transaction.atomic(savepoint=False)
def record_attempts(attempts: Sequence[Attempt]) -> dict[uuid.UUID, int]:
    """Write the attempts and their daily totals. Returns the number of new characters of each conversation.

    Three statements, and one more if there is new usage of patients. Idempotent: characters that an earlier call has
    counted are not new. So the same batch can be written again if it is not known whether its commit succeeded.
    """
    attempts = list({attempt.key: attempt for attempt in attempts}.values())  # a statement may write a row only once
    # The recorded events are locked, because reconciliation may be resolving one of them.
    written = UsageEvent.objects.filter(source__in={attempt.source_id for attempt in attempts}).order_by()
    rows = written.select_for_update().values_list("source", "segment", "attempt", *_UPDATED, named=True)
    recorded = {(row.source, row.segment, row.attempt): row for row in rows}
    # Reconciliation has resolved some of the attempts, but their process does not know that.
    resolved = {key for key, row in recorded.items() if row.outcome != Outcome.UNKNOWN}
    attempts = [attempt for attempt in attempts if attempt.outcome != Outcome.UNKNOWN or attempt.key not in resolved]
    UsageEvent.objects.bulk_create(
        [_event_from(attempt) for attempt in attempts],
        update_conflicts=True,
        unique_fields=["source", "segment", "attempt"],
        update_fields=_UPDATED,
    )
    new_characters: dict[uuid.UUID, int] = defaultdict(int)
    new_totals: dict[rollup.Key, rollup.Totals] = defaultdict(lambda: rollup.ZERO_TOTALS)
    budgets = set()
    for attempt in attempts:
        before = recorded.get(attempt.key)
        totals_before = rollup.ZERO_TOTALS if before is None else rollup.totals_of(before)
        added = map(operator.sub, rollup.totals_of(attempt), totals_before)
        key = rollup.key_for(attempt.started_at, attempt.patient_id, attempt.voice_id, attempt.model, attempt.kind)
        new_totals[key] = tuple(map(operator.add, new_totals[key], added))
        characters = attempt.characters - (before.characters if before else 0)
        if attempt.conversation_id is not None:
            new_characters[attempt.conversation_id] += characters
        if characters and attempt.patient_id is not None:
            budgets.add((attempt.patient_id, key.day.replace(day=1)))
    _uncheck_budgets(budgets)
    rollup.add_to_days(new_totals)
    return {conversation_id: characters for conversation_id, characters in new_characters.items() if characters}


def _uncheck_budgets(budgets: set[tuple[uuid.UUID, date]]) -> None:
    """Let `usage.budgets.repair` compare the budgets of these patients and months with the ledger again.

    A month is its first day. The rows are locked in order, so that two processes cannot deadlock.
    """
    patients_by_month: dict[date, list[uuid.UUID]] = defaultdict(list)
    for patient, month in budgets:
        patients_by_month[month].append(patient)
    if patients_by_month:
        wanted = (Q(month=month, patient__in=patients) for month, patients in patients_by_month.items())
        rows = BudgetMonth.objects.filter(reduce(operator.or_, wanted)).order_by("pk").select_for_update()
        BudgetMonth.objects.filter(pk__in=rows.values("pk")).update(checked=False, updated_at=Now())


@transaction.atomic(savepoint=False)
def resolve_unknown(event_id: uuid.UUID, *, request_id: str = "", credits: int = 0) -> dict[uuid.UUID, int]:
    """Record what reconciliation found out about an attempt whose outcome is unknown.

    Returns the newly counted characters of each conversation, as `record_attempts` does.

    With a `request_id`, the provider billed the attempt as this request. Without one, the attempt was not billed.
    Nothing changes if the attempt is no longer unknown, or if another attempt has this request. Of several simultaneous
    calls the first wins.
    """
    # The lock lasts until the transaction ends. Without it, two transactions could match one request to two attempts,
    # because neither sees the other's row. It is taken before any row lock. `record_attempts` does not take it. SQLite
    # needs no lock: its write transactions are immediate, so only one runs at a time.
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [RESOLUTION_LOCK])
    row = UsageEvent.objects.select_for_update().filter(pk=event_id, outcome=Outcome.UNKNOWN).first()
    if row is None:
        return {}
    if request_id:
        start, end = row.started_at - REQUEST_ID_UNIQUE_WITHIN, row.started_at + REQUEST_ID_UNIQUE_WITHIN
        near = UsageEvent.objects.filter(started_at__gte=start, started_at__lte=end)
        if near.filter(request_id=request_id).exists():
            return {}
    attempt = _attempt_from(row)
    # Without an error code the attempt was interrupted, or its process died.
    attempt.outcome = (Outcome.FAILED if row.code else Outcome.CANCELLED).value
    attempt.code = BILLED if request_id else NOT_BILLED
    if request_id:
        attempt.characters, attempt.credits, attempt.request_id = attempt.requested_characters, credits, request_id
    return record_attempts([attempt])


def _event_from(attempt: Attempt) -> UsageEvent:
    return UsageEvent(
        source=attempt.source_id,
        segment=attempt.segment,
        attempt=attempt.attempt,
        kind=attempt.kind,
        conversation=attempt.conversation_id,
        patient=attempt.patient_id,
        voice=attempt.voice_id,
        model=attempt.model,
        outcome=attempt.outcome,
        code=attempt.code,
        requested_characters=attempt.requested_characters,
        characters=attempt.characters,
        credits=attempt.credits,
        saved_characters=attempt.saved_characters,
        request_id=attempt.request_id,
        region=attempt.region,
        first_byte_ms=attempt.first_byte_ms,
        first_chunk_ms=attempt.first_chunk_ms,
        text_digest=attempt.text_digest,
        started_at=attempt.started_at,
    )


def _attempt_from(event: UsageEvent) -> Attempt:
    return Attempt(
        source_id=event.source,
        segment=event.segment,
        attempt=event.attempt,
        kind=event.kind,
        conversation_id=event.conversation,
        patient_id=event.patient,
        voice_id=event.voice,
        model=event.model,
        outcome=event.outcome,
        code=event.code,
        requested_characters=event.requested_characters,
        characters=event.characters,
        credits=event.credits,
        saved_characters=event.saved_characters,
        request_id=event.request_id,
        region=event.region,
        first_byte_ms=event.first_byte_ms,
        first_chunk_ms=event.first_chunk_ms,
        text_digest=event.text_digest,
        started_at=event.started_at,
    )


def attempts_of(source_id: uuid.UUID) -> list[Attempt]:
    """Return all attempts for one utterance, in the order of its text."""
    return [
        _attempt_from(event) for event in UsageEvent.objects.filter(source=source_id).order_by("segment", "attempt")
    ]
