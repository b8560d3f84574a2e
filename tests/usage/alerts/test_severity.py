"""Every kind of incident has a severity, and what patients hear is never held as a matter of money."""

import pytest

from usage.alerts.severity import MONEY_KINDS, Severity, severity_of
from usage.models import Incident


@pytest.mark.parametrize("kind", list(Incident.Kind))
def test_every_kind_has_a_severity(kind: Incident.Kind):
    assert severity_of(Incident(kind=kind)) in Severity


def test_what_patients_hear_is_critical_and_never_about_money_only():
    assert severity_of(Incident(kind="no_voice")) == severity_of(Incident(kind="quota")) == Severity.CRITICAL
    assert not [kind for kind in MONEY_KINDS if severity_of(Incident(kind=kind)) == Severity.CRITICAL]
    assert {"budget", "forecast", "quota_low", "drift"} == MONEY_KINDS
