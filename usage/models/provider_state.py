"""The state of the speech provider."""

from django.db import models
from django.db.models import Q
from django.utils import timezone


class ProviderState(models.Model):
    """The provider's state, shared by all processes in one row.

    While the circuit is open, speech does not wait for the provider. While the quota is exhausted, no request is sent.
    """

    class Circuit(models.TextChoices):
        CLOSED = "closed", "Reachable"
        OPEN = "open", "Unreachable"

    class Quota(models.TextChoices):
        AVAILABLE = "available"
        EXHAUSTED = "spent"

    class Access(models.TextChoices):
        GRANTED = "granted", "Accepted"
        KEY = "key", "Key refused"
        PERMISSION = "permission", "Plan or permission refused"

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    circuit = models.CharField("provider", max_length=6, choices=Circuit, default=Circuit.CLOSED)
    changed_at = models.DateTimeField(default=timezone.now, help_text="When the circuit was opened or closed.")
    probes = models.PositiveIntegerField(default=0, help_text="Failed health probes since the circuit opened.")
    next_probe_at = models.DateTimeField(null=True, blank=True)
    access = models.CharField(
        "API key",
        max_length=10,
        choices=Access,
        default=Access.GRANTED,
        db_default=Access.GRANTED,
        help_text="Whether the provider accepts the API key and lets it speak.",
    )
    access_changed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the API key was last refused, or accepted after a refusal."
    )
    quota = models.CharField(max_length=9, choices=Quota, default=Quota.AVAILABLE)
    quota_changed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the quota was last exhausted or restored."
    )
    quota_needed = models.PositiveBigIntegerField(
        default=0, help_text="Characters of the request that exceeded the quota."
    )
    quota_refusals = models.PositiveIntegerField(
        default=0, help_text="Consecutive refusals although the subscription showed enough credits."
    )
    quota_limit = models.PositiveBigIntegerField(null=True, blank=True, help_text="Credits of this billing period.")
    quota_used = models.PositiveBigIntegerField(null=True, blank=True, help_text="Credits used in this billing period.")
    quota_resets_at = models.DateTimeField(null=True, blank=True)
    polled_at = models.DateTimeField(null=True, blank=True, help_text="When the subscription was last read.")
    next_poll_at = models.DateTimeField(null=True, blank=True)
    concurrency_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="The provider's concurrency limit."
    )
    plan_concurrency_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="The concurrency limit of the plan when the subscription was last read."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(id=1), name="provider_state_is_one_row"),
            models.CheckConstraint(condition=Q(circuit__in=["closed", "open"]), name="provider_circuit"),
            models.CheckConstraint(condition=Q(quota__in=["available", "spent"]), name="provider_quota"),
            models.CheckConstraint(condition=Q(access__in=["granted", "key", "permission"]), name="provider_access"),
        ]

    def __str__(self) -> str:
        return f"circuit {self.circuit}, quota {self.quota}"

    @property
    def quota_remaining(self) -> int | None:
        """Credits that remained when the subscription was last read. None if it was never read or without a limit."""
        if self.quota_limit is None or self.quota_used is None:
            return None
        return max(self.quota_limit - self.quota_used, 0)
