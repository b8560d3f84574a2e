"""All totals agree after any sequence of steps: conversations, events, days, months and budgets, and a model of them.

A process speaks, is refused, retries, is cancelled, is killed, and writes late, twice or not at all. Reconciliation and
the repair of budgets run at any time.
"""

import copy
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random

import pytest
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Member
from tts import recorder
from tts.conversations import lifecycle
from tts.models import Conversation
from usage import budgets
from usage.ledger import events, rollup
from usage.ledger.events import Attempt
from usage.models import BudgetMonth, DailyUsage, UsageEvent
from usage.reports import queries
from voicecare.patients.models import Device, Patient

pytestmark = pytest.mark.django_db

BUDGET = 250
ASKING = ("live", "retry", "backup")

Step = Callable[["History", Random], None]


@dataclass
class Talk:
    """A conversation. `characters` is what its row must show. `late` characters were found after its end."""

    key: uuid.UUID
    patient: uuid.UUID
    ended: bool = False
    characters: int = 0
    late: int = 0


@dataclass
class Said:
    """A running speech. It `reserves` if its patient had a budget when the conversation started."""

    talk: Talk
    reserves: bool
    held: int = 0
    counted: int = 0
    open: list[Attempt] = field(default_factory=list)
    key: uuid.UUID = field(default_factory=uuid.uuid4)
    attempts: int = 0


