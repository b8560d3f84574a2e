"""Prices and costs: which price a day has, exact sums, the admin's form, and costs over REST."""

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from tests.clinicians import clinician
from tests.conftest import Member
from tests.locks import is_blocking
from tests.waiting import until
from usage import budgets
from usage.models import DailyUsage, Price
from usage.prices import Cost, PriceList, plain
from usage.reports import queries

pytestmark = pytest.mark.django_db
ADD = "/admin/usage/price/add/"
MARCH = date(2026, 3, 1)
FLASH, LARGE = "eleven_flash_v2_5", "eleven_multilingual_v2"
PATIENT = uuid.UUID(int=5)


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def set_price(price: str, start: date = MARCH, model: str = "") -> Price:
    return Price.objects.create(model=model, valid_from=start, per_1000_credits=Decimal(price))


def use(credits: int, day: date = MARCH, model: str = FLASH, patient: uuid.UUID = PATIENT, kind: str = "live") -> None:
    voice = uuid.uuid4()
    DailyUsage.objects.create(
        day=day, model=model, patient=patient, voice=voice, kind=kind, credits=credits, characters=2 * credits, events=1
    )


def month_cost(month: date = MARCH) -> tuple[Decimal | None, int]:
    (stats,) = queries.monthly_stats(month, month)
    return stats.cost, stats.unpriced_credits


def test_a_change_in_the_middle_of_a_month_splits_the_month_and_old_months_keep_their_price():
    set_price("0.10", date(2026, 1, 1))
    set_price("0.20", date(2026, 3, 15))
    for day in (date(2026, 2, 28), date(2026, 3, 14), date(2026, 3, 15), date(2026, 4, 1)):
        use(1000, day)
    assert month_cost(date(2026, 2, 1)) == (Decimal("0.10"), 0)
    assert month_cost() == (Decimal("0.30"), 0)
    assert month_cost(date(2026, 4, 1)) == (Decimal("0.20"), 0)
    days = queries.daily_stats(date(2026, 3, 14), date(2026, 3, 16))
    assert [day.cost for day in days] == [Decimal("0.10"), Decimal("0.20"), 0]


def test_the_price_of_the_model_comes_before_the_price_of_all_models():
    set_price("0.10")
    set_price("0.30", date(2026, 3, 20))
    set_price("1", date(2026, 3, 10), LARGE)
    for day in (5, 12, 25):
        use(1000, date(2026, 3, day), LARGE)
        use(1000, date(2026, 3, day), FLASH)
    assert month_cost() == (Decimal("0.10") * 3 + Decimal("0.30") + 2, 0)


def test_credits_without_a_price_are_not_part_of_the_cost_but_are_counted():
    use(700, date(2026, 3, 1))
    assert month_cost() == (None, 0)  # there are no prices
    set_price("0.10", date(2026, 4, 1))
    assert month_cost() == (None, 700)
    set_price("0", date(2026, 3, 2))
    assert month_cost() == (None, 700)
    use(300, date(2026, 3, 2))
    cache.clear()
    assert month_cost() == (Decimal(0), 700)  # 300 of them were free


def test_a_changed_price_is_seen_immediately_although_past_days_are_cached():
    use(1000)
    price = set_price("0.10")
    assert month_cost() == (Decimal("0.10"), 0)
    assert queries.top_shares("patient", MARCH, MARCH)[0].cost == Decimal("0.10")
    price.per_1000_credits = Decimal("0.40")
    price.save()
    assert month_cost() == (Decimal("0.40"), 0)
    assert queries.daily_stats(MARCH, MARCH)[0].cost == Decimal("0.40")
    assert queries.top_shares("patient", MARCH, MARCH)[0].cost == Decimal("0.40")


