"""No list, search or page of the admin reads a whole table that grows with time."""

import re
from html import unescape

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from cloning.models import CloneJob
from tests.plans.explain import GROWING_TABLES, Explained
from tts.models import Conversation, Utterance
from usage.models import DailyUsage, Incident, UsageEvent
from voicecare.audit.models import AuditEntry
from voicecare.patients.models import Patient

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ten_years")]

LISTS = [model for model in admin.site._registry if model._meta.app_label != "auth"]
GROWING = [model for model in LISTS if model._meta.db_table in GROWING_TABLES]
MONTHS = 2  # of the period filter; the others differ in their dates only


@pytest.fixture
def boss(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


def list_url(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def open_page(client: Client, url: str, **query: object) -> str:
    """Return the HTML of a page that reads no whole table."""
    with Explained() as explained:
        response = client.get(url, query)
    assert response.status_code == 200, url
    assert explained.problems == [], url
    return response.content.decode()


def links(page: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'<a href="(\?[^"]+)"', page)]


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model.__name__)
def test_a_list_its_filters_and_its_second_page(model: type[Model], boss: Client):
    url = list_url(model)
    found = links(open_page(boss, url))
    months = [link for link in found if re.search(r"period=\d{4}-", link)]
    for link in [*(link for link in found if link not in months), *months[:MONTHS]]:
        open_page(boss, url + link)


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model.__name__)
@pytest.mark.parametrize(
    "term",
    ["0f4a2c1e-9d3b-4b6e-8a57-1c2d3e4f5a6b", "Patient 17", "no such words", "request-1234567", "say-17", "Voice 7"],
)
def test_a_search(model: type[Model], term: str, boss: Client):
    open_page(boss, list_url(model), q=term)


SEARCHES = [
    (UsageEvent, lambda row: row.request_id),
    (UsageEvent, lambda row: row.pk),
    (UsageEvent, lambda row: row.source),
    (UsageEvent, lambda row: row.conversation),
    (UsageEvent, lambda row: row.patient),
    (UsageEvent, lambda row: row.voice),
    (DailyUsage, lambda row: row.patient),
    (DailyUsage, lambda row: row.voice),
    (Utterance, lambda row: row.pk),
    (Utterance, lambda row: f"srv-{row.pk}"),
    (Utterance, lambda row: row.conversation_id),
    (Conversation, lambda row: row.pk),
    (Incident, lambda row: row.key),
    (CloneJob, lambda row: row.pk),
    (AuditEntry, lambda row: row.patient_id),
    (AuditEntry, lambda row: row.object_id),
]


@pytest.mark.parametrize(("model", "term"), SEARCHES)
@pytest.mark.parametrize("order", ["first", "last"])
def test_an_id_finds_rows_of_any_date(model: type[Model], term, order: str, boss: Client):
    ordering = admin.site._registry[model].period_field
    rows = model.objects.order_by(ordering)
    if model is Incident:
        rows = rows.exclude(key="")
    if model is UsageEvent:
        rows = rows.exclude(request_id="")
    row = getattr(rows, order)()
    assert 'id="result_list"' in open_page(boss, list_url(model), q=str(term(row)))


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2000-01-01", "to": "2999-12-31"},
        {"from": "2000-01-01", "user_id": "17"},
        {"from": "2000-01-01", "action": "read_text"},
        {"from": "2000-01-01", "action": "an action that nobody did"},
        {"from": "2000-01-01", "q": "Patient 175"},
    ],
    ids=str,
)
def test_the_audit_trail_of_ten_years(query: dict[str, str], boss: Client):
    open_page(boss, list_url(AuditEntry), **query)


@pytest.mark.parametrize("model", GROWING, ids=lambda model: model.__name__)
def test_the_page_of_a_row(model: type[Model], boss: Client):
    for row in (model.objects.first(), model.objects.last()):
        assert row is not None
        open_page(boss, reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[row.pk]))


def test_the_dashboards_and_their_links(boss: Client):
    patient = Patient.objects.earliest("created_at")
    for url in ("/admin/", "/admin/live/", f"/admin/patients/patient/{patient.pk}/usage/"):
        page = open_page(boss, url)
        for link in {unescape(link) for link in re.findall(r'href="(/admin/[^"]+\?[^"]+)"', page)}:
            open_page(boss, link)
