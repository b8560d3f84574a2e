"""Clinics, or wards: groups of patients and of the users who care for them."""

import re
import uuid

from django.conf import settings
from django.core.validators import validate_email
from django.db import models

_SEPARATORS = re.compile(r"[\s,;]+")


def validate_addresses(text: str) -> None:
    """Raises ValidationError if one of the mail addresses is not valid."""
    for address in addresses_in(text):
        validate_email(address)


def addresses_in(text: str) -> list[str]:
    """Returns the mail addresses of a text, which are separated by spaces, lines, commas or semicolons."""
    return [part for part in _SEPARATORS.split(text) if part]


class Clinic(models.Model):
    """A clinic or ward. A patient belongs to one at most. A user may be a member of several.

    Members see the patients of the clinic, also without being in their care teams. The budgets limit the characters
    that are spoken to all patients of the clinic together (`usage/budgets.py`), beside the patients' own budgets.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    monthly_character_budget = models.PositiveIntegerField(
        null=True, blank=True, help_text="For all patients of the clinic together. Empty: no limit."
    )
    daily_character_budget = models.PositiveIntegerField(
        null=True, blank=True, help_text="For all patients of the clinic together. Empty: no limit."
    )
    alert_emails = models.TextField(
        "alert addresses",
        blank=True,
        validators=[validate_addresses],
        help_text="Mail addresses that also get the alerts about this clinic and its patients, one in each line.",
    )
    members = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        blank=True,
        related_name="clinics",
        help_text="They see the patients of the clinic, in addition to those of their care teams.",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def has_budget(self) -> bool:
        return self.monthly_character_budget is not None or self.daily_character_budget is not None

    @property
    def alert_addresses(self) -> list[str]:
        return addresses_in(self.alert_emails)
