"""Prices, the mails about a month and a week, and the budgets of patients and clinics."""

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from voicecare.patients.models import Clinic


class Price(models.Model):
    """What 1,000 credits of a model cost from a day on, in PRICE_CURRENCY, until the next price of the same model.

    Days are in USAGE_TIME_ZONE. `usage/prices.py` says which price a day's usage has.
    """

    id = models.BigAutoField(primary_key=True)
    model = models.CharField(
        max_length=64,
        blank=True,
        help_text="Id of a model at the provider, such as eleven_flash_v2_5. Empty: all other models.",
    )
    valid_from = models.DateField(help_text="The first day with this price. Usage of earlier days keeps its price.")
    per_1000_credits = models.DecimalField(
        "price of 1,000 credits",
        max_digits=12,
        decimal_places=6,
        validators=[MinValueValidator(0, "A price cannot be negative. Zero means free.")],
    )

    class Meta:
        ordering = ("model", "-valid_from")
        constraints = [
            models.UniqueConstraint(
                fields=["model", "valid_from"],
                name="price_once_a_day",
                violation_error_message="This model already has a price from this day on. Change that one.",
            ),
            models.CheckConstraint(condition=Q(per_1000_credits__gte=0), name="price_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.model or 'all models'} from {self.valid_from}"


class MailOnce(models.Model):
    """A mail about a period, which `usage/mail_once.py` sends. The row is created when it is first sent."""

    sending_until = models.DateTimeField(
        null=True, help_text="Lease expiry. One process at a time sends the mail, and after a failure it is sent again."
    )
    sent_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True


class StatementMail(MailOnce):
    """The mail about the statement of one month."""

    month = models.DateField(primary_key=True, help_text="The first day of the month.")

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class DigestMail(MailOnce):
    """The mail about one week."""

    week = models.DateField(primary_key=True, help_text="The Monday of the week.")

    def __str__(self) -> str:
        return f"week of {self.week}"


class BudgetMonth(models.Model):
    """Characters that a patient with a monthly budget has used, and characters that running speeches have reserved.

    `used` is the sum of the patient's live, retry and backup events of that month in USAGE_TIME_ZONE.
    """

    id = models.BigAutoField(primary_key=True)
    patient = models.UUIDField()
    month = models.DateField(help_text="The first day of the month.")
    reserved = models.PositiveBigIntegerField(default=0)
    used = models.PositiveBigIntegerField(default=0)
    budget_when_refused = models.PositiveBigIntegerField(
        db_column="refused_under", null=True, help_text="The budget when a request last exceeded it."
    )
    updated_at = models.DateTimeField(
        db_column="touched_at",
        default=timezone.now,
        help_text="When a reservation was last made or released, or usage was recorded.",
    )
    checked = models.BooleanField(
        default=False, db_default=False, help_text="Whether `used` was compared with the ledger since `updated_at`."
    )

    class Meta:
        ordering = ("-month",)
        indexes = [models.Index(fields=["updated_at"], condition=Q(checked=False), name="budget_unchecked")]
        constraints = [models.UniqueConstraint(fields=["patient", "month"], name="budget_month_key")]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class ClinicBudget(models.Model):
    """Characters that the patients of a clinic have used and reserved together in one month or on one day.

    `usage/clinic_budgets.py` maintains the rows of clinics with a budget. Months and days are in USAGE_TIME_ZONE.
    """

    class Period(models.TextChoices):
        MONTH = "month", "monthly"
        DAY = "day", "daily"

    id = models.BigAutoField(primary_key=True)
    clinic = models.ForeignKey(Clinic, on_delete=models.CASCADE, related_name="budget_rows", db_index=False)
    period = models.CharField(max_length=5, choices=Period)
    start = models.DateField(help_text="The day, or the first day of the month.")
    reserved = models.PositiveBigIntegerField(default=0)
    used = models.PositiveBigIntegerField(default=0)
    budget_when_refused = models.PositiveBigIntegerField(
        null=True, help_text="The budget when a request last exceeded it."
    )
    compared_at = models.DateTimeField(
        null=True, help_text="When the row was last compared with those of the clinic's patients."
    )

    class Meta:
        ordering = ("-start",)
        constraints = [models.UniqueConstraint(fields=["clinic", "period", "start"], name="clinic_budget_key")]

    def __str__(self) -> str:
        return f"{self.period} from {self.start}"
