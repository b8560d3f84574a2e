"""The outbox under any order of events: two devices of one patient, connections that end, crash and come back."""

import uuid

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.conftest import Member
from tests.tts.outbox.connections import DeviceConnection, connect, expire, second_device, submit
from tts.models import Utterance
from tts.outbox import leases, store
from tts.outbox.claim import Claim
from voicecare.patients.models import Device

ENDED = {"heard", "failed", "expired", "interrupted"}
which = st.integers(0, 1)
picks = st.integers(0, 100)


class Outbox(RuleBasedStateMachine):
    alice: Member
    devices: list[Device]

    def __init__(self) -> None:
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()
        self.sockets: dict[int, DeviceConnection] = {}
        self.claims: list[tuple[DeviceConnection, Claim]] = []  # also lost claims
        self.rows: list[uuid.UUID] = []
        self.heard: set[uuid.UUID] = set()
        self.attempts: dict[uuid.UUID, int] = {}
        self.final: dict[uuid.UUID, str] = {}
        self.played_by: dict[uuid.UUID, str] = {}

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.example.__exit__(None, None, None)

    @rule()
    def submits(self) -> None:
        self.rows.append(submit(self.alice.patient).pk)

    @rule(number=which)
    def connects(self, number: int) -> None:
        """Connect again, also while the earlier connection is still open."""
        self.sockets[number] = connect(self.alice, self.devices[number])

    @rule(number=which, crashed=st.booleans())
    def leaves(self, number: int, crashed: bool) -> None:
        socket = self.sockets.pop(number, None)
        if socket is not None:
            socket.lapse() if crashed else socket.disconnect()

    @rule(number=which)
    def falls_asleep(self, number: int) -> None:
        """Pause the process for longer than a lease."""
        if number in self.sockets:
            self.sockets[number].lapse()

    @rule(number=which)
    def shows_life(self, number: int) -> None:
        if number in self.sockets:
            self.sockets[number].renew()

    @rule(number=which, quota_exhausted=st.booleans(), hold_live=st.booleans())
    def claims_the_next(self, number: int, quota_exhausted: bool, hold_live: bool) -> None:
        socket = self.sockets.get(number)
        if socket is None:
            return
        free = [key for key in self.free(quota_exhausted) if self.played_by.get(key) != socket.owner]
        was_due = socket.due(quota_exhausted=quota_exhausted, hold_live=hold_live)
        claim = socket.claim(quota_exhausted=quota_exhausted, hold_live=hold_live)
        assert (claim is not None) is (was_due and bool(free))
        if claim is not None:
            assert claim.id == free[0], "an older one was overtaken"
            assert claim.id not in self.heard
            assert claim.attempt == self.attempts.get(claim.id, 0) + 1
            self.claims.append((socket, claim))

    def free(self, quota_exhausted: bool) -> list[uuid.UUID]:
        """Return the ids of claimable rows in order."""
        rows = {row.pk: row for row in Utterance.objects.all()}
        now = timezone.now()
        return [
            key
            for key in self.rows
            if (row := rows[key]).state not in ENDED
            and row.expires_at > now
            and (row.lease_until is None or row.lease_until <= now)
            and not (quota_exhausted and row.state == "queued")
        ]

    @precondition(lambda self: self.claims)
    @rule(pick=picks, state=st.sampled_from(["spoken", "spoken", "failed", "interrupted"]))
    def finishes(self, pick: int, state: str) -> None:
        socket, claim = self.claims[pick % len(self.claims)]
        before = Utterance.objects.get(pk=claim.id)
        if socket.finish(claim, state=state):
            self.played_by[claim.id] = claim.owner
            assert (before.owner, before.attempts) == (claim.owner, claim.attempt)
            assert before.state in ("speaking", "heard")

    @precondition(lambda self: self.claims)
    @rule(pick=picks, queued=st.booleans())
    def puts_back(self, pick: int, queued: bool) -> None:
        store.requeue(self.claims[pick % len(self.claims)][1], queued=queued)

    @precondition(lambda self: self.claims)
    @rule(pick=picks)
    def is_about_to_speak(self, pick: int) -> None:
        claim = self.claims[pick % len(self.claims)][1]
        assert not (store.confirm(claim) and claim.id in self.heard)

    @precondition(lambda self: self.rows)
    @rule(pick=picks)
    def is_acknowledged(self, pick: int) -> None:
        key = self.rows[pick % len(self.rows)]
        assert store.acknowledge(key, self.alice.patient.pk) is (key in self.attempts)
        if Utterance.objects.get(pk=key).state == "heard":
            self.heard.add(key)

    @precondition(lambda self: self.rows)
    @rule(pick=picks)
    def is_withdrawn(self, pick: int) -> None:
        store.cancel(self.rows[pick % len(self.rows)], self.alice.patient.pk)

    @precondition(lambda self: self.rows)
    @rule(pick=picks)
    def is_late(self, pick: int) -> None:
        expire(Utterance.objects.get(pk=self.rows[pick % len(self.rows)]))

    @rule()
    def is_tidied(self) -> None:
        leases.reap_expired()

    @invariant()
    def one_at_a_time(self) -> None:
        assert Utterance.objects.filter(state="speaking", lease_until__gt=timezone.now()).count() <= 1

    @invariant()
    def nothing_goes_back(self) -> None:
        for row in Utterance.objects.all():
            assert row.attempts >= self.attempts.get(row.pk, 0)
            if row.attempts:
                self.attempts[row.pk] = row.attempts
            assert self.final.get(row.pk, row.state) == row.state, "what has ended stays as it ended"
            if row.state in ENDED:
                self.final[row.pk] = row.state
            assert (row.state in ("speaking", "spoken")) <= bool(row.owner)
            assert row.state not in ("waiting", "queued") or not row.owner


@pytest.mark.django_db
def test_any_order_of_events(alice: Member):
    Outbox.alice = alice
    Outbox.devices = [alice.device, second_device(alice)]
    run_state_machine_as_test(
        Outbox,
        settings=settings(max_examples=15, stateful_step_count=30, suppress_health_check=list(HealthCheck)),
    )
