"""How urgent each kind of incident is, and which kinds are about money only."""

from collections.abc import Mapping

from django.db import models

from usage.models import Incident

Kind = Incident.Kind


class Severity(models.TextChoices):
    CRITICAL = "critical", "Critical: patients hear another voice, or nothing"
    WARNING = "warning", "Warning: patients will be affected, or a part of the service fails"
    NOTICE = "notice", "Notice: bookkeeping only"


MONEY_KINDS = frozenset({Kind.BUDGET, Kind.QUOTA_LOW, Kind.FORECAST, Kind.DRIFT})
"""Quiet hours hold alerts of these kinds. Credits that are exhausted are none of them: patients hear the difference."""

_SEVERITIES: Mapping[Incident.Kind, Severity] = {
    Kind.PROVIDER_DOWN: Severity.CRITICAL,
    Kind.ACCESS: Severity.CRITICAL,
    Kind.REQUEST: Severity.CRITICAL,
    Kind.VOICE: Severity.CRITICAL,
    Kind.DEFAULT_VOICE: Severity.WARNING,
    Kind.NO_USABLE_VOICE: Severity.CRITICAL,
    Kind.VOICE_ENDING: Severity.WARNING,
    Kind.NO_VOICE: Severity.CRITICAL,
    Kind.QUOTA: Severity.CRITICAL,
    Kind.VOICE_SLOTS: Severity.WARNING,
    Kind.QUOTA_LOW: Severity.WARNING,
    Kind.FORECAST: Severity.WARNING,
    Kind.SLOW: Severity.WARNING,
    Kind.BUDGET: Severity.WARNING,
    Kind.DRIFT: Severity.NOTICE,
    Kind.SILENT: Severity.WARNING,
    Kind.SECOND_BEAT: Severity.WARNING,
    Kind.ALERTS: Severity.WARNING,
    Kind.CHANNEL: Severity.WARNING,
    Kind.TASK: Severity.WARNING,
    Kind.HISTORY: Severity.WARNING,
    Kind.RETENTION: Severity.WARNING,
    Kind.REGION: Severity.WARNING,
    Kind.WEBHOOK: Severity.WARNING,
}


def severity_of(incident: Incident) -> Severity:
    return _SEVERITIES[Kind(incident.kind)]
