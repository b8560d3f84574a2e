"""The outbox client of one connection, also while the database is unavailable."""

import asyncio
import time
import uuid

import pytest

from tests.conftest import Member
from tests.e2e.database import missing_table
from tests.e2e.rows import in_database
from tests.tts.examples import opened
from tests.tts.outbox.connections import connect, state_of, submit
from tests.waiting import eventually
from tts.conversations import lifecycle
from tts.devices.outbox_client import OutboxClient
from tts.models import Utterance
from tts.outbox import leases, store
from tts.outbox.claim import Claim
from tts.speech import Speech
from tts.states import SERVER_PREFIX, UtteranceState
from tts.synthesis.admission import RETRY_INTERVAL_S
from tts.synthesis.pipeline import MAX_WAIT_AFTER_QUOTA_S

pytestmark = pytest.mark.django_db(transaction=True)  # the client uses its own threads

UTTERANCES = Utterance._meta.db_table


async def new_client(member: Member) -> OutboxClient:
    """Return the outbox client of a new connection of this member's device."""
    socket = await in_database(connect, member)
    return OutboxClient(member.device.pk, leases.owner_epoch(socket.owner), member.patient.pk)


async def claim_next(outbox: OutboxClient) -> Claim | None:
    return await outbox.claim(None, quota_exhausted=False, hold_live=False)


async def take_next(outbox: OutboxClient) -> tuple[Claim, Speech]:
    """Return the speech of a claim. Its conversation is not in the database, so that `finish` would fail."""
    claim = await claim_next(outbox)
    assert claim is not None
    return claim, outbox.make_speech(claim, opened().context)


async def play_unwritten(outbox: OutboxClient, member: Member) -> tuple[Claim, Speech]:
    """Claim a row and finish it. The end is not written yet."""
    claim = await claim_next(outbox)
    assert claim is not None
    conversation = await in_database(lifecycle.start, member.device.pk, None)
    speech = outbox.make_speech(claim, conversation.context)
    assert await outbox.confirm_start(claim)
    speech.progress.billed(len(claim.text))
    speech.progress.finished(UtteranceState.SPOKEN)
    return claim, speech


async def play_next(outbox: OutboxClient, member: Member) -> Claim:
    claim, speech = await play_unwritten(outbox, member)
    outbox.finish(claim, speech)
    await outbox.flush()
    return claim


async def state(row: Utterance | Claim) -> str:
    return await in_database(state_of, row)


async def test_a_claimed_row_becomes_a_speech_with_a_server_id(alice: Member):
    row = await in_database(submit, alice.patient, "Your tea is ready.")
    outbox = await new_client(alice)
    claim, speech = await take_next(outbox)
    assert (speech.id, speech.utterance_id, speech.claim) == (f"{SERVER_PREFIX}{row.pk}", row.pk, claim)
    assert (speech.text_stream.text, speech.text_stream.complete, speech.origin) == (
        "Your tea is ready.",
        True,
        "server",
    )
    assert await claim_next(outbox) is None  # one at a time


async def test_every_delivery_has_its_own_attempt_numbers_in_the_ledger(alice: Member):
    await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim, first = await take_next(outbox)
    outbox.requeue(claim)
    await outbox.flush()
    _, second = await take_next(outbox)
    assert (
        second.attempt_number(1) - first.attempt_number(1) > MAX_WAIT_AFTER_QUOTA_S / RETRY_INTERVAL_S
    )  # one attempt for each poll for a slot


async def test_a_played_delivery_is_repeated_on_the_next_connection_only(alice: Member):
    row = await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    await play_next(outbox, alice)
    assert await state(row) == "spoken"
    await in_database(Utterance.objects.update, state="waiting", owner="", lease_until=None)
    assert await claim_next(outbox) is None
    claim = await claim_next(await new_client(alice))
    assert claim is not None
    assert claim.id == row.pk


