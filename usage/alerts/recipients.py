"""Who gets the alerts about an incident, beside the recipients of all alerts: the addresses of the clinic concerned."""

import uuid

from django.db.models import Q

from usage.models import Incident
from voicecare.patients.models import Clinic


def clinic_of(incident: Incident) -> Clinic | None:
    """Return the clinic that the incident is about. None for incidents about the whole service.

    That is the clinic itself, or the clinic of the patient, or of the patient whose cloned voice it is.
    """
    if incident.kind not in (Incident.Kind.BUDGET, Incident.Kind.VOICE):
        return None  # the keys of other kinds are no ids of patients, clinics or voices
    try:
        key = uuid.UUID(incident.key)
    except ValueError:
        return None
    if incident.kind == Incident.Kind.VOICE:
        return Clinic.objects.filter(patients__own_voices=key).first()
    return Clinic.objects.filter(Q(pk=key) | Q(patients=key)).first()


def addresses_for(incident: Incident) -> list[str]:
    """Return the mail addresses of the clinic that the incident is about."""
    clinic = clinic_of(incident)
    return clinic.alert_addresses if clinic else []