def test_many_small_amounts_add_up_exactly():
    """Binary fractions would lose the last digits: 0.000001 has no exact one."""
    set_price("0.000001")
    set_price("0.3", date(2026, 3, 11))
    patients = [uuid.UUID(int=number) for number in range(1, 31)]
    for number, patient in enumerate(patients):
        for day in range(1, 21):
            use(number + day, date(2026, 3, day), patient=patient)
    last = date(2026, 3, 31)
    parts = {(1, 10): Decimal("0.000000001"), (11, 20): Decimal("0.0003")}
    wanted = sum(
        (
            (number + day) * price
            for (first, end), price in parts.items()
            for number in range(30)
            for day in range(first, end + 1)
        ),
        Decimal(),
    )
    assert month_cost() == (wanted, 0)
    assert sum(day.cost for day in queries.daily_stats(MARCH, last) if day.cost) == wanted
    assert sum(share.cost for share in queries.top_shares("patient", MARCH, last, 1000) if share.cost) == wanted
    assert sum(share.cost for share in queries.top_shares("voice", MARCH, last, 1000) if share.cost) == wanted
    of_patients = [queries.monthly_stats(MARCH, MARCH, patient_id=patient)[0].cost for patient in patients]
    assert sum(filter(None, of_patients)) == wanted


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10**12)), max_size=30))
def test_the_cost_of_the_parts_is_the_cost_of_the_sum(parts: list[tuple[int, int]]):
    prices = PriceList(
        [
            Price(model="", valid_from=MARCH, per_1000_credits=Decimal("999999.999999")),
            Price(model=FLASH, valid_from=MARCH, per_1000_credits=Decimal("0.000001")),
        ]
    )
    alone = [prices.cost([part]).amount for part in parts]
    assert prices.cost(parts) == Cost(sum(alone, Decimal()), 0)


@pytest.mark.parametrize(
    ("amount", "text"), [("0.012500", "0.0125"), ("100.000", "100"), ("0E-9", "0"), ("0.000000001", "0.000000001")]
)
def test_an_exact_amount_has_no_exponent(amount: str, text: str):
    assert plain(Decimal(amount)) == text


# The admin


def form(price: str, day: str = "2026-03-01", model: str = "") -> dict[str, str]:
    return {"model": model, "valid_from": day, "per_1000_credits": price}


def test_an_administrator_adds_a_price_and_zero_is_allowed(admin_client: Client, settings: Settings):
    settings.PRICE_CURRENCY = "CHF"
    assert admin_client.post(ADD, form("0")).status_code == 302
    assert admin_client.post(ADD, form("0.125", model=LARGE)).status_code == 302
    page = admin_client.get("/admin/usage/price/").content.decode()
    assert "0 CHF" in page
    assert "0.125 CHF" in page
    assert "All other models" in page
    assert "In CHF. Zero means free." in admin_client.get(ADD).content.decode()


@pytest.mark.parametrize("price", ["-0.01", "NaN", "Infinity", "1e9", "", "0.0000001", "much"])
def test_a_price_that_is_no_amount_is_refused(admin_client: Client, price: str):
    response = admin_client.post(ADD, form(price))
    assert response.status_code == 200
    assert response.context["adminform"].form.errors
    assert not Price.objects.exists()


def test_a_second_price_of_a_model_and_day_is_refused(admin_client: Client):
    admin_client.post(ADD, form("1"))
    response = admin_client.post(ADD, form("2"))
    assert "already has a price from this day on" in response.content.decode()
    assert [price.per_1000_credits for price in Price.objects.all()] == [1]


