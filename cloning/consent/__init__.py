"""Consent and its end: the consent wording, withdrawal, erasure of a patient, and retention of recordings.

`withdrawal.withdraw` ends the use of a voice immediately and removes its data in the background. `erasure` does this
for all voices of an erased patient. `retention` deletes old recordings. This package imports cloning.gateway,
cloning.models, usage.alerts, usage.provider_history and voicecare.
"""
