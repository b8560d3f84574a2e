"""Middleware for requests to the API, outside of any view."""

from typing import Any

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from voicecare.api.errors import error_body

PREFIX = "/api/"


class ApiErrorMiddleware(MiddlewareMixin):
    """Runs first, so that it also handles errors of the other middleware."""

    def process_request(self, request: HttpRequest) -> None:
        """Set Content-Length for a chunked body, because DRF ignores a body without it.

        Django has read the whole body into a file by now. HttpRequest offers no public way to its size.
        """
        if "Transfer-Encoding" in request.headers and not request.META.get("CONTENT_LENGTH"):
            body: Any = request._stream
            request.META["CONTENT_LENGTH"] = str(body.seek(0, 2))
            body.seek(0)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Errors outside of a view (an unknown host, other middleware) become JSON too. No response is cached."""
        # Under ASGI each request has a thread of its own. Its database connection would stay open until garbage
        # collection: five clients kept forty connections.
        if not connection.in_atomic_block:  # tests run inside one
            connection.close()
        if not request.path_info.startswith(PREFIX):
            return response
        if response.status_code >= 400 and response.headers.get("Content-Type", "").startswith("text/html"):
            response = JsonResponse(error_body(response.status_code), status=response.status_code)
        response.headers.setdefault("Cache-Control", "no-store")
        return response