async def test_a_requeued_delivery_is_repeated_on_the_same_connection(alice: Member):
    row = await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim, _ = await take_next(outbox)
    outbox.requeue(claim, queued=True)
    await outbox.flush()
    assert await state(row) == "queued"
    again = await claim_next(outbox)
    assert again is not None
    assert (again.id, again.attempt) == (row.pk, 2)


async def test_a_delivery_that_was_acknowledged_after_the_claim_does_not_start(alice: Member):
    row = await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim, speech = await take_next(outbox)
    assert await outbox.acknowledge(speech.id)
    assert not await outbox.confirm_start(claim)
    assert await state(row) == "heard"


async def test_rows_are_released_when_the_connection_ends(alice: Member):
    row = await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    await play_next(outbox, alice)
    await outbox.release_all()
    assert await state(row) == "waiting"


async def test_a_new_connection_takes_over_the_rows_of_the_earlier_one(alice: Member):
    row = await in_database(submit, alice.patient)
    former = await new_client(alice)
    assert await claim_next(former) is not None
    epoch = await in_database(alice.device.register_connection)
    later = OutboxClient(alice.device.pk, epoch, alice.patient.pk)
    await later.take_over()
    claim = await claim_next(later)
    assert claim is not None
    assert claim.id == row.pk


# Ids in messages of the device


@pytest.mark.parametrize("speech_id", ["srv-", "srv-nonsense", f"srv-{uuid.UUID(int=7)}"])
async def test_invalid_ids_are_unknown(speech_id: str, alice: Member):
    outbox = await new_client(alice)
    assert not await outbox.acknowledge(speech_id)
    assert not await outbox.cancel(speech_id)
    assert not await outbox.is_known(speech_id)


async def test_a_delivery_of_another_patient_is_unknown(alice: Member, bob: Member):
    row = await in_database(submit, bob.patient)
    claim = await play_next(await new_client(bob), bob)
    outbox = await new_client(alice)
    assert not await outbox.acknowledge(claim.speech_id)
    assert not await outbox.is_known(claim.speech_id)
    assert await state(row) == "spoken"


async def test_only_a_waiting_delivery_can_be_cancelled(alice: Member):
    row = await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim, speech = await take_next(outbox)
    assert (await outbox.cancel(speech.id), await outbox.is_known(speech.id)) == (False, True)
    outbox.requeue(claim)
    await outbox.flush()
    assert await outbox.cancel(speech.id)
    assert await state(row) == "interrupted"


async def test_a_device_is_notified_once_of_a_queued_speech_and_once_of_its_expiry(alice: Member):
    await in_database(submit, alice.patient, expires_in_s=1)
    outbox = await new_client(alice)
    claim, speech = await take_next(outbox)
    assert [outbox.mark_queued_notified(claim) for _ in range(2)] == [True, False]
    outbox.requeue(claim, queued=True)
    await outbox.flush()
    assert await pop_expired(outbox) == []
    assert await wait_and_pop_expired(outbox) == [speech.id]
    assert await pop_expired(outbox) == []
    assert not outbox.forget_queued(speech.id)


@pytest.mark.parametrize("state", ["speaking", "spoken", "heard", "interrupted"])
async def test_a_speech_that_another_device_has_ended_has_not_expired(alice: Member, state: str):
    await in_database(submit, alice.patient, expires_in_s=1)
    outbox = await new_client(alice)
    claim, speech = await take_next(outbox)
    outbox.mark_queued_notified(claim)
    await in_database(Utterance.objects.update, state=state)
    assert await wait_and_pop_expired(outbox) == []
    assert not outbox.forget_queued(speech.id)


async def pop_expired(outbox: OutboxClient) -> list[str]:
    """Return the expired speeches of this client, as the registry finds them for all clients together."""
    overdue = outbox.overdue(time.monotonic())
    return outbox.pop_overdue(overdue, await in_database(store.expired_among, overdue))


async def wait_and_pop_expired(outbox: OutboxClient) -> list[str]:
    """Return when the second until the expiry is over."""
    await asyncio.sleep(1.05)
    return await pop_expired(outbox)


