"""The edge of the API, outside of any view."""

from typing import Any

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from voicecare.api.errors import error_body

PREFIX = "/api/"


class ApiErrorMiddleware(MiddlewareMixin):
    """The first of all, so that it sees what goes wrong in any other."""

    def process_request(self, request: HttpRequest) -> None:
        """A body in chunks has no length, and one without a length is none to DRF. By now all of it is in a file."""
        if "Transfer-Encoding" in request.headers and not request.META.get("CONTENT_LENGTH"):
            body: Any = request._stream
            request.META["CONTENT_LENGTH"] = str(body.seek(0, 2))
            body.seek(0)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """What failed outside of a view (a host that is not ours, a middleware) is JSON, too; nothing is cached."""
        _close_connection()
        if not request.path_info.startswith(PREFIX):
            return response
        if response.status_code >= 400 and response.headers.get("Content-Type", "").startswith("text/html"):
            response = JsonResponse(error_body(response.status_code), status=response.status_code)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _close_connection() -> None:
    """Under ASGI each request has a thread of its own, and its connection would outlive it until the garbage collector
    comes by: forty open ones for five clients."""
    if not connection.in_atomic_block:  # a test's own
        connection.close()
