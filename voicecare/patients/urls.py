"""REST routes of patients, clinics, devices and voices."""

from django.urls import path

from voicecare.patients import api

urlpatterns = [
    path("patients/", api.PatientList.as_view(), name="patients"),
    path("patients/<uuid:id>/", api.PatientDetail.as_view(), name="patient"),
    path("patients/<uuid:id>/devices/", api.DeviceList.as_view(), name="patient-devices"),
    path("devices/<uuid:id>/", api.DeviceDetail.as_view(), name="device"),
    path("devices/<uuid:id>/rotate/", api.DeviceRotation.as_view(), name="device-rotation"),
    path("clinics/", api.ClinicList.as_view(), name="clinics"),
    path("voices/", api.VoiceList.as_view(), name="voices"),
]
