"""Django's application configurations of the project package."""

from django.apps import AppConfig
from django.contrib.admin import apps


class VoicecareConfig(AppConfig):
    name = "voicecare"
    default = True

    def ready(self) -> None:
        # Both register themselves when they are imported. Without the Celery application, `shared_task` and
        # `current_app` would use Celery's default one, which has another broker.
        from voicecare import celery, checks  # noqa: F401


class VoicecareAdminConfig(apps.AdminConfig):
    """Django's admin application with our own site."""

    default_site = "voicecare.admin.site.VoicecareAdminSite"
    default = False
