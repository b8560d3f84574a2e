"""What every page may say, whichever application it belongs to: a context processor (settings.TEMPLATES)."""

from django.conf import settings
from django.http import HttpRequest


def sandbox_provider(request: HttpRequest) -> dict[str, bool]:
    """`sandbox_provider`: speech comes from the built-in provider, and nobody may take it for the real one."""
    return {"sandbox_provider": settings.USE_SANDBOX}
