"""Which clinic an incident is about. Its addresses get the alerts beside the recipients of all alerts."""

import uuid
from collections.abc import Iterable, Mapping

from usage.models import Incident
from voicecare.patients.models import Clinic, Patient, Voice

Kind = Incident.Kind


def clinic_ids_of(incidents: Iterable[Incident]) -> Mapping[uuid.UUID, uuid.UUID]:
    """Return the ids of clinics by the ids of incidents, without incidents about the whole service.

    The clinic is the subject itself, or that of the patient, or that of the patient whose cloned voice it is.
    """
    keys: dict[str, dict[uuid.UUID, uuid.UUID]] = {Kind.BUDGET: {}, Kind.VOICE: {}}
    for incident in incidents:
        if incident.kind in keys:  # the keys of other kinds are no ids of patients, clinics or voices
            try:
                keys[incident.kind][incident.pk] = uuid.UUID(incident.key)
            except ValueError:
                continue
    subjects = set(keys[Kind.BUDGET].values())
    clinics = {pk: pk for pk in Clinic.objects.filter(pk__in=subjects).values_list("pk", flat=True)}
    clinics |= dict(Patient.objects.filter(pk__in=subjects, clinic__isnull=False).values_list("pk", "clinic"))
    voices = Voice.objects.filter(pk__in=set(keys[Kind.VOICE].values()), patient__clinic__isnull=False)
    clinics |= dict(voices.values_list("pk", "patient__clinic"))
    return {pk: clinics[key] for of_kind in keys.values() for pk, key in of_kind.items() if key in clinics}


def addresses_for(incident: Incident) -> list[str]:
    """Return the mail addresses of the clinic that the incident is about."""
    clinic = Clinic.objects.filter(pk__in=clinic_ids_of([incident]).values()).first()
    return clinic.alert_addresses if clinic else []