@pytest.mark.django_db(transaction=True)
def test_of_two_prices_that_are_saved_at_the_same_time_one_is_refused(admin_user: User):
    """The second request waits for the unique index, after its form has found no other price."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    client = Client()
    client.force_login(admin_user)
    answers: list[str] = []

    def post() -> None:
        try:
            response = client.post(ADD, form("2"))
            answers.append(f"{response.status_code} {response.content.decode()}")
        finally:
            connection.close()

    second = threading.Thread(target=post)
    with transaction.atomic():
        set_price("1")
        second.start()
        until(is_blocking)
    second.join(20)
    assert answers[0].startswith("200")
    assert "already has a price from this day on" in answers[0]
    assert [price.per_1000_credits for price in Price.objects.all()] == [1]


def test_the_database_refuses_a_negative_price():
    with pytest.raises(ValidationError, match="cannot be negative"):
        Price(valid_from=MARCH, per_1000_credits=Decimal(-1)).full_clean()


def test_only_users_with_the_permission_see_and_change_prices():
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_price"))
    client = Client()
    client.force_login(user)
    assert client.get("/admin/usage/price/").status_code == 200
    assert client.post(ADD, form("1")).status_code == 403
    user.user_permissions.clear()
    assert client.get("/admin/usage/price/").status_code == 403


# Costs over REST


def test_usage_over_rest_has_the_exact_cost(alice: Member, settings: Settings):
    settings.PRICE_CURRENCY = "EUR"
    staff = clinician("stan", in_role="Administrator", is_staff=True)
    set_price("0.10")
    set_price("0.0125", date(2026, 3, 15))
    use(3, date(2026, 3, 1), patient=alice.patient.pk)
    use(1, date(2026, 3, 20), patient=alice.patient.pk)
    use(5, date(2026, 2, 20), model=LARGE)
    rows = staff.get("usage/monthly/?from=2026-02-01&to=2026-03-31")["results"]
    fields = ("month", "cost", "currency", "unpriced_credits")
    assert [tuple(row[field] for field in fields) for row in rows] == [
        ("2026-02", None, None, 5),
        ("2026-03", "0.0003125", "EUR", 0),
    ]
    days = staff.get("usage/daily/?from=2026-02-01&to=2026-03-31&page_size=2&page=2")["results"]
    assert [(row["date"], row["cost"]) for row in days] == [("2026-03-20", "0.0000125")]
    grouped = staff.get("usage/monthly/?from=2026-02-01&to=2026-03-31&group=model")["results"]
    assert [(row["model"], row["cost"]) for row in grouped] == [(LARGE, None), (FLASH, "0.0003125")]
    mine = staff.get(f"usage/daily/?from=2026-03-01&to=2026-03-31&patient={alice.patient.pk}&group=patient")["results"]
    assert [row["cost"] for row in mine] == ["0.0003", "0.0000125"]


def test_a_budget_shows_the_cost_of_its_used_characters(alice: Member, admin_client: Client):
    today = queries.today()
    assert budgets.budget_status(alice.patient).cost == Cost(None, 0)
    set_price("2", today - timedelta(days=40))
    use(500, today, patient=alice.patient.pk)
    use(250, today, patient=alice.patient.pk, kind="preview")  # not part of the budget
    assert budgets.budget_status(alice.patient).cost == Cost(Decimal(1), 0)
    carol = clinician("carol", alice.patient, in_role="Clinician")
    answer = carol.get(f"patients/{alice.patient.pk}/budget/")
    assert (answer["used"], answer["cost"], answer["currency"]) == (1000, "1", "USD")
    alice.patient.monthly_character_budget = 5000
    alice.patient.save()
    page = admin_client.get(f"/admin/patients/patient/{alice.patient.pk}/usage/").content.decode()
    assert "Cost so far: 1.00 USD" in page


# The dashboard


def test_the_pages_show_costs_only_if_there_are_prices(alice: Member, admin_client: Client):
    now = datetime.now(UTC).date()
    use(2_000_000, now, patient=alice.patient.pk)
    pages = ("/admin/", f"/admin/patients/patient/{alice.patient.pk}/usage/")
    for url in pages:
        page = admin_client.get(url).content.decode()
        assert "Cost" not in page
        assert "USD" not in page
    assert b"Cost" not in admin_client.get("/admin/figures/days.csv").content
    set_price("0.61728", now - timedelta(days=400))
    for url in pages:
        page = admin_client.get(url).content.decode()
        assert "Cost this month" in page
        assert "1,234.56 <span" in page
        assert "Cost (USD)" in page
    for name in ("days", "months", "patients", "voices"):
        lines = admin_client.get(f"/admin/figures/{name}.csv").content.decode().splitlines()
        assert lines[0].endswith(",Cost (USD)")
        assert [line for line in lines if line.endswith(",1234.56")]
    assert ",1234.56,2000000,0" in admin_client.get("/admin/figures/cost.csv").content.decode()
