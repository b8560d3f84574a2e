"""Django's application configuration of `voicecare.audit`."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "voicecare.audit"
    verbose_name = "Audit trail"
