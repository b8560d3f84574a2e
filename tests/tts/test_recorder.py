"""The recorder writes each record once, also after database failures."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as configured
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import REGISTRY
from pytest_django import Settings

from tests.conftest import Member
from tests.tts import examples
from tts.conversations import lifecycle
from tts.models import Conversation, Utterance
from tts.recorder import Recorder, SpokenAttempt
from tts.speech import Speech
from tts.states import UtteranceState
from tts.text.digest import text_digest
from tts.text.stream import TextStream
from usage.ledger.events import Attempt
from usage.ledger.journal import Journal
from usage.models import UsageEvent

pytestmark = pytest.mark.django_db(transaction=True)  # Channels closes a connection that is in a transaction


@pytest.fixture
def conversation(alice: Member) -> Conversation:
    return new_conversation(alice)


def new_conversation(member: Member) -> Conversation:
    opened = lifecycle.start(member.device.id, None)
    return Conversation.objects.get(pk=opened.context.conversation_id)


def speech(conversation: Conversation, speech_id: str = "s1", **fields: object) -> Speech:
    return examples.speech(speech_id, conversation_id=conversation.pk, patient_id=conversation.patient_id, **fields)


def attempt(
    conversation: Conversation | None, requested: int = 10, *, answered: bool = True, **fields: object
) -> Attempt:
    identity = {"source_id": uuid.uuid4(), "segment": 0, "attempt": 1, "kind": "live"}
    attempt_ = Attempt(
        **{**identity, "requested_characters": requested, "conversation_id": conversation and conversation.pk, **fields}
    )
    if answered:
        attempt_.mark_answered("request", None)
    return attempt_


def run_on_loop(scenario: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs the scenario so that the recorder writes in this thread, with the connection of the test."""
    return async_to_sync(scenario)()


def record(*entries: Speech | Attempt, recorder: Recorder | None = None) -> None:
    async def scenario() -> None:
        recorder_ = recorder or Recorder()
        for entry in entries:
            recorder_.record(entry)
        await recorder_.flush()

    run_on_loop(scenario)


def characters_of(conversation: Conversation) -> int:
    return Conversation.objects.values_list("tts_characters_used", flat=True).get(pk=conversation.pk)


def characters_in_events(conversation: Conversation) -> int:
    return sum(UsageEvent.objects.filter(conversation=conversation.pk).values_list("characters", flat=True))


