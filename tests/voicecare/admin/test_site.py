"""The admin's own pages over HTTP: who gets which, and what that costs."""

import csv
import uuid

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.voicecare.dashboard import history
from usage.models import DailyUsage, Incident
from voicecare.patients.models import Patient

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


@pytest.fixture
def cast(db: None) -> list[Patient]:
    cache.clear()
    return history.write(days=3)


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("-".join(["staff", *permissions]), is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def usage_of(patient: Patient) -> str:
    return f"/admin/patients/patient/{patient.pk}/usage/"


def addresses(patient: Patient) -> list[str]:
    own = usage_of(patient)
    return ["/admin/", "/admin/live/", "/admin/figures/days.csv", own, f"{own}live/", f"{own}days.csv"]


def test_the_bare_address_leads_to_the_admin():
    assert Client().get("/").headers["Location"] == "/admin/"


def test_an_administrator_gets_every_page(cast, admin_client: Client):
    for address in addresses(cast[0]):
        assert admin_client.get(address).status_code == 200, address


def test_others_get_none(cast):
    visitor, clinician = Client(), Client()
    clinician.force_login(User.objects.create_user("clinician"))
    for address in addresses(cast[0]):
        assert visitor.get(address).status_code == 302, address
        assert clinician.get(address).status_code == 302, address


def test_staff_get_what_they_have_permissions_for(cast):
    few = staff()
    assert few.get("/admin/").status_code == 200
    assert few.get("/admin/live/").content.strip() == b""
    assert few.get("/admin/figures/days.csv").status_code == 404
    assert few.get(usage_of(cast[0])).status_code == 403
    assert staff("view_dailyusage").get(usage_of(cast[0])).status_code == 403
    assert staff("view_patient").get(usage_of(cast[0])).status_code == 403
    assert staff("view_patient", "view_dailyusage").get(usage_of(cast[0])).status_code == 200


def test_names_are_for_those_who_may_see_patients(cast):
    history.at_this_moment(cast)
    client = staff("view_dailyusage", "view_device", "view_clonejob", "view_incident")
    for address in ("/admin/", "/admin/live/"):
        page = client.get(address).content.decode()
        assert not any(patient.name in page for patient in cast)
    assert client.get("/admin/figures/patients.csv").status_code == 404


def test_who_is_not_there_is_not_found(cast, admin_client: Client):
    Patient.objects.filter(pk=cast[1].pk).update(erased_at="2026-01-01T00:00Z")
    for key in (cast[1].pk, uuid.uuid4()):
        for page in ("", "live/", "days.csv"):
            assert admin_client.get(f"/admin/patients/patient/{key}/usage/{page}").status_code == 404
    assert admin_client.get("/admin/figures/weeks.csv").status_code == 404
    assert (
        f"/{cast[1].pk}/usage/"
        not in admin_client.get(f"/admin/patients/patient/{cast[1].pk}/change/").content.decode()
    )


def test_a_name_that_a_spreadsheet_would_run_is_quoted(cast, admin_client: Client):
    Patient.objects.filter(pk=cast[0].pk).update(name="=HYPERLINK(1)")
    rows = list(csv.reader(admin_client.get("/admin/figures/patients.csv").content.decode("utf-8-sig").splitlines()))
    assert "'=HYPERLINK(1)" in [row[0] for row in rows]


def test_a_name_with_markup_is_only_a_name(cast, admin_client: Client):
    Patient.objects.filter(pk=cast[0].pk).update(name="</script><b>M")
    history.connect(cast[0])
    for address in ("/admin/", usage_of(cast[0])):
        assert "<b>M" not in admin_client.get(address).content.decode()


def test_no_page_holds_code_that_a_policy_could_not_tell_from_an_attack(cast, admin_client: Client):
    for address in ("/admin/", usage_of(cast[0])):
        page = admin_client.get(address).content.decode()
        scripts = page.split("<script")[1:]
        assert all('src="' in one.partition(">")[0] or "application/json" in one.partition(">")[0] for one in scripts)
        assert " style=" not in page
        assert " onclick=" not in page


@pytest.mark.parametrize("path", ["/admin/", "/admin/live/", "own"])
def test_much_costs_as_many_queries_as_little(cast, admin_client: Client, path: str):
    address = usage_of(cast[0]) if path == "own" else path
    history.at_this_moment(cast)
    little = queries(admin_client, address)
    for number in range(12):
        Incident.objects.create(kind="voice", key=str(number))
        history.connect(cast[number % 8])
    DailyUsage.objects.all().delete()
    history.write(days=200, patients=20)
    cache.clear()
    assert queries(admin_client, address) == little
    assert little <= 25


def test_of_the_ledger_only_what_is_unknown_is_read(cast, admin_client: Client):
    for address in addresses(cast[0]):
        with CaptureQueriesContext(connection) as asked:
            admin_client.get(address)
        of_events = [query["sql"] for query in asked if "usage_usageevent" in query["sql"]]
        assert len(of_events) == (address == "/admin/")
        assert all("\"outcome\" = 'unknown'" in sql for sql in of_events)  # a small index has these alone


def queries(client: Client, address: str) -> int:
    client.get(address)  # what is kept for later is made now
    with CaptureQueriesContext(connection) as asked:
        assert client.get(address).status_code == 200
    return len(asked)
