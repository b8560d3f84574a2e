"""Django's application configurations of the project package."""

from typing import Any

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
        from voicecare.admin import overview, users  # noqa: F401

    default = False


def _token_digest_name(token: Any) -> str:  # noqa: ANN401 - a model that cannot be imported yet
    return f"of user {token.user_id}"


class ApiTokensConfig(AppConfig):
    """django-rest-knox. Its rows are the digests of tokens. The admin shows `voicecare.accounts.models.ApiToken`."""

    name = "knox"
    verbose_name = "API token digests"
    default = False

    def ready(self) -> None:
        model: Any = self.get_model("AuthToken")
        model._meta.verbose_name = "API token digest"
        model._meta.verbose_name_plural = "API token digests"
        model._meta.default_permissions = ()  # no page shows them
        # The page that deletes a user lists the user's rows by name. The library's name is the digest.
        model.__str__ = _token_digest_name
