"""Patients, their devices and the voices that speak to them.

Public names: `models` (Patient, Device, Voice), `authentication.authenticate_device`, `erasure.start_erasure` and
`api.visible_voices`. Models of other apps refer to these models. This package imports `voicecare.core`, `voicecare.api`
and `voicecare.admin.readonly`, and no app.
"""
