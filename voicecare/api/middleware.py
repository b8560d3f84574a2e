"""Middleware for requests to the REST API, for the parts of a request that no view handles."""

from typing import Any

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from voicecare.api.errors import error_body

PREFIX = "/api/"


class ApiErrorMiddleware(MiddlewareMixin):
    """Makes JSON responses of all errors under /api/, and forbids caching.

    Only the health checks come before it in settings.MIDDLEWARE, so it also handles the errors of the other middleware.
    """

    def process_request(self, request: HttpRequest) -> None:
        """Sets Content-Length for a request with a chunked body, because DRF ignores a body without this header.

        The length is known, because Django has already read the whole body into a file. The private attribute `_stream`
        is the only way to this file.
        """
        if "Transfer-Encoding" in request.headers and not request.META.get("CONTENT_LENGTH"):
            body: Any = request._stream
            request.META["CONTENT_LENGTH"] = str(body.seek(0, 2))
            body.seek(0)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Replaces the HTML body of an error under /api/ with JSON, and forbids caching of all responses under /api/.

        Such errors occur outside of views, for example for an unknown host. Also closes the database connection.
        """
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
