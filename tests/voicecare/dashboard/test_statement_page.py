"""The statement of a month and its CSV files: complete, equal to the ledger, with names for those who may see them."""

import csv
import uuid
from collections.abc import AsyncIterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection
from django.db.models import Sum
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from usage.models import NO_ID, DailyUsage, Price, Reconciliation
from voicecare.patients.models import Patient, Voice

pytestmark = pytest.mark.django_db
MONTH, NEXT = date(2026, 3, 1), date(2026, 4, 1)
PAGE = "/admin/statements/2026-03/"


@pytest.fixture(autouse=True)
def clear_cache() -> None:
    cache.clear()


def use(patient: uuid.UUID, credits: int, day: date = MONTH, **fields: object) -> None:
    key = {"day": day, "patient": patient, "kind": "live", "model": "flash", **fields}
    DailyUsage.objects.create(characters=2 * credits, credits=credits, events=3, **key)


def rows_of(client: Client, subject: str) -> list[dict[str, str]]:
    response: Any = client.get(f"{PAGE}{subject}.csv")
    assert response.status_code == 200

    async def read(chunks: AsyncIterator[bytes]) -> str:
        return b"".join([chunk async for chunk in chunks]).decode("utf-8-sig")

    return list(csv.DictReader(async_to_sync(read)(response.streaming_content).splitlines()))


def staff(*rights: str) -> Client:
    user = User.objects.create_user("-".join(rights) or "none", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(user)
    return client


def test_the_csv_files_have_every_patient_and_equal_the_ledger(admin_client: Client):
    Price.objects.create(valid_from=MONTH, per_1000_credits=Decimal("0.333333"))
    Price.objects.create(valid_from=date(2026, 3, 16), per_1000_credits=Decimal("0.1"))
    patients = [Patient.objects.create(name=f"Patient {number}", companion_name="Clara") for number in range(450)]
    voice = Voice.objects.create(provider_id="v", name="Sarah")
    for number, patient in enumerate(patients):
        use(patient.pk, number, MONTH + timedelta(days=number % 31), voice=voice.pk)
    use(NO_ID, 7, kind="probe")
    use(patients[0].pk, 1000, MONTH - timedelta(days=1))
    use(patients[0].pk, 1000, NEXT)
    within = DailyUsage.objects.filter(day__gte=MONTH, day__lt=NEXT)
    wanted = within.aggregate(characters=Sum("characters"), credits=Sum("credits"), requests=Sum("events"))
    early = within.filter(day__lt=date(2026, 3, 16)).aggregate(credits=Sum("credits"))["credits"]
    cost = (early * Decimal("0.333333") + (wanted["credits"] - early) * Decimal("0.1")) / 1000
    for subject, count in (("patients", 451), ("voices", 2)):
        rows = rows_of(admin_client, subject)
        assert len(rows) == count
        assert sum(int(row["Characters"]) for row in rows) == wanted["characters"]
        assert sum(int(row["Credits"]) for row in rows) == wanted["credits"]
        assert sum(int(row["Requests"]) for row in rows) == wanted["requests"]
        assert sum(Decimal(row["Cost"]) for row in rows) == cost
        assert {row["Month"] for row in rows} == {"2026-03"}
    page = admin_client.get(PAGE)
    assert page.context["page"].statement.total.cost == cost
    assert f"{wanted['characters']:,} billed" in page.content.decode()
    assert f"{cost:.2f} USD" in page.content.decode()


def test_names_are_shown_only_to_those_who_may_see_them_and_erased_patients_are_numbers(admin_client: Client):
    alice = Patient.objects.create(name='=HYPERLINK("http://x")', companion_name="Clara")
    erased = Patient.objects.create(name="Old Name", companion_name="Clara", erased_at=timezone.now())
    use(alice.pk, 20)
    use(erased.pk, 10)
    assert [(row["Patient"], row["Name"]) for row in rows_of(admin_client, "patients")] == [
        (str(alice.pk), '\'=HYPERLINK("http://x")'),
        (str(erased.pk), ""),
    ]
    page = admin_client.get(PAGE).content.decode()
    assert "=HYPERLINK(&quot;" in page
    assert "Old Name" not in page
    assert str(erased.pk) in page
    unnamed = staff("view_dailyusage", "view_all_patients")
    assert {row["Name"] for row in rows_of(unnamed, "patients")} == {""}
    assert "HYPERLINK" not in unnamed.get(PAGE).content.decode()
    assert staff("view_patient").get(PAGE).status_code == 403
    assert staff().get(f"{PAGE}patients.csv").status_code == 403


def test_without_prices_there_is_no_cost(admin_client: Client):
    use(NO_ID, 20)
    assert "Cost" not in admin_client.get(PAGE).content.decode()
    assert "Cost" not in rows_of(admin_client, "patients")[0]


def test_the_page_shows_the_prices_of_the_month_and_the_state_of_reconciliation(admin_client: Client):
    for day, price in ((date(2025, 1, 1), 9), (date(2026, 2, 1), 1), (date(2026, 3, 20), 2), (NEXT, 3)):
        Price.objects.create(valid_from=day, per_1000_credits=price)
    Reconciliation.objects.create(day=MONTH, compared_at=timezone.now(), unexplained_characters=12, unknown_attempts=2)
    Reconciliation.objects.create(day=NEXT, compared_at=timezone.now(), unexplained_characters=500)
    response = admin_client.get(PAGE)
    assert [price.per_1000_credits for price in response.context["page"].statement.prices] == [1, 2]
    page = response.content.decode()
    assert "1 of 31 days compared with the provider, 12 characters unexplained, 2 requests unconfirmed" in page
    assert "The month is not over" not in page
    now = timezone.now()
    assert "The month is not over" in admin_client.get(f"/admin/statements/{now:%Y-%m}/").content.decode()


@pytest.mark.parametrize("month", ["2026-13", "2026-00", "1999-12", "9999-01", "0-1"])
def test_a_month_that_does_not_exist_is_not_found(admin_client: Client, month: str):
    assert admin_client.get(f"/admin/statements/{month}/").status_code == 404
    assert admin_client.get(f"/admin/statements/{month}/patients.csv").status_code == 404
    assert admin_client.get(f"{PAGE}devices.csv").status_code == 404


def test_the_number_of_queries_does_not_grow_with_the_patients(admin_client: Client):
    def count() -> int:
        admin_client.get(PAGE)
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(PAGE)
        return len(captured)

    use(NO_ID, 1)
    use(Patient.objects.create(name="Alice", companion_name="Clara").pk, 1)
    before = count()
    for number in range(30):
        use(Patient.objects.create(name=f"Patient {number}", companion_name="Clara").pk, number)
    assert count() == before