class History:
    """A model of what the database must contain.

    `memory` has the attempts that the process does not know to be written. `written` has those in the database.
    """

    def __init__(self, devices: list[Device]) -> None:
        self.devices = devices
        self.month = budgets.current_month()
        self.talks: list[Talk] = []
        self.said: list[Said] = []
        self.memory: list[Attempt] = []
        self.written: dict[tuple[uuid.UUID, int, int], Attempt] = {}
        self.billed: dict[tuple[uuid.UUID, int, int], int] = {}  # billed by the provider, known to us or not
        self.has_row = False
        self.used = self.reserved = 0

    # Speaking

    def start_speech(self, dice: Random) -> None:
        who, size = dice.choice((0, 0, 1)), dice.randint(1, 150)
        said = Said(self.open_talk(who, dice), who == 0 and dice.random() < 0.7)
        if self.reserve(said, size):
            self.said.append(said)

    def open_talk(self, who: int, dice: Random) -> Talk:
        device = self.devices[who]
        mine = [talk for talk in self.talks if talk.patient == device.patient_id and not talk.ended]
        if not mine:
            opened = lifecycle.start(device.pk, None)
            mine = [Talk(opened.context.conversation_id, device.patient_id)]
            self.talks += mine
        return dice.choice(mine)

    def reserve(self, said: Said, size: int) -> bool:
        lacking = size - (said.held - said.counted)
        if not said.reserves or lacking <= 0:
            return True
        if not self.has_row:  # the row starts with the earlier usage
            self.has_row, self.used = True, self.characters_in(self.month)
        fits = budgets.reserve(said.talk.patient, self.month, lacking)
        assert fits is (self.used + self.reserved + lacking <= BUDGET)
        if fits:
            said.held += lacking
            self.reserved += lacking
        return fits

    def request_audio(self, dice: Random) -> None:
        if not self.said:
            return
        said, size = dice.choice(self.said), dice.randint(1, 60)
        if self.reserve(said, size):
            days_ago = 0 if said.reserves else dice.choice((0, 1, 31))
            attempt = self.attempt(said, dice.choice(ASKING), size, days_ago)
            self.billed[attempt.key] = 0
            said.open.append(attempt)

    def play_without_request(self, dice: Random) -> None:
        if self.said:
            attempt = self.attempt(dice.choice(self.said), dice.choice(("cache", "offline")), dice.randint(1, 60), 0)
            attempt.outcome, attempt.saved_characters = "completed", attempt.requested_characters

    def attempt(self, said: Said, kind: str, size: int, days_ago: int) -> Attempt:
        said.attempts += 1
        at = timezone.now() - timedelta(days=days_ago)
        attempt = Attempt(
            said.key,
            0,
            said.attempts,
            kind,
            size,
            conversation_id=said.talk.key,
            patient_id=said.talk.patient,
            started_at=at,
        )
        self.memory.append(attempt)
        return attempt

    def answer_request(self, dice: Random) -> None:
        said, attempt = self.pop_open_request(dice)
        if attempt is None:
            return
        attempt.mark_answered(f"request {len(self.billed)} {attempt.key}", attempt.requested_characters // 2)
        attempt.outcome = dice.choice(("completed", "cancelled"))
        said.counted += attempt.requested_characters
        self.billed[attempt.key] = attempt.requested_characters
        self.memory.append(attempt)

    def fail_request(self, dice: Random) -> None:
        _, attempt = self.pop_open_request(dice)
        if attempt is None:
            return
        outcome = dice.choice(("failed", "billed unseen", "never billed"))
        attempt.outcome = "failed" if outcome == "failed" else "unknown"
        self.billed[attempt.key] = attempt.requested_characters if outcome == "billed unseen" else 0
        self.memory.append(attempt)

    def pop_open_request(self, dice: Random) -> tuple[Said, Attempt] | tuple[None, None]:
        waiting = [said for said in self.said if said.open]
        if not waiting:
            return None, None
        said = dice.choice(waiting)
        return said, said.open.pop()

    def end_speech(self, dice: Random) -> None:
        said = self.said.pop(dice.randrange(len(self.said))) if self.said else None
        if said is not None and said.reserves:
            budgets.settle(said.talk.patient, self.month, reserved=said.held, used=said.counted)
            self.reserved -= said.held
            self.used += said.counted

    def end_conversation(self, dice: Random) -> None:
        for talk in dice.sample(self.talks, min(1, len(self.talks))):
            lifecycle.end(talk.key)
            talk.ended = True

    # Writing

    def write_batch(self, dice: Random) -> None:
        """Write once, or twice as after a commit with an unknown result."""
        seen = dice.random() < 0.3
        for _ in range(dice.choice((1, 2))):
            recorder._write_rows([copy.copy(attempt) for attempt in self.memory])
        for attempt in self.memory:
            before = self.written.get(attempt.key)
            if before is None or attempt.outcome != "unknown" or before.outcome == "unknown":
                self.note_written(attempt, before)
        if seen:
            self.memory.clear()

    def note_written(self, attempt: Attempt, before: Attempt | None) -> None:
        self.written[attempt.key] = copy.copy(attempt)
        new = attempt.characters - (before.characters if before else 0)
        self.talk_of(attempt).characters += new

    def talk_of(self, attempt: Attempt) -> Talk:
        return next(talk for talk in self.talks if talk.key == attempt.conversation_id)

    def roll_back_a_batch(self, dice: Random) -> None:
        with transaction.atomic():
            recorder._write_rows([copy.copy(attempt) for attempt in self.memory])
            transaction.set_rollback(True)

    def kill_process(self, dice: Random) -> None:
        """Reservations stay."""
        self.memory.clear()
        self.said.clear()

    # Later corrections

    def reconcile(self, dice: Random) -> None:
        over = list(self.unknown_attempts())
        for attempt in dice.sample(over, min(1, len(over))):
            self.resolve(attempt)

    def unknown_attempts(self) -> Iterator[Attempt]:
        """Yield unknown attempts whose response is no longer awaited."""
        under_way = {attempt.key for said in self.said for attempt in said.open}
        for key, attempt in self.written.items():
            is_answered = any(attempt.key == key and attempt.outcome != "unknown" for attempt in self.memory)
            if attempt.outcome == "unknown" and key not in under_way and not is_answered:
                yield attempt

    def resolve(self, attempt: Attempt) -> None:
        event = UsageEvent.objects.get(source=attempt.source_id, attempt=attempt.attempt).pk
        billed = self.billed[attempt.key]
        request = f"found {attempt.key}" if billed else ""
        for _ in range(2):
            lifecycle.add_reconciled_characters(events.resolve_unknown(event, request_id=request, credits=billed))
        attempt.outcome, attempt.characters, attempt.credits = "cancelled", billed, billed
        talk = self.talk_of(attempt)
        talk.late += billed if talk.ended else 0
        talk.characters += 0 if talk.ended else billed

    def repair_budgets(self, dice: Random) -> None:
        if self.said:
            return
        BudgetMonth.objects.update(updated_at=timezone.now() - budgets.STALE_AFTER - timedelta(minutes=1))
        budgets.repair()
        if self.has_row:
            self.used, self.reserved = self.characters_in(self.month), 0

    def characters_in(self, month: date) -> int:
        mine = (a for a in self.written.values() if a.patient_id == self.devices[0].patient_id)
        return sum(a.characters for a in mine if rollup.day_of(a.started_at).replace(day=1) == month)

    # Checks after every step

    def check_totals(self) -> None:
        rows = UsageEvent.objects.values_list(
            "source", "segment", "attempt", "characters", "credits", "saved_characters", "outcome"
        )
        assert {row[:3]: row[3:] for row in rows} == {
            key: (a.characters, a.credits, a.saved_characters, a.outcome) for key, a in self.written.items()
        }
        assert dict(Conversation.objects.values_list("pk", "tts_characters_used")) == {
            talk.key: talk.characters for talk in self.talks
        }
        assert self.in_days() == self.by(lambda day: day)
        assert self.in_months() == self.by(lambda day: day.replace(day=1))

    def by(self, start: Callable[[date], date]) -> Counter[object]:
        found: Counter[object] = Counter()
        for a in self.written.values():
            found[start(rollup.day_of(a.started_at)), a.patient_id, a.kind] += a.characters
        return +found

    def in_days(self) -> Counter[object]:
        keys = ("day", "patient", "kind")
        rows = DailyUsage.objects.order_by().values_list(*keys).annotate(total=Sum("characters"))
        return +Counter({row[:3]: row[3] for row in rows})

    def in_months(self) -> Counter[object]:
        found: Counter[object] = Counter()
        for device in self.devices:
            usage = DailyUsage.objects.filter(patient=device.patient_id)
            for row in queries.usage_rows(usage, by_month=True, group="kind"):
                found[row["start"], device.patient_id, row["kind"]] = row["characters"]
        return +found

    def check_budget_row(self) -> None:
        rows = list(BudgetMonth.objects.values_list("used", "reserved"))
        assert rows == ([(self.used, self.reserved)] if self.has_row else [])

    def finish_and_check(self) -> None:
        """Kill the process, run reconciliation, repair and a rebuild, and check everything."""
        self.kill_process(Random(0))
        for attempt in list(self.unknown_attempts()):
            self.resolve(attempt)
        self.repair_budgets(Random(0))
        self.check_totals()
        self.check_budget_row()
        provider = sum(characters for key, characters in self.billed.items() if key in self.written)
        assert provider == sum(talk.characters + talk.late for talk in self.talks)
        kept_up = sorted(DailyUsage.objects.values(*rollup.KEY_COLUMNS, *rollup.COLUMNS), key=str)
        rollup.rebuild()
        assert sorted(DailyUsage.objects.values(*rollup.KEY_COLUMNS, *rollup.COLUMNS), key=str) == kept_up


STEPS = (
    [History.start_speech, History.end_speech, History.write_batch] * 2
    + [History.request_audio, History.answer_request] * 4
    + [History.fail_request, History.reconcile] * 3
    + [
        History.play_without_request,
        History.roll_back_a_batch,
        History.kill_process,
        History.end_conversation,
        History.repair_budgets,
    ]
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), min_size=30, max_size=80), dice=st.randoms(use_true_random=True))
def test_all_totals_agree_after_any_sequence_of_steps(alice: Member, bob: Member, steps: list[Step], dice: Random):
    with transaction.atomic():
        Patient.objects.filter(pk=alice.patient.pk).update(monthly_character_budget=BUDGET)
        history = History([alice.device, bob.device])
        for step in steps:
            step(history, dice)
            history.check_totals()
            history.check_budget_row()
        history.finish_and_check()
        transaction.set_rollback(True)
