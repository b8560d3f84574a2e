"""The audit trail in the admin: search by person, patient and time, the export, and who may see it."""

import csv
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.conftest import Member
from tests.roles import give_permissions, role
from voicecare.admin.overview.audit_export import BATCH_SIZE
from voicecare.audit.models import AuditEntry

pytestmark = pytest.mark.django_db
LIST = "/admin/audit/auditentry/"


def entry(action: str, **fields: Any) -> AuditEntry:
    return AuditEntry.objects.create(**{"action": action, "source": "admin", **fields})


def actions_in(client: Client, **query: str) -> set[str]:
    """Return the actions of the entries in the list, or "refused" if the query is not accepted."""
    response = client.get(LIST, query)
    return (
        {shown.action for shown in response.context["cl"].result_list} if response.status_code == 200 else {"refused"}
    )


def exported(client: Client, **query: str) -> list[dict[str, str]]:
    response: Any = client.get(f"{LIST}export.csv", query)
    assert response.status_code == 200

    async def read(chunks: AsyncIterator[bytes]) -> str:
        return b"".join([chunk async for chunk in chunks]).decode("utf-8-sig")

    return list(csv.DictReader(async_to_sync(read)(response.streaming_content).splitlines()))


def staff(name: str, *permissions: str, in_role: str = "") -> Client:
    user = User.objects.create_user(name, is_staff=True)
    if in_role:
        user.groups.add(role(in_role))
    client = Client()
    client.force_login(give_permissions(user, *permissions))
    return client


@pytest.fixture
def history(alice: Member, bob: Member) -> None:
    carol = User.objects.create_user("carol", first_name="Caroline", last_name="Smith")
    entry("read_text", user_id=carol.pk, user_name="carol", patient_id=alice.patient.pk, object_id=str(alice.device.pk))
    entry("archive", user_id=999, user_name="deleted", patient_id=bob.patient.pk)
    entry("erase", patient_id=uuid.UUID(int=7), at=timezone.now() - timedelta(days=3650))


def test_a_search_finds_people_and_patients(admin_client: Client, alice: Member, history: None):
    assert actions_in(admin_client) == {"read_text", "archive"}
    for term in ("carol", "smith CAROLINE", "Alice", "Archer", str(alice.patient.pk), str(alice.device.pk)):
        assert actions_in(admin_client, q=term) == {"read_text"}, term
    assert actions_in(admin_client, q="deleted") == {"archive"}
    assert actions_in(admin_client, q="nobody") == set()


def test_an_erased_patient_is_found_by_the_id_on_any_date(admin_client: Client, history: None):
    assert actions_in(admin_client, q=str(uuid.UUID(int=7))) == {"erase"}
    assert str(uuid.UUID(int=7))[:8] in admin_client.get(LIST, {"q": str(uuid.UUID(int=7))}).content.decode()


def test_two_days_may_be_ten_years_apart(admin_client: Client, history: None):
    today = timezone.localdate()
    old = today - timedelta(days=3650)
    assert actions_in(admin_client, **{"from": "2000-01-01"}) == {"read_text", "archive", "erase"}
    assert actions_in(admin_client, **{"from": "0001-01-01", "to": "9999-12-31"}) == {"read_text", "archive", "erase"}
    assert actions_in(admin_client, to=str(today - timedelta(days=2))) == {"erase"}
    assert actions_in(admin_client, **{"from": str(old - timedelta(days=1)), "to": str(old + timedelta(days=1))}) == {
        "erase"
    }
    assert actions_in(admin_client, **{"from": "2000-01-01", "action": "archive"}) == {"archive"}


@pytest.mark.parametrize("query", [{"from": "yesterday"}, {"patient_id": "Alice"}, {"user_id": "carol"}], ids=str)
def test_a_wrong_query_is_refused(admin_client: Client, query: dict[str, str]):
    assert actions_in(admin_client, **query) == {"refused"}
    assert admin_client.get(f"{LIST}export.csv", query).status_code == 400
    assert not AuditEntry.objects.exists()


