"""The recorder: what was said is in the database once, whatever the database did meanwhile."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY

from tests.conftest import Member
from tests.tts import examples
from tts.conversations import lifecycle
from tts.models import Conversation, Utterance
from tts.recorder import Recorder
from tts.speech import Speech
from tts.states import UtteranceState
from tts.text.stream import TextStream
from usage.ledger.events import Attempt
from usage.models import UsageEvent

pytestmark = pytest.mark.django_db(transaction=True)  # Channels closes a connection that it finds in a transaction


@pytest.fixture
def talk(alice: Member) -> Conversation:
    return new_talk(alice)


def new_talk(member: Member) -> Conversation:
    opened = lifecycle.start(member.device.id, None)
    return Conversation.objects.get(pk=opened.context.conversation_id)


def speech(talk: Conversation, speech_id: str = "s1", **fields: object) -> Speech:
    return examples.speech(speech_id, conversation_id=talk.pk, patient_id=talk.patient_id, **fields)


def attempt(talk: Conversation | None, asked: int = 10, *, answered: bool = True, **fields: object) -> Attempt:
    identity = {"source_id": uuid.uuid4(), "segment": 0, "attempt": 1, "kind": "live"}
    made = Attempt(**{**identity, "requested_characters": asked, "conversation_id": talk and talk.pk, **fields})
    if answered:
        made.mark_answered("request", None)
    return made


def on_a_loop(scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs it so that the recorder's thread is this one, with the test's own connection."""
    return async_to_sync(scenario)()


def record(*entries: Speech | Attempt, recorder: Recorder | None = None) -> None:
    async def scenario() -> None:
        recorder_ = recorder or Recorder()
        for entry in entries:
            recorder_.record(entry)
        await recorder_.flush()

    on_a_loop(scenario)


def used(talk: Conversation) -> int:
    return Conversation.objects.values_list("tts_characters_used", flat=True).get(pk=talk.pk)


def in_events(talk: Conversation) -> int:
    return sum(UsageEvent.objects.filter(conversation=talk.pk).values_list("characters", flat=True))


class Database:
    """The connection of this test. While `fails` is set, every statement that begins with it fails."""

    fails: str | None = None

    def __call__(self, execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if self.fails and sql.startswith(self.fails):
            raise OperationalError("the database is away")
        return execute(sql, *arguments)


@pytest.fixture
def database(db: None) -> Iterator[Database]:
    database = Database()
    with connection.execute_wrapper(database):
        yield database


# Rows


def test_a_speech_is_written_with_all_its_fields(talk: Conversation):
    whole = speech(
        talk,
        "s1",
        text="Good morning.",
        state="spoken",
        source="live",
        code="",
        characters=13,
        bytes_sent=4000,
        first_chunk_ms=12.25,
        spoken_at=datetime.now(UTC),
    )
    record(whole)
    row = Utterance.objects.get()
    assert (row.pk, row.conversation, row.patient_id) == (whole.utterance_id, talk, talk.patient_id)
    assert (row.client_speech_id, row.origin, row.text) == ("s1", "device", "Good morning.")
    assert row.received_at == whole.received_at
    names = ["state", "source", "code", "characters", "bytes_sent", "first_chunk_ms", "spoken_at"]
    assert {name: getattr(row, name) for name in names} == {name: getattr(whole.progress, name) for name in names}


def test_recording_a_speech_again_updates_its_row(talk: Conversation):
    same = replace(speech(talk), text_stream=TextStream("How are ", complete=False))
    record(same)
    same.text_stream.append("you today?")
    same.progress.sent(7, "live", now=time.monotonic(), utc_now=datetime.now(UTC))
    same.progress.finished(UtteranceState.FAILED, "no_voice")
    record(same)
    row = Utterance.objects.get()
    assert (row.text, row.state, row.source, row.bytes_sent, row.code) == (
        "How are you today?",
        "failed",
        "live",
        7,
        "no_voice",
    )


def test_the_state_at_the_time_of_writing_is_written(talk: Conversation):
    async def scenario() -> None:
        recorder, same = Recorder(), speech(talk)
        recorder.record(same)
        same.progress.finished(UtteranceState.SPOKEN)
        recorder.record(same)
        await recorder.flush()

    on_a_loop(scenario)
    assert Utterance.objects.get().state == "spoken"


def test_records_are_written_without_a_call_of_flush(talk: Conversation):
    async def scenario() -> None:
        recorder = Recorder()
        for number in range(2):  # the second one finds the first one's writer gone
            recorder.record(speech(talk, f"s{number}"))
            await written(number + 1)

    async def written(rows: int) -> None:
        deadline = time.monotonic() + 5
        while await Utterance.objects.acount() < rows:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    on_a_loop(scenario)


def test_flush_without_records_makes_no_query(django_assert_num_queries):
    with django_assert_num_queries(0):
        record()


# Exactly once


def test_the_characters_of_a_conversation_are_the_sum_of_its_events(alice: Member, bob: Member):
    talks = [new_talk(alice), new_talk(alice), new_talk(bob)]
    batch = [attempt(talks[number % 3], asked=number) for number in range(30)]
    record(*batch, attempt(None, asked=1000), attempt(talks[0], asked=1000, answered=False))
    assert [used(talk) for talk in talks] == [in_events(talk) for talk in talks] == [135, 145, 155]


def test_an_attempt_recorded_again_counts_once(talk: Conversation):
    same = attempt(talk)
    for _ in range(3):
        record(same)
    assert used(talk) == in_events(talk) == 10


def test_an_unknown_attempt_counts_once_when_it_is_answered(talk: Conversation):
    same = attempt(talk, answered=False)
    record(same)
    assert (used(talk), UsageEvent.objects.get().outcome) == (0, "unknown")
    same.mark_answered("late", None)
    record(same)
    same.outcome = "cancelled"
    record(same)
    assert used(talk) == in_events(talk) == 10


@pytest.mark.parametrize("failing", ["SELECT", "INSERT", "UPDATE"])
def test_a_batch_that_fails_at_any_statement_is_retried_and_counts_once(
    talk: Conversation, database: Database, failing: str
):
    async def scenario() -> None:
        recorder = Recorder()
        recorder.record(attempt(talk, 10))
        recorder.record(speech(talk))
        database.fails = failing
        with pytest.raises(OperationalError):
            await recorder.flush()
        database.fails = None
        recorder.record(attempt(talk, 5))
        await recorder.flush()

    on_a_loop(scenario)
    assert used(talk) == in_events(talk) == 15
    assert Utterance.objects.count() == 1


def test_a_change_during_a_database_outage_is_not_lost(talk: Conversation, database: Database):
    async def scenario() -> None:
        recorder, same = Recorder(), speech(talk)
        recorder.record(same)
        database.fails = "INSERT"
        with pytest.raises(OperationalError):
            await recorder.flush()
        database.fails = None
        same.progress.finished(UtteranceState.SPOKEN)
        recorder.record(same)
        await recorder.flush()

    on_a_loop(scenario)
    assert Utterance.objects.get().state == "spoken"


def test_writing_resumes_after_a_database_outage(talk: Conversation, database: Database):
    async def scenario() -> None:
        recorder = Recorder()
        recorder.record(attempt(talk))
        database.fails = "INSERT"
        with pytest.raises(OperationalError):
            await recorder.flush()
        database.fails = None
        deadline = time.monotonic() + 5
        while not await UsageEvent.objects.aexists():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    on_a_loop(scenario)
    assert used(talk) == 10


def test_two_processes_add_characters_to_one_conversation(talk: Conversation):
    def write(number: int) -> None:
        async def scenario() -> None:
            recorder = Recorder()
            for size in range(5):
                recorder.record(attempt(talk, asked=number + size))
            await recorder.flush()

        try:
            async_to_sync(scenario)()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, range(20)))
    assert used(talk) == in_events(talk) == sum(number + size for number in range(20) for size in range(5))