class Database:
    """The connection of this test. Statements that begin with `fails` raise OperationalError."""

    fails: str | None = None

    def __call__(self, execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if self.fails and sql.startswith(self.fails):
            raise OperationalError("the database is unavailable")
        return execute(sql, *arguments)


@pytest.fixture
def database(db: None) -> Iterator[Database]:
    database = Database()
    with connection.execute_wrapper(database):
        yield database


def test_with_debug_the_statements_of_earlier_batches_are_not_kept(conversation: Conversation, settings: Settings):
    settings.DEBUG = True
    kept = []
    for number in range(5):
        record(speech(conversation, f"s{number}"))
        kept.append(len(connection.queries_log))
    assert kept[0] > 0
    assert kept == kept[:1] * 5


# Rows


def test_a_speech_is_written_with_all_its_fields(conversation: Conversation):
    whole = speech(
        conversation,
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
    assert (row.pk, row.conversation, row.patient_id) == (whole.utterance_id, conversation, conversation.patient_id)
    assert (row.client_speech_id, row.origin, row.text) == ("s1", "device", "Good morning.")
    assert row.received_at == whole.received_at
    names = ["state", "source", "code", "characters", "bytes_sent", "first_chunk_ms", "spoken_at"]
    assert {name: getattr(row, name) for name in names} == {name: getattr(whole.progress, name) for name in names}


def test_recording_a_speech_again_updates_its_row(conversation: Conversation):
    same = replace(speech(conversation), text_stream=TextStream("How are ", complete=False))
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


def test_the_state_at_the_time_of_writing_is_written(conversation: Conversation):
    async def scenario() -> None:
        recorder, same = Recorder(), speech(conversation)
        recorder.record(same)
        same.progress.finished(UtteranceState.SPOKEN)
        recorder.record(same)
        await recorder.flush()

    run_on_loop(scenario)
    assert Utterance.objects.get().state == "spoken"


def test_records_are_written_without_a_call_of_flush(conversation: Conversation):
    async def scenario() -> None:
        recorder = Recorder()
        for number in range(2):  # the flusher of the first record has ended before the second record
            recorder.record(speech(conversation, f"s{number}"))
            await written(number + 1)

    async def written(rows: int) -> None:
        deadline = time.monotonic() + 20
        while await Utterance.objects.acount() < rows:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    run_on_loop(scenario)


def test_closing_waits_for_a_batch_that_is_being_written(conversation: Conversation, tmp_path: Path):
    async def scenario() -> None:
        recorder = Recorder(Journal(tmp_path))
        recorder.record(attempt(conversation, answered=False))
        writing = asyncio.create_task(recorder.flush())
        await asyncio.sleep(0)  # it has taken the records, and nothing is pending
        await recorder.close()
        assert await UsageEvent.objects.aexists()
        await writing

    run_on_loop(scenario)
    assert list(tmp_path.iterdir()) == []


def test_flush_without_records_makes_no_query(django_assert_num_queries):
    with django_assert_num_queries(0):
        record()


# Exactly once


def test_the_characters_of_a_conversation_are_the_sum_of_its_events(alice: Member, bob: Member):
    conversations = [new_conversation(alice), new_conversation(alice), new_conversation(bob)]
    batch = [attempt(conversations[number % 3], requested=number) for number in range(30)]
    record(*batch, attempt(None, requested=1000), attempt(conversations[0], requested=1000, answered=False))
    assert (
        [characters_of(conversation) for conversation in conversations]
        == [characters_in_events(conversation) for conversation in conversations]
        == [135, 145, 155]
    )


def test_an_attempt_recorded_again_counts_once(conversation: Conversation):
    same = attempt(conversation)
    for _ in range(3):
        record(same)
    assert characters_of(conversation) == characters_in_events(conversation) == 10


def test_an_unknown_attempt_counts_once_when_it_is_answered(conversation: Conversation):
    same = attempt(conversation, answered=False)
    record(same)
    assert (characters_of(conversation), UsageEvent.objects.get().outcome) == (0, "unknown")
    same.mark_answered("late", None)
    record(same)
    same.outcome = "cancelled"
    record(same)
    assert characters_of(conversation) == characters_in_events(conversation) == 10


@pytest.mark.parametrize("failing", ["SELECT", "INSERT", "UPDATE"])
def test_a_batch_that_fails_at_any_statement_is_retried_and_counts_once(
    conversation: Conversation, database: Database, failing: str
):
    async def scenario() -> None:
        recorder = Recorder()
        recorder.record(attempt(conversation, 10))
        recorder.record(speech(conversation))
        database.fails = failing
        with pytest.raises(OperationalError):
            await recorder.flush()
        database.fails = None
        recorder.record(attempt(conversation, 5))
        await recorder.flush()

    run_on_loop(scenario)
    assert characters_of(conversation) == characters_in_events(conversation) == 15
    assert Utterance.objects.count() == 1


def test_a_change_during_a_database_outage_is_not_lost(conversation: Conversation, database: Database):
    async def scenario() -> None:
        recorder, same = Recorder(), speech(conversation)
        recorder.record(same)
        database.fails = "INSERT"
        with pytest.raises(OperationalError):
            await recorder.flush()
        database.fails = None
        same.progress.finished(UtteranceState.SPOKEN)
        recorder.record(same)
        await recorder.flush()

    run_on_loop(scenario)
    assert Utterance.objects.get().state == "spoken"


def test_writing_resumes_after_a_database_outage(conversation: Conversation, database: Database):
    async def scenario() -> None:
        recorder = Recorder()
        recorder.record(attempt(conversation))
        database.fails = "INSERT"
        with pytest.raises(OperationalError):
            await recorder.flush()
        database.fails = None
        deadline = time.monotonic() + 20
        while not await UsageEvent.objects.aexists():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    run_on_loop(scenario)
    assert characters_of(conversation) == 10


def test_two_processes_add_characters_to_one_conversation(conversation: Conversation):
    def write(number: int) -> None:
        async def scenario() -> None:
            recorder = Recorder()
            for size in range(5):
                recorder.record(attempt(conversation, number + size))
            await recorder.flush()

        try:
            async_to_sync(scenario)()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, range(20)))
    assert (
        characters_of(conversation)
        == characters_in_events(conversation)
        == sum(number + size for number in range(20) for size in range(5))
    )


