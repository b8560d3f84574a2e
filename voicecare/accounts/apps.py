"""Django's application configuration of `voicecare.accounts`."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "voicecare.accounts"
    verbose_name = "Login and tokens"
