"""Patients, their devices and the voices that speak to them.

Public names: `models` (Patient, Device, Voice), `authentication.authenticate_device`, `erasure.start_erasure` and
`api.visible_voices`. Other apps refer to these rows and extend the admin and the REST API. Imports `voicecare.core`,
`voicecare.api` and `voicecare.admin.readonly`, and no app.
"""
