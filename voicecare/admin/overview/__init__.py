"""Admin pages that show facts of several apps, so that none of these apps can have them.

`patients` is the list and the page of patients, with their usage and incidents. `clinics` are the pages of clinics.
`devices` are the pages of devices, which show a token once. `incidents` are the pages of incidents, with the patients
whose speech waits. `phrases` are the pages of phrases, with what they save and with suggestions
(`phrase_suggestions`). `tokens` are the API tokens. `audit` is the audit trail, with `audit_filters` and
`audit_export`.
"""

from voicecare.admin.overview import audit, clinics, devices, incidents, patients, phrases, tokens

__all__ = ["audit", "clinics", "devices", "incidents", "patients", "phrases", "tokens"]
