"""Django's application configuration of `voicecare.patients`."""

from django.apps import AppConfig


class PatientsConfig(AppConfig):
    name = "voicecare.patients"
    verbose_name = "Patients and devices"