def test_the_history_of_a_row_is_its_audit_trail(admin_client: Client, alice: Member, history: None):
    entry("revoke", patient_id=alice.patient.pk, object_id="another")
    of_patient = admin_client.get(f"/admin/patients/patient/{alice.patient.pk}/history/", follow=True)
    assert {row.action for row in of_patient.context["cl"].result_list} == {"read_text", "revoke"}
    of_device = admin_client.get(f"/admin/patients/device/{alice.device.pk}/history/", follow=True)
    assert {row.action for row in of_device.context["cl"].result_list} == {"read_text"}


# Who may see what


def test_administrators_and_auditors_see_it_and_others_do_not(alice: Member, history: None):
    saved = AuditEntry.objects.earliest("pk")
    pages = [LIST, f"{LIST}{saved.pk}/change/", f"{LIST}export.csv"]
    pages += [f"/admin/patients/device/{alice.device.pk}/history/"]
    for name in ("Administrator", "Auditor"):
        client = staff(name, in_role=name)
        assert [client.get(url, follow=True).status_code for url in pages] == [200] * 4
    client = staff("clinician", in_role="Clinician")
    assert [client.get(url).status_code for url in pages] == [403] * 4
    assert "historylink" not in client.get(f"/admin/patients/device/{alice.device.pk}/change/").content.decode()


def test_names_of_patients_need_the_permission_to_see_patients(alice: Member, history: None):
    everything = ("audit.view_auditentry", "patients.view_all_patients")
    client = staff("ann", *everything)
    assert "Alice" not in client.get(LIST).content.decode()
    assert actions_in(client, q="Alice") == set()
    assert "Alice" in staff("bea", *everything, "patients.view_patient").get(LIST).content.decode()


def test_entries_cannot_be_changed_on_the_page(admin_client: Client, history: None):
    saved = AuditEntry.objects.earliest("pk")
    for page in ("change", "delete"):
        assert admin_client.post(f"{LIST}{saved.pk}/{page}/", {"post": "yes", "action": "x"}).status_code == 403
    assert admin_client.get(f"{LIST}add/").status_code == 403
    admin_client.post(LIST, {"action": "delete_selected", "_selected_action": str(saved.pk), "post": "yes"})
    assert AuditEntry.objects.filter(pk=saved.pk).exists()


# The export


@pytest.mark.django_db(transaction=True)
def test_the_export_ends_after_entries_with_times_of_the_database(admin_client: Client):
    """SQLite's Now() is a shorter text than the same time from Python, so it is "less" than itself."""
    AuditEntry.objects.create(action="add", source="rest")
    assert [row["Source"] for row in exported(admin_client, action="add")] == ["REST"]


@pytest.mark.django_db(transaction=True)
def test_the_export_has_every_entry_that_the_filters_find(admin_client: Client, alice: Member):
    count = 2 * BATCH_SIZE + 300
    moment = timezone.now() - timedelta(days=3000)
    at = [moment - timedelta(days=number // 10) for number in range(count)]  # ten entries at the same time
    AuditEntry.objects.bulk_create(
        AuditEntry(
            at=at[number],
            action="change",
            source="rest",
            user_id=number,
            user_name="=cmd()" if number == 39 else "carol",
            patient_id=alice.patient.pk if number == 0 else None,
            changes={"speech_rate": ["1.00", "0.80"]} if number == 0 else {},
        )
        for number in reversed(range(count))
    )
    AuditEntry.objects.create(action="add", source="rest")
    rows = exported(admin_client, **{"from": "2000-01-01", "action": "change"})
    assert sorted(int(row["User id"] or 0) for row in rows) == list(range(count))
    assert [row["Time"] for row in rows] == sorted((row["Time"] for row in rows), reverse=True)
    (first,) = [row for row in rows if row["Patient id"]]
    assert (first["Patient"], first["Changes"]) == ("Alice Archer", '{"speech_rate": ["1.00", "0.80"]}')
    assert [row["Person"] for row in rows if row["User id"] == "39"] == ["'=cmd()"]
    export = AuditEntry.objects.latest("pk")
    assert (export.action, export.object_type, export.user_name) == ("export", "audit.auditentry", "admin")
