"""The device of `manage.py talk --patient`."""

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from tests.conftest import Member
from tests.server import ServerProcess
from tests.waiting import until
from voicecare.audit.models import AuditEntry
from voicecare.management import talk_device
from voicecare.patients.models import Device, Patient


@pytest.fixture
def patients(db: None) -> dict[str, Patient]:
    names = ("Thomas Reed", "Thomas Reeder", "Margaret Ellis")
    return {name: Patient.objects.create(name=name, companion_name="Clara", language="en") for name in names}


@pytest.mark.parametrize("name", ["Margaret Ellis", "margaret", "ELLIS marg"])
def test_a_name_or_words_of_it_find_a_patient(name: str, patients: dict[str, Patient]):
    with talk_device.issued(name) as token:
        device = Device.objects.get(patient=patients["Margaret Ellis"])
        assert device.token_matches(token)
        assert device in Device.objects.connectable()
        assert not device.takes_messages
    assert device not in Device.objects.connectable()
    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True)) == ["add", "revoke"]


def test_a_whole_name_is_not_ambiguous(patients: dict[str, Patient]):
    with talk_device.issued("Thomas Reed") as token:
        assert Device.objects.get(patient=patients["Thomas Reed"]).token_matches(token)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nobody", 'No active patient is named "Nobody".'),
        (
            "Thomas",
            r'Several patients are named "Thomas": Thomas Reed \(.*\), Thomas Reeder \(.*\)\. Give the whole name',
        ),
        (" ", "--patient needs a name"),
    ],
)
def test_an_unknown_or_ambiguous_name_is_an_error(name: str, message: str, patients: dict[str, Patient]):
    with pytest.raises(CommandError, match=message), talk_device.issued(name):
        pass
    assert not Device.objects.exists()


def test_an_archived_patient_is_not_found(patients: dict[str, Patient]):
    Patient.objects.filter(name="Margaret Ellis").update(archived_at=timezone.now())
    with pytest.raises(CommandError, match="No active patient"), talk_device.issued("Margaret"):
        pass


def test_talk_speaks_as_the_patient_hears_it(
    server: ServerProcess, alice: Member, tmp_path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "heard.mp3"
    call_command("talk", "Good morning", "--patient", "Alice Archer", "--url", server.ws, "--out", str(out))
    assert len(out.read_bytes()) > 5_000
    until(lambda: not Device.objects.connectable().consoles().exists(), 10)