# A row that the database refuses


@pytest.fixture
def refused() -> Callable[[], float]:
    """How many rows were refused since the test began."""

    def total() -> float:
        return REGISTRY.get_sample_value("voicecare_recorder_refused_total") or 0.0

    before = total()
    return lambda: total() - before


def test_a_duplicate_speech_id_does_not_block_other_rows(talk: Conversation, refused: Callable[[], float]):
    kept = speech(talk, "same")
    record(kept, speech(talk, "same"), speech(talk, "other"), attempt(talk))
    assert set(Utterance.objects.values_list("client_speech_id", flat=True)) == {"same", "other"}
    assert Utterance.objects.get(client_speech_id="same").pk == kept.utterance_id
    assert used(talk) == in_events(talk) == 10
    assert refused() == 1


def test_an_invalid_attempt_does_not_block_other_rows(talk: Conversation, refused: Callable[[], float]):
    record(speech(talk), attempt(talk, kind="free"), attempt(talk, 5))
    assert used(talk) == in_events(talk) == 5
    assert Utterance.objects.count() == refused() == 1


def test_a_missing_conversation_does_not_block_other_rows(talk: Conversation, refused: Callable[[], float]):
    """Its foreign key is looked at when the transaction ends."""
    record(examples.speech("nowhere", patient_id=talk.patient_id), speech(talk))
    assert [row.client_speech_id for row in Utterance.objects.all()] == ["s1"]
    assert refused() == 1


def test_a_value_that_the_driver_rejects_does_not_block_other_rows(talk: Conversation, refused: Callable[[], float]):
    """Neither driver raises a DatabaseError of its own for every value that it cannot pass on."""
    record(speech(talk, "huge", bytes_sent=10**30), speech(talk), attempt(talk))
    assert [row.client_speech_id for row in Utterance.objects.all()] == ["s1"]
    assert used(talk) == 10
    assert refused() == 1


# Cost


def test_a_hundred_events_take_one_transaction_of_at_most_four_statements(alice: Member):
    talks = [new_talk(alice) for _ in range(10)]
    batch = [attempt(talks[number % 10]) for number in range(100)]
    with CaptureQueriesContext(connection) as captured:
        record(*batch)
    bookkeeping = ("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT")
    statements = [query["sql"].split()[0] for query in captured if not query["sql"].startswith(bookkeeping)]
    assert len(statements) <= (4 if connection.vendor == "postgresql" else 6)  # SQLite takes a thousand values in each
    assert statements.count("UPDATE") == 1
    assert len([query for query in captured if query["sql"].startswith("SAVEPOINT")]) <= 1


def test_the_batch_of_a_long_outage_can_be_written(talk: Conversation):
    batch = [attempt(talk, 1) for _ in range(2500)]
    record(*batch)
    assert used(talk) == UsageEvent.objects.count() == 2500
