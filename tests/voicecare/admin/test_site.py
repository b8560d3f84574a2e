"""The project's own admin pages over HTTP: permissions, escaping, and the number of queries."""

import csv
import uuid

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.conftest import Member
from tests.roles import role
from tests.voicecare.dashboard import history
from usage.models import DailyUsage, Incident
from voicecare.patients.models import Patient

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at:UserWarning")]


@pytest.fixture
def patients(db: None) -> list[Patient]:
    cache.clear()
    return history.create_usage(days=3)


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("-".join(["staff", *permissions]), is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=(*permissions, "view_all_patients")))
    client = Client()
    client.force_login(user)
    return client


def usage_url(patient: Patient) -> str:
    return f"/admin/patients/patient/{patient.pk}/usage/"


def page_urls(patient: Patient) -> list[str]:
    own = usage_url(patient)
    return ["/admin/", "/admin/live/", "/admin/figures/days.csv", own, f"{own}live/", f"{own}days.csv"]


def test_the_root_url_redirects_to_the_admin():
    assert Client().get("/").headers["Location"] == "/admin/"


def test_an_administrator_gets_every_page(patients, admin_client: Client):
    for url in page_urls(patients[0]):
        assert admin_client.get(url).status_code == 200, url


def test_visitors_and_clinicians_are_redirected_from_every_page(patients):
    visitor, clinician = Client(), Client()
    clinician.force_login(User.objects.create_user("clinician"))
    for url in page_urls(patients[0]):
        assert visitor.get(url).status_code == 302, url
        assert clinician.get(url).status_code == 302, url


def test_staff_get_only_the_pages_they_have_permissions_for(patients):
    unprivileged = staff()
    assert unprivileged.get("/admin/").status_code == 200
    assert unprivileged.get("/admin/live/").content.strip() == b""
    assert unprivileged.get("/admin/figures/days.csv").status_code == 404
    assert unprivileged.get(usage_url(patients[0])).status_code == 403
    assert staff("view_dailyusage").get(usage_url(patients[0])).status_code == 403
    assert staff("view_patient").get(usage_url(patients[0])).status_code == 403
    assert staff("view_patient", "view_dailyusage").get(usage_url(patients[0])).status_code == 200


def test_names_are_hidden_from_users_without_permission_for_patients(patients):
    history.create_current_state(patients)
    client = staff("view_dailyusage", "view_device", "view_clonejob", "view_incident")
    for url in ("/admin/", "/admin/live/"):
        page = client.get(url).content.decode()
        assert not any(patient.name in page for patient in patients)
    assert client.get("/admin/figures/patients.csv").status_code == 404


def test_erased_and_unknown_patients_and_charts_are_not_found(patients, admin_client: Client):
    Patient.objects.filter(pk=patients[1].pk).update(erased_at="2026-01-01T00:00Z")
    for key in (patients[1].pk, uuid.uuid4()):
        for page in ("", "live/", "days.csv"):
            assert admin_client.get(f"/admin/patients/patient/{key}/usage/{page}").status_code == 404
    assert admin_client.get("/admin/figures/weeks.csv").status_code == 404
    assert (
        f"/{patients[1].pk}/usage/"
        not in admin_client.get(f"/admin/patients/patient/{patients[1].pk}/change/").content.decode()
    )


def test_a_name_that_looks_like_a_formula_is_quoted_in_the_csv_file(patients, admin_client: Client):
    Patient.objects.filter(pk=patients[0].pk).update(name="=HYPERLINK(1)")
    rows = list(csv.reader(admin_client.get("/admin/figures/patients.csv").content.decode("utf-8-sig").splitlines()))
    assert "'=HYPERLINK(1)" in [row[0] for row in rows]


def test_markup_in_a_name_is_escaped(patients, admin_client: Client):
    Patient.objects.filter(pk=patients[0].pk).update(name="</script><b>M")
    history.connect_device(patients[0])
    for url in ("/admin/", usage_url(patients[0])):
        assert "<b>M" not in admin_client.get(url).content.decode()


@pytest.mark.parametrize("has_usage", [True, False])
def test_the_first_page_lists_languages_without_a_greeting(has_usage: bool, alice: Member, admin_client: Client):
    """In a card, or in the checklist of an installation without speech."""
    cache.clear()
    if has_usage:
        history.create_usage(days=3, patient_count=1)
    gap = f"English (en): {1 + has_usage} patient{'s' if has_usage else ''}, no phrases, <a"
    page = admin_client.get("/admin/").content.decode()
    assert page.count(gap) == 1
    assert ("No speech yet" in page) is not has_usage
    assert gap.removesuffix(", <a") in staff("view_phrase", "view_dailyusage").get("/admin/").content.decode()
    assert "English (en)" not in staff("view_dailyusage").get("/admin/").content.decode()


def test_pages_have_no_inline_scripts_styles_or_handlers(patients, admin_client: Client):
    for url in ("/admin/", usage_url(patients[0])):
        page = admin_client.get(url).content.decode()
        scripts = page.split("<script")[1:]
        assert all('src="' in tag.partition(">")[0] or "application/json" in tag.partition(">")[0] for tag in scripts)
        assert " style=" not in page
        assert " onclick=" not in page


@pytest.mark.parametrize("path", ["/admin/", "/admin/live/", "own"])
def test_the_number_of_queries_does_not_grow_with_the_data(patients, admin_client: Client, path: str):
    url = usage_url(patients[0]) if path == "own" else path
    history.create_current_state(patients)
    baseline = count_queries(admin_client, url)
    for number in range(12):
        Incident.objects.create(kind="voice", key=str(number))
        history.connect_device(patients[number % 8])
    DailyUsage.objects.all().delete()
    history.create_usage(days=200, patient_count=20)
    cache.clear()
    assert count_queries(admin_client, url) == baseline
    assert baseline <= 40


def test_only_unconfirmed_events_of_the_ledger_are_read(patients, admin_client: Client):
    for url in page_urls(patients[0]):
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(url)
        event_queries = [query["sql"] for query in captured if "usage_usageevent" in query["sql"]]
        assert len(event_queries) == (url == "/admin/")
        assert all("\"outcome\" = 'unknown'" in sql for sql in event_queries)  # a partial index has these


def count_queries(client: Client, url: str) -> int:
    client.get(url)  # fill the caches first
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


# Users who see their own patients only


@pytest.fixture
def clinician(patients: list[Patient]) -> Client:
    """The browser of a clinician who cares for the first patient."""
    user = User.objects.create_user("carer", is_staff=True)
    user.groups.add(role("Clinician"))
    patients[0].team.add(user)
    client = Client()
    client.force_login(user)
    return client


def test_the_dashboard_says_whose_figures_it_shows(patients, clinician: Client, admin_client: Client):
    note = "The figures and charts are those of all patients"
    page = clinician.get("/admin/").content.decode()
    assert note in page
    assert '<a href="/admin/patients/patient/">your patients</a>' in page
    assert note not in admin_client.get("/admin/").content.decode()
    assert note not in clinician.get(usage_url(patients[0])).content.decode()


def test_an_unknown_patient_and_one_of_others_get_the_same_words_without_the_id(
    patients, clinician: Client, admin_client: Client
):
    unknown = uuid.uuid4()
    for client, key in ((clinician, patients[1].pk), (clinician, unknown), (admin_client, unknown)):
        text = client.get(f"/admin/patients/patient/{key}/change/", follow=True).content.decode()
        assert "This patient does not exist, or you are not allowed to see it." in text
        assert str(key) not in text
