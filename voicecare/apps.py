from django.apps import AppConfig
from django.contrib.admin import apps


class VoicecareConfig(AppConfig):
    name = "voicecare"
    default = True

    def ready(self) -> None:
        from voicecare import checks  # noqa: F401  # registers itself


class OwnAdmin(apps.AdminConfig):
    """Django's own admin application, with our site."""

    default_site = "voicecare.admin.site.Site"
    default = False
