"""Connections and rows for the tests of the outbox."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from tests.conftest import Member
from tts.conversations.lifecycle import start
from tts.models import Utterance
from tts.outbox import leases, store
from tts.outbox.claim import Claim
from voicecare.patients.models import Device, Patient

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FINISHED = {
    "state": "spoken",
    "source": "live",
    "code": "",
    "queue_reason": "",
    "characters": 10,
    "bytes_sent": 1000,
    "first_chunk_ms": 12.5,
    "spoken_at": datetime(2024, 1, 1, tzinfo=UTC),
}


@dataclass
class DeviceConnection:
    """One connection of a device."""

    device: uuid.UUID
    owner: str
    conversation: uuid.UUID | None = None

    def claim(self, *, quota_exhausted: bool = False, hold_live: bool = False, exclude: tuple[uuid.UUID, ...] = ()):
        return store.claim(
            self.device,
            self.owner,
            self.conversation,
            quota_exhausted=quota_exhausted,
            hold_live=hold_live,
            exclude=exclude,
        )

    def due(self, *, quota_exhausted: bool = False, hold_live: bool = False) -> bool:
        """Whether the registry would wake the connection: it asks first for which patients something waits."""
        waiting = {"quota_exhausted": quota_exhausted, "hold_live": hold_live}
        is_due = self.device in store.devices_with_work([self.device], **waiting)
        patient = Device.objects.values_list("patient", flat=True).get(pk=self.device)
        assert not is_due or patient in store.patients_with_work(**waiting)
        return is_due

    def finish(self, claim: Claim, **changes: object) -> bool:
        return store.finish(claim, **{**FINISHED, "conversation_id": self.conversation, **changes})

    def renew(self) -> None:
        leases.renew({self.owner: self.device})

    def disconnect(self) -> None:
        leases.release_all(self.device, self.owner)

    def lapse(self) -> None:
        """Let the leases expire, as if the process was killed LEASE_S ago."""
        Utterance.objects.filter(owner=self.owner, lease_until__isnull=False).update(lease_until=PAST)
        Device.objects.filter(pk=self.device).update(online_until=PAST)


def connect(member: Member, device: Device | None = None, *, talking: bool = False) -> DeviceConnection:
    device = Device.objects.get(pk=(device or member.device).pk)
    socket = DeviceConnection(device.pk, leases.owner_name(device.pk, device.register_connection()))
    leases.take_over(socket.device, socket.owner)
    if talking:
        socket.conversation = start(device.pk, None).context.conversation_id
    return socket


def second_device(member: Member) -> Device:
    return Device.objects.issue(member.patient, "kitchen")[0]


def console(member: Member, *, takes_messages: bool = False) -> Device:
    return Device.objects.issue_console(member.patient, "console", takes_messages=takes_messages)[0]


def submit(patient: Patient, text: str = "Your tea is ready.", **fields: object) -> Utterance:
    return store.submit(patient.pk, text, **{"expires_in_s": 900, "author": None, **fields})


def queue(socket: DeviceConnection, patient: Patient, client_id: str = "a1", **fields: object) -> Utterance:
    """Create live speech that waits for the quota and that no connection owns."""
    return Utterance.objects.create(
        conversation_id=socket.conversation,
        patient=patient,
        client_speech_id=client_id,
        text="How are you?",
        **{
            "origin": "device",
            "state": "queued",
            "expires_at": timezone.now() + timedelta(minutes=15),
            **fields,
        },
    )


def state_of(row: Utterance | Claim) -> str:
    return Utterance.objects.values_list("state", flat=True).get(pk=row.id)


def expire(row: Utterance | Claim) -> None:
    Utterance.objects.filter(pk=row.id).update(expires_at=PAST)
