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
    """Django's admin application, with VoicecareAdminSite instead of the default site."""

    default_site = "voicecare.admin.site.VoicecareAdminSite"

    def ready(self) -> None:
        super().ready()
        # Registers pages about several apps. Their own modules `admin` must have been imported before.
        from voicecare.admin import overview  # noqa: F401

    default = False


class ApiTokensConfig(AppConfig):
    """django-rest-knox, whose rows the admin calls API tokens."""

    name = "knox"
    verbose_name = "API tokens"
    default = False

    def ready(self) -> None:
        options = self.get_model("AuthToken")._meta
        options.verbose_name, options.verbose_name_plural = "API token", "API tokens"