# Rejected rows


@pytest.fixture
def rejected() -> Callable[[], float]:
    """Returns a function that counts the rows rejected since the test began."""

    def total() -> float:
        return REGISTRY.get_sample_value("voicecare_recorder_refused_total") or 0.0

    before = total()
    return lambda: total() - before


def test_a_duplicate_speech_id_does_not_block_other_rows(conversation: Conversation, rejected: Callable[[], float]):
    kept = speech(conversation, "same")
    record(kept, speech(conversation, "same"), speech(conversation, "other"), attempt(conversation))
    assert set(Utterance.objects.values_list("client_speech_id", flat=True)) == {"same", "other"}
    assert Utterance.objects.get(client_speech_id="same").pk == kept.utterance_id
    assert characters_of(conversation) == characters_in_events(conversation) == 10
    assert rejected() == 1


def test_an_invalid_attempt_does_not_block_other_rows(conversation: Conversation, rejected: Callable[[], float]):
    record(speech(conversation), attempt(conversation, kind="free"), attempt(conversation, 5))
    assert characters_of(conversation) == characters_in_events(conversation) == 5
    assert Utterance.objects.count() == rejected() == 1


def test_a_missing_conversation_does_not_block_other_rows(conversation: Conversation, rejected: Callable[[], float]):
    """Its foreign key is checked at the end of the transaction."""
    record(examples.speech("nowhere", patient_id=conversation.patient_id), speech(conversation))
    assert [row.client_speech_id for row in Utterance.objects.all()] == ["s1"]
    assert rejected() == 1


def test_a_value_that_the_driver_rejects_does_not_block_other_rows(
    conversation: Conversation, rejected: Callable[[], float]
):
    """The drivers do not raise DatabaseError for every value that they cannot convert."""
    record(speech(conversation, "huge", bytes_sent=10**30), speech(conversation), attempt(conversation))
    assert [row.client_speech_id for row in Utterance.objects.all()] == ["s1"]
    assert characters_of(conversation) == 10
    assert rejected() == 1


# Number of statements


def test_a_hundred_events_take_one_transaction_of_at_most_four_statements(alice: Member):
    conversations = [new_conversation(alice) for _ in range(10)]
    batch = [attempt(conversations[number % 10]) for number in range(100)]
    with CaptureQueriesContext(connection) as captured:
        record(*batch)
    bookkeeping = ("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT")
    statements = [query["sql"].split()[0] for query in captured if not query["sql"].startswith(bookkeeping)]
    assert len(statements) <= (
        4 if connection.vendor == "postgresql" else 6
    )  # SQLite allows a thousand values per statement
    assert statements.count("UPDATE") == 1
    assert len([query for query in captured if query["sql"].startswith("SAVEPOINT")]) <= 1


def test_the_batch_of_a_long_outage_can_be_written(conversation: Conversation):
    batch = [attempt(conversation, 1) for _ in range(2500)]
    record(*batch)
    assert characters_of(conversation) == UsageEvent.objects.count() == 2500


# Repeated texts


def test_a_counted_text_is_stored_as_a_digest_only(conversation: Conversation):
    attempts = [
        SpokenAttempt(uuid.uuid4(), 0, 1, "live", 9, conversation.pk, text=text, language=language)
        for text, language in (("I see you.", "de-AT"), (" I see  you.", "de"), ("", "de"))
    ]
    attempts[0].mark_answered("request", 9)
    record(*attempts)
    record(attempts[0])  # the digest stays
    digests = dict(UsageEvent.objects.values_list("source", "text_digest"))
    first, again, uncounted = (digests[attempt.source_id] for attempt in attempts)
    assert first == again == text_digest("I see you.", "de", configured.PHRASE_SECRET)
    assert uncounted == ""
    assert "see you" not in repr(attempts)
