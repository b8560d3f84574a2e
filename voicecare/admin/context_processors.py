"""Context variables for the templates of all pages (settings.TEMPLATES)."""

from django.conf import settings
from django.http import HttpRequest


def sandbox_provider(request: HttpRequest) -> dict[str, bool]:
    """Returns the variable `sandbox_provider`, which is true if speech comes from the built-in sandbox provider.

    Pages then show a banner, because patients would not hear the real voices.
    """
    return {"sandbox_provider": settings.USE_SANDBOX}
