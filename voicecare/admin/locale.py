"""Numbers and dates of the admin as its reader's browser asks for them."""

from django.http import HttpRequest, HttpResponseBase
from django.middleware.locale import LocaleMiddleware
from django.utils import translation

PREFIX = "/admin/"


class AdminLocaleMiddleware(LocaleMiddleware):
    """Of the admin alone: whatever a program reads is the same in every language."""

    def process_request(self, request: HttpRequest) -> None:
        if request.path_info.startswith(PREFIX):
            super().process_request(request)
        else:
            translation.deactivate()  # a thread serves many

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        return super().process_response(request, response) if request.path_info.startswith(PREFIX) else response
