"""Template context for all pages (settings.TEMPLATES)."""

from django.conf import settings
from django.http import HttpRequest


def sandbox_provider(request: HttpRequest) -> dict[str, bool]:
    """`sandbox_provider` is true if speech comes from the built-in sandbox. Pages then show a banner."""
    return {"sandbox_provider": settings.USE_SANDBOX}
