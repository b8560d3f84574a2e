"""Formats numbers and dates of the admin in the language that the browser requests."""

from django.http import HttpRequest, HttpResponseBase
from django.middleware.locale import LocaleMiddleware
from django.utils import translation

PREFIX = "/admin/"


class AdminLocaleMiddleware(LocaleMiddleware):
    """Applies Django's LocaleMiddleware to the admin only. REST responses are the same in every language."""

    def process_request(self, request: HttpRequest) -> None:
        if request.path_info.startswith(PREFIX):
            super().process_request(request)
        else:
            translation.deactivate()  # the thread may have served an admin page before

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        return super().process_response(request, response) if request.path_info.startswith(PREFIX) else response