async def test_a_speech_that_starts_is_no_longer_queued(alice: Member):
    await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim, speech = await take_next(outbox)
    outbox.mark_queued_notified(claim)
    outbox.make_speech(claim, opened().context)
    assert not outbox.forget_queued(speech.id)


async def test_a_speech_that_waited_for_the_quota_is_marked(alice: Member):
    await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim, first = await take_next(outbox)
    outbox.requeue(claim, queued=True)
    await outbox.flush()
    _, second = await take_next(outbox)
    assert (first.progress.waited_for_quota, second.progress.waited_for_quota) == (False, True)


# Without a database: writes are delayed, and block no other speech


async def test_an_unwritten_end_is_written_before_the_next_claim(alice: Member):
    first, second = [await in_database(submit, alice.patient, text) for text in ("First.", "Second.")]
    outbox = await new_client(alice)
    claim, speech = await play_unwritten(outbox, alice)
    async with missing_table(UTTERANCES):
        outbox.finish(claim, speech)
        await outbox.flush()
        assert outbox.has_pending_writes
        assert await claim_next(outbox) is None
    following = await claim_next(outbox)
    assert following is not None
    assert (following.id, outbox.has_pending_writes) == (second.pk, False)
    assert await state(first) == "spoken"


async def test_an_unwritten_requeue_is_written_later(alice: Member):
    row = await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim, _ = await take_next(outbox)
    async with missing_table(UTTERANCES):
        outbox.requeue(claim)
        await outbox.flush()
    again = await claim_next(outbox)
    assert again is not None
    assert again.id == row.pk


async def test_a_delivery_that_cannot_be_confirmed_waits_again(alice: Member):
    row = await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim, _ = await take_next(outbox)
    async with missing_table(UTTERANCES):
        assert not await outbox.confirm_start(claim)
        assert outbox.has_pending_writes
    again = await claim_next(outbox)
    assert again is not None
    assert again.id == row.pk


async def test_a_claim_whose_answer_was_lost_is_repeated(alice: Member):
    """The database may have written the claim without answering. Otherwise this row would never be delivered."""
    row = await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    async with missing_table(UTTERANCES):
        assert await claim_next(outbox) is None
    unanswered = await in_database(
        store.claim, alice.device.pk, outbox.owner, None, quota_exhausted=False, hold_live=False
    )
    assert unanswered is not None
    claim = await claim_next(outbox)
    assert claim is not None
    assert (claim.id, claim.attempt) == (row.pk, unanswered.attempt + 1)


async def test_a_row_that_the_database_rejects_does_not_block_others(alice: Member):
    """Its conversation no longer exists."""
    first, second = [await in_database(submit, alice.patient, text) for text in ("First.", "Second.")]
    outbox = await new_client(alice)
    claim, speech = await take_next(outbox)
    speech.progress.finished(UtteranceState.SPOKEN)
    outbox.finish(claim, speech)
    await outbox.flush()
    assert await state(first) == "waiting"
    following = await claim_next(outbox)
    assert following is not None
    assert following.id == second.pk


async def test_an_acknowledgement_waits_for_the_database(alice: Member):
    await in_database(submit, alice.patient)
    outbox = await new_client(alice)
    claim = await play_next(outbox, alice)
    async with missing_table(UTTERANCES):
        acknowledging = asyncio.create_task(outbox.acknowledge(claim.speech_id))
        await asyncio.sleep(0.1)
        assert not acknowledging.done()
    assert await acknowledging
    assert await state(claim) == "heard"


async def test_a_connection_may_open_while_the_database_is_unavailable(alice: Member):
    outbox = await new_client(alice)
    async with missing_table(UTTERANCES):
        await outbox.take_over()
        assert not await outbox.cancel(f"srv-{uuid.uuid4()}")

    async def works() -> bool:
        return await claim_next(outbox) is None and not outbox.has_pending_writes

    await eventually(works)
