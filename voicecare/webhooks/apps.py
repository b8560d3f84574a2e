"""Django's application configuration of `voicecare.webhooks`."""

from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "voicecare.webhooks"
    verbose_name = "Webhooks"
